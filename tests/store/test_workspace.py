"""Where the workspace is, and that looking into it leaves no trace."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.errors import NotFound, UserError
from tunesmith.store import Store, examine, find_workspace


def test_the_named_folder_wins_over_the_variable_and_that_over_the_default(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_WORKSPACE", raising=False)
    assert find_workspace() == tmp_path / ".tunesmith"
    monkeypatch.setenv("TUNESMITH_WORKSPACE", "from_env")
    assert find_workspace() == tmp_path / "from_env"
    assert find_workspace(Path("named")) == tmp_path / "named"
    monkeypatch.setenv("TUNESMITH_WORKSPACE", "")
    assert find_workspace() == tmp_path / ".tunesmith"
    assert list(tmp_path.iterdir()) == []


def test_a_file_cannot_be_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        find_workspace(tmp_path / "file")
    with pytest.raises(UserError, match="is a file"):
        Store(tmp_path / "file").job_folder("train")


def test_reading_an_absent_workspace_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "w")
    assert store.ledger.versions() == []
    assert store.ledger.stage("key") is None
    assert store.ledger.aliases("boutique") == {}
    assert store.ledger.deployment("boutique", "champion") is None
    assert store.ledger.events("boutique") == []
    with pytest.raises(NotFound, match="no model has been trained in this workspace yet"):
        store.ledger.version("boutique")
    assert list(store.artefacts.digests()) == []
    assert examine(store, repair=True).sound
    assert list(tmp_path.iterdir()) == []


def test_folders_are_private_and_made_at_the_first_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "w")
    folder = store.job_folder("train-0a1b")
    (folder / "checkpoint").write_text("kept")
    assert folder == tmp_path / "w" / "jobs" / "train-0a1b"
    assert store.job_folder("train-0a1b") == folder
    assert (folder / "checkpoint").read_text() == "kept"
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert [path.name for path in store.root.iterdir()] == ["jobs"]


@pytest.mark.parametrize("key", ["", "..", "a/b", "../../etc", ".hidden", "a" * 200])
def test_a_job_folder_never_leads_out_of_the_workspace(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="cannot name a job folder"):
        Store(tmp_path).job_folder(key)


def test_paths_that_a_url_could_not_hold_are_fine(tmp_path: Path) -> None:
    store = Store(tmp_path / "what? 100%20 #é@host:1")
    store.ledger.record_stage("key", stage="freeze", artefact="a")
    assert store.ledger.stage("key") == "a"
    assert [path.name for path in store.root.iterdir()] == ["ledger.db"]


def test_the_store_opens_without_loading_sqlalchemy_and_a_current_ledger_without_alembic(tmp_path: Path) -> None:
    Store(tmp_path).ledger.record_stage("key", stage="freeze", artefact="a")
    script = (
        "import sys; from pathlib import Path; from tunesmith.store import Store, digest_of; s = Store(Path(sys.argv[1]));"
        "list(s.artefacts.digests()); assert 'sqlalchemy' not in sys.modules;"
        "assert s.ledger.stage('key') == 'a'; s.ledger.record_stage('key', stage='freeze', artefact='b');"
        "assert 'sqlalchemy' in sys.modules; assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path)], check=True)

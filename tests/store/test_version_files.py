"""Where a version's files lie, and what is said where they are gone, altered or set aside."""

from pathlib import Path

import pytest

from tunesmith.errors import BrokenArtefact, NotFound, UserError
from tunesmith.records import ModelVersion
from tunesmith.store import Store, examine, files_of, sound_files_of
from tunesmith.store.folders import make_staging, remove_folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "work")


@pytest.fixture
def version(store: Store) -> ModelVersion:
    with store.artefacts.publish("model") as staging:
        (staging.path / "weights").write_bytes(b"some weights")
    return store.ledger.register(
        ModelVersion(
            name="shop",
            number=0,
            run="r",
            artefact=staging.artefact.digest,
            weights_digest="w",
            chat_digest="c",
            base_digest="b",
            created_at="2026-01-01T00:00:00+00:00",
        )
    )


def alter(version: ModelVersion, *, store: Store) -> None:
    file = store.artefacts.get(version.artefact).path / "weights"
    file.chmod(0o600)
    file.write_bytes(b"same weightz")


def test_files_that_are_sound(store: Store, version: ModelVersion) -> None:
    assert sound_files_of(version, store=store) == files_of(version, store=store) == store.artefacts.get(version.artefact)


def test_files_that_were_altered_are_named_with_their_version(store: Store, version: ModelVersion) -> None:
    alter(version, store=store)
    assert files_of(version, store=store).digest == version.artefact
    with pytest.raises(BrokenArtefact, match=r"shop@1 cannot be trusted: .*`tunesmith doctor` says more"):
        sound_files_of(version, store=store)


@pytest.mark.parametrize("look", [files_of, sound_files_of])
def test_files_that_were_set_aside_are_said_to_be_in_quarantine(store: Store, version: ModelVersion, look: object) -> None:
    alter(version, store=store)
    examine(store, repair=True)
    with pytest.raises(NotFound, match=r"shop@1 cannot be used: its files were broken and lie in .*quarantine") as raised:
        look(version, store=store)  # type: ignore[operator]
    assert (store.quarantine / version.artefact / "weights").read_bytes() == b"same weightz"
    assert str(store.quarantine / version.artefact) in str(raised.value)


@pytest.mark.parametrize("look", [files_of, sound_files_of])
def test_files_that_are_gone(store: Store, version: ModelVersion, look: object) -> None:
    remove_folder(store.artefacts.get(version.artefact).path)
    with pytest.raises(NotFound, match=r"shop@1 cannot be used: its files are not in .*artefacts"):
        look(version, store=store)  # type: ignore[operator]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_a_place_that_takes_no_folders_is_named() -> None:
    with pytest.raises(UserError, match="/proc takes no new folders"), make_staging(Path("/proc")):
        pass

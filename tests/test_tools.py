"""A missing system tool: a skip that names it where people work, a failure in CI, whose script installs what it can."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import STRICT, require_tool

ROOT = Path(__file__).parents[1]


def command(folder: Path, name: str, script: str = "") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which commands are looked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(STRICT, raising=False)
    return folder


def test_a_tool_is_found_under_any_of_its_names(tools: Path) -> None:
    browser, strace = command(tools, "google-chrome"), command(tools, "strace")
    assert (require_tool("chromium"), require_tool("strace")) == (str(browser), str(strace))


def test_a_missing_tool_skips_and_is_named(tools: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="node is not on this machine; `apt-get install nodejs` brings it"):
        require_tool("node")


def test_a_missing_tool_fails_where_all_must_be_there(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STRICT, "1")
    with pytest.raises(pytest.fail.Exception, match=r"chromium is not on this machine.*TUNESMITH_REQUIRE_TOOLS=1 allows no skip"):
        require_tool("chromium")


def test_no_test_looks_for_a_tool_by_itself() -> None:
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in {"conftest.py", "test_tools.py"}]
    assert len(paths) > 100
    assert [str(path) for path in paths if "shutil.which(" in path.read_text()] == []


def ci(tools: Path, *, installer: str | None) -> subprocess.CompletedProcess[str]:
    """`.ci/run` where nothing is installed but what it is itself written with; `make test` says what it was told."""
    (tools / "dirname").symlink_to("/usr/bin/dirname")
    command(tools, "make", f'echo "make $1 {STRICT}=${STRICT}"')
    if installer is not None:
        command(tools, "apt-get", installer)
    return subprocess.run(["/bin/bash", str(ROOT / ".ci" / "run")], capture_output=True, text=True, check=False)


def test_ci_installs_what_is_missing_and_allows_no_skip(tools: Path) -> None:
    naming = "name=${name/nodejs/node}; name=${name/prometheus/promtool}; name=${name/systemd/systemd-analyze}"
    writing = 'printf "#!/bin/bash\\n" > "${0%/*}/$name"; /bin/chmod +x "${0%/*}/$name"'
    making = f'for name in "$@"; do {naming}; {writing}; done'
    found = ci(tools, installer=f'[ "$1" = update ] && exit; while [ "$1" != install ]; do shift; done; {making}')
    assert (found.returncode, found.stdout) == (0, f"make test {STRICT}=1\n"), found.stderr
    assert (tools / "chromium").is_file()
    assert (tools / "strace").is_file()


@pytest.mark.parametrize("installer", [None, "exit 100", "exit 0"], ids=["no apt-get", "it fails", "it brings nothing"])
def test_ci_fails_and_says_why_where_a_tool_cannot_be_had(tools: Path, installer: str | None) -> None:
    found = ci(tools, installer=installer)
    assert found.returncode != 0
    assert "make" not in found.stdout
    assert "chromium" in found.stderr
    assert "strace" in found.stderr

"""The data gate is killed at every step, and meets a full disk: it goes on, with one clear error and nothing half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.data import DataConfig, SourceConfig, freeze, load_split
from tunesmith.store import Store, examine

# Children are forked from one process, and each kills itself at its n-th system step (audit event or fsync) on the way through
# a freeze, so every step is met once. The script prints how each child ended.
_FREEZE = """
import os, signal, sys
from pathlib import Path
from tunesmith.data import DataConfig, SourceConfig, freeze
from tunesmith.errors import DataError
from tunesmith.store import Store

folder, gate = Path(sys.argv[1]), float(sys.argv[2])
config = DataConfig(sources=(SourceConfig(path="rows.jsonl"),), max_bad_share=gate)

def gate_once(workspace):
    try:
        freeze(config, folder=folder, store=Store(workspace))
    except DataError:
        pass

def step(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

left = 0
gate_once(folder / "warm")  # imports what is imported late, so that the children all take the same steps
steps = 0
while True:
    steps += 1
    pid = os.fork()
    if pid == 0:
        left = steps
        sys.addaudithook(step)
        flush = os.fsync
        os.fsync = lambda descriptor: (step(), flush(descriptor), step())
        gate_once(folder / str(steps))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
    print(steps, os.WTERMSIG(status), flush=True)
"""


def write_rows(folder: Path, number: int, *, num_bad: int = 2, width: int = 10) -> None:
    rows = [json.dumps({"prompt": f"question {i}", "completion": f"answer {i} " + "x" * width}) for i in range(number)]
    (folder / "rows.jsonl").write_text("\n".join([*rows, *["{broken"] * num_bad]) + "\n")


def killed_at_every_step(folder: Path, *, gate: float) -> list[Path]:
    """The workspaces that the kills left, in the order of the steps."""
    done = subprocess.run(
        [sys.executable, "-c", _FREEZE, str(folder), str(gate)], check=True, capture_output=True, text=True, timeout=280
    )
    kills = [line.split() for line in done.stdout.splitlines()]
    assert len(kills) > 12
    assert {signalled for _, signalled in kills} == {str(int(signal.SIGKILL))}
    return [folder / step for step, _ in kills]


def test_a_freeze_killed_at_every_step_goes_on_and_ends_in_the_same_snapshot(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    config = DataConfig(sources=(SourceConfig(path="rows.jsonl"),), max_bad_share=0.1)
    (expected,) = (name.name for name in [*_workspaces(tmp_path, config)])
    outcomes = []
    for workspace in killed_at_every_step(tmp_path, gate=0.1):
        store = Store(workspace)
        found = list(store.artefacts.digests())
        assert found in ([], [expected])  # a whole snapshot or none
        assert all(store.artefacts.verify(digest) == [] for digest in found)
        outcomes.append(len(found))
        snapshot = freeze(config, folder=tmp_path, store=store)
        assert snapshot.id == expected
        assert store.artefacts.verify(expected) == []
        assert len(load_split(store, snapshot, split="train")) == snapshot.splits["train"]
        examine(store, repair=True)
        assert [path.name for path in store.artefacts.root.iterdir()] == [expected]
    assert outcomes == sorted(outcomes)
    assert {0, 1} == set(outcomes)


def _workspaces(folder: Path, config: DataConfig) -> list[Path]:
    store = Store(folder / "sound")
    freeze(config, folder=folder, store=store)
    return list(store.artefacts.root.iterdir())


def test_a_refusal_killed_at_every_step_leaves_a_whole_quarantine_or_none(tmp_path: Path) -> None:
    write_rows(tmp_path, 10, num_bad=40)
    lengths = []
    for workspace in killed_at_every_step(tmp_path, gate=0.01):
        quarantine = workspace / "quarantine" / "rows.jsonl"
        assert not quarantine.exists() or len(quarantine.read_text().splitlines()) == 40
        lengths.append(quarantine.exists())
        assert list(Store(workspace).artefacts.digests()) == []
    assert set(lengths) == {False, True}
    assert lengths == sorted(lengths)


_FULL = """
import resource, signal, sys
from pathlib import Path
from tunesmith.data import DataConfig, SourceConfig, freeze
from tunesmith.errors import OutOfSpace
from tunesmith.store import Store

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, gate, limit = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
store = Store(folder / "work")
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    freeze(DataConfig(sources=(SourceConfig(path="rows.jsonl"),), max_bad_share=gate), folder=folder, store=store)
except OutOfSpace as error:
    print(error)
"""


@pytest.mark.parametrize(("num_bad", "gate"), [(2, 0.5), (400, 0.01)], ids=["snapshot", "quarantine"])
def test_a_full_disk_gives_one_error_and_leaves_nothing(tmp_path: Path, num_bad: int, gate: float) -> None:
    write_rows(tmp_path, 400, num_bad=num_bad, width=200)
    command = [sys.executable, "-c", _FULL, str(tmp_path), str(gate)]
    done = subprocess.run([*command, "20000"], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.startswith("no space left for ")
    assert done.stdout.count("\n") == 1
    assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == []
    if gate == 0.5:  # with room again the same goes through
        subprocess.run([*command, "10000000"], check=True, timeout=120)
        assert len(list(Store(tmp_path / "work").artefacts.digests())) == 1


def test_a_disk_that_is_really_full_is_told_by_the_command_line_in_one_line(tmp_path: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk; the file size limit above tests the same on any machine")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this root cannot mount: {mounted.stderr.decode()}")
    try:
        write_rows(tmp_path, 4000, num_bad=0, width=200)
        rows = tmp_path / "rows.jsonl"
        command = [sys.executable, "-m", "tunesmith", "data", "validate", str(rows), "--fix", str(disk / "fixed.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("no space left for ")
        assert done.stderr.count("\n") == 1
        assert list(disk.iterdir()) == []
        assert shutil.disk_usage(disk).used == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)

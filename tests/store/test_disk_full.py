"""A full disk keeps what was complete, keeps nothing half-written, and says what to do. Real limits, no mocks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tunesmith.errors import OutOfSpace
from tunesmith.store import Store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk; the file size limit below tests the same on any machine")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this root cannot mount: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(ballast.parent).free == 0


def publish(store: Store, size: int) -> str:
    with store.artefacts.publish("note") as staging:
        (staging.path / "a").write_bytes(b"1" * 1000)
        (staging.path / "b").write_bytes(bytes(size))
    return staging.artefact.digest


def test_a_publish_that_fills_the_disk_leaves_only_what_was_there(small_disk: Path) -> None:
    store = Store(small_disk / "w")
    kept = publish(store, 10_000)
    with pytest.raises(OutOfSpace, match=r"no space left for .* run the same command again"):
        publish(store, 1_000_000)
    assert [path.name for path in store.artefacts.root.iterdir()] == [kept]
    assert store.artefacts.verify(kept) == []
    assert publish(store, 20_000) != kept


def test_a_ledger_on_a_full_disk_keeps_its_state_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    store = Store(small_disk / "w")
    store.ledger.record_stage("first", stage="freeze", artefact="a1")
    ballast = small_disk / "ballast"
    fill(ballast)
    with pytest.raises(OutOfSpace, match=r"no space left for the ledger .* nothing was changed"):
        store.ledger.record_stage("second", stage="freeze", artefact="a" * 9000)
    assert (store.ledger.stage("first"), store.ledger.stage("second")) == ("a1", None)
    ballast.unlink()
    store.ledger.record_stage("second", stage="freeze", artefact="a" * 9000)
    assert store.ledger.stage("second") == "a" * 9000
    assert store.ledger.database.problems() == []


def test_a_workspace_on_a_full_disk_is_refused_with_advice(small_disk: Path) -> None:
    fill(small_disk / "ballast")
    with pytest.raises(OutOfSpace):
        Store(small_disk / "w").ledger.record_stage("key", stage="freeze", artefact="a")


def test_a_file_beyond_the_limit_of_the_process_counts_as_a_full_disk(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from tunesmith.store import Store; from tunesmith.errors import OutOfSpace\n"
        "store = Store(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    with store.artefacts.publish('note') as staging:\n"
        "        (staging.path / 'a').write_bytes(bytes(1000)); (staging.path / 'b').write_bytes(bytes(99_000))\n"
        "except OutOfSpace as error: print('refused:', error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused: no space left for")
    assert list((tmp_path / "artefacts").iterdir()) == []

"""Checkpoints are whole or they do not count. Disks are filled and processes killed for real."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import is_out_of_space
from tunesmith.train import checkpoint
from tunesmith.train.checkpoint import Checkpoint, Checkpoints, CheckpointWarning, newest_checkpoint, write_checkpoint

from .damage import DAMAGE, become_a_file, become_a_link, cut, file_limit


def write(folder: Path, step: int, *, size: int = 100) -> None:
    write_checkpoint(folder, step=step, state={"step": step}, tensors={"w": torch.full((size,), float(step))})


def newest(folder: Path) -> Checkpoint:
    found = newest_checkpoint(folder)
    assert found is not None
    assert bool((found.tensors["w"] == found.state["step"]).all())
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_kind_of_tensor_comes_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {
        "weights": torch.randn(3, 4),
        "transposed": torch.randn(3, 4).T,
        "half": torch.randn(5).bfloat16(),
        "step": torch.tensor(7.0),
        "random": torch.get_rng_state(),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    write_checkpoint(tmp_path, step=3, state={}, tensors=tensors)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        back = found.tensors[name]
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert back.contiguous().view(-1).view(torch.uint8).tolist() == tensor.contiguous().view(-1).view(torch.uint8).tolist()


@settings(deadline=None, max_examples=25)
@given(value=st.recursive(st.none() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_the_state_comes_back_exactly(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("state")
    write_checkpoint(folder, step=1, state={"value": value}, tensors={"w": torch.ones(1)})
    found = newest_checkpoint(folder)
    assert found is not None
    assert found.state == {"value": value}
    shutil.rmtree(folder)


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "never made") is None


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30, 400):
        write(tmp_path, step)
    assert names(tmp_path) == ["step-00000030", "step-00000400"]
    assert newest(tmp_path).state["step"] == 400


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(damage: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    damage(tmp_path / "step-00000020")
    with pytest.warns(CheckpointWarning, match="step-00000020 is damaged"):
        assert newest(tmp_path).state["step"] == 10


def test_where_files_cannot_be_read_the_older_one_is_taken(shared_folder: Path) -> None:
    write(shared_folder, 10)
    write(shared_folder, 20)
    for step, mode in (("10", 0o444), ("20", 0)):
        (shared_folder / f"step-000000{step}" / "tensors.safetensors").chmod(mode)
    with as_nobody(), pytest.warns(CheckpointWarning, match="step-00000020 is damaged.*Permission denied"):
        assert newest(shared_folder).state["step"] == 10


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that another user may read too: the folders of pytest are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("in_the_way", [become_a_file, become_a_link], ids=["a file", "a link"])
def test_whatever_has_a_checkpoints_name_gives_way_to_one(in_the_way: Callable[[Path], None], tmp_path: Path) -> None:
    for step in (3, 9):  # the very step that is written, and one that lies beyond
        write(tmp_path, step)
        in_the_way(tmp_path / f"step-{step:08d}")
    write(tmp_path, 3)
    assert names(tmp_path) == ["step-00000003"]
    assert newest(tmp_path).state["step"] == 3


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_are_kept_as_asked_for(keep: int, tmp_path: Path) -> None:
    for step in range(1, 6):
        write_checkpoint(tmp_path, step=step, state={"step": step}, tensors={"w": torch.full((1,), float(step))}, keep=keep)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{step:08d}" for step in range(6 - keep, 6)]


def write_of(folder: Path, step: int, **fingerprint: str) -> None:
    with Checkpoints(folder, fingerprint=fingerprint) as checkpoints:
        checkpoints.write(step=step, state={"step": step}, tensors={"w": torch.full((9,), float(step))})


def test_a_checkpoint_of_another_run_is_passed_over_and_the_warning_says_what_differs(tmp_path: Path) -> None:
    write_of(tmp_path, 1, data="a", configuration="b")
    write_of(tmp_path, 2, data="a", configuration="c")
    own = {"data": "a", "configuration": "b"}
    with pytest.warns(CheckpointWarning, match=r"step-00000002 is of another run \(other configuration\)"):
        found = newest_checkpoint(tmp_path, fingerprint=own)
    assert found is not None
    assert found.state["step"] == 1
    with pytest.warns(CheckpointWarning, match=r"\(other configuration and other data\)"):
        assert newest_checkpoint(tmp_path, fingerprint={"data": "x", "configuration": "y"}) is None
    with pytest.warns(CheckpointWarning, match=r"\(other configuration and other data\)"):
        assert newest_checkpoint(tmp_path) is None


def test_without_a_fingerprint_a_run_goes_on_from_one_without(tmp_path: Path) -> None:
    write_of(tmp_path, 1)
    assert newest(tmp_path).state["step"] == 1


def test_what_does_not_fit_is_passed_over_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)

    def check(found: Checkpoint) -> None:
        if found.state["step"] == 2:
            raise KeyError("place")

    with pytest.warns(CheckpointWarning, match="step-00000002 does not fit this run and was passed over: 'place'"):
        found = newest_checkpoint(tmp_path, check=check)
    assert found is not None
    assert found.state["step"] == 1


def test_one_write_at_a_time_and_reclaim_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []
    most: list[int] = []
    save, go_on = checkpoint.save_file, threading.Event()

    def slow(tensors: dict[str, torch.Tensor], file: Path) -> None:
        running.append(1)
        most.append(len(running))
        go_on.wait(20)
        save(tensors, file)
        running.pop()

    monkeypatch.setattr(checkpoint, "save_file", slow)
    with Checkpoints(tmp_path) as checkpoints:
        weights = torch.ones(5)
        checkpoints.write(step=1, state={"step": 1}, tensors={"w": weights})
        assert names(tmp_path) in ([], [".writing-00000001"])  # the loop goes on before anything is committed
        go_on.set()
        checkpoints.reclaim()
        assert newest(tmp_path).state["step"] == 1
        weights.fill_(2.0)
        for step in (2, 3):
            checkpoints.write(step=step, state={"step": 2}, tensors={"w": weights})
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert set(most) == {1}


def test_a_write_that_fails_raises_in_the_loop_and_the_next_one_is_free_to_succeed(tmp_path: Path) -> None:
    write(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path)
    with file_limit(100_000):
        checkpoints.write(step=2, state={}, tensors={"w": torch.ones(100_000)})
        with pytest.raises(Exception) as caught:  # noqa: PT011  safetensors has an error of its own for it
            checkpoints.reclaim()
    assert is_out_of_space(caught.value)
    assert names(tmp_path) == ["step-00000001"]
    checkpoints.write(step=3, state={"step": 3}, tensors={"w": torch.full((9,), 3.0)})
    checkpoints.wait()
    assert newest(tmp_path).state["step"] == 3


def test_the_last_write_that_fails_raises_when_the_block_ends(tmp_path: Path) -> None:
    with file_limit(100_000), pytest.raises(Exception) as caught, Checkpoints(tmp_path) as checkpoints:  # noqa: PT011
        checkpoints.write(step=2, state={}, tensors={"w": torch.ones(100_000)})
    assert is_out_of_space(caught.value)


def test_checkpoints_that_hold_up_the_loop_come_more_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, cost_s, thread = 0.0, 0.1, checkpoint.Thread

    class Slow(thread):  # type: ignore[misc, valid-type]
        def join(self, timeout: float | None = None) -> None:
            nonlocal now
            super().join(timeout)
            now += cost_s

    monkeypatch.setattr(checkpoint, "Thread", Slow)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    pauses = []
    checkpoints = Checkpoints(tmp_path)
    for step, cost_s in enumerate((0.1, 0.5, 2.0, 0.1)):
        checkpoints.write(step=step, state={}, tensors={"w": torch.ones(1)})
        checkpoints.reclaim()
        begun, now = now - cost_s, now - cost_s
        while not checkpoints.is_due(every_s=10.0):
            now += 0.25
        pauses.append(now - begun)
    assert pauses == pytest.approx([10, 10, 40, 10], abs=0.5)


def test_with_every_checkpoint_damaged_the_run_starts_over_and_its_checkpoints_count(tmp_path: Path) -> None:
    write(tmp_path, 100)
    write(tmp_path, 200)
    for step in (100, 200):
        cut("tensors.safetensors")(tmp_path / f"step-{step:08d}")
    with pytest.warns(CheckpointWarning):
        assert newest_checkpoint(tmp_path) is None
    write(tmp_path, 5)
    assert newest(tmp_path).state["step"] == 5
    write(tmp_path, 6)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def test_the_same_step_can_be_written_again(tmp_path: Path) -> None:
    write(tmp_path, 7)
    cut("tensors.safetensors")(tmp_path / "step-00000007")
    write(tmp_path, 7)
    assert newest(tmp_path).state["step"] == 7


def test_leftovers_of_a_killed_write_never_count_and_are_cleared_away(tmp_path: Path) -> None:
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".writing-00000002")
    assert newest(tmp_path).state["step"] == 1
    write(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with file_limit(100_000), pytest.raises(Exception) as caught:  # noqa: PT011  safetensors has an error of its own for it
        write(tmp_path, 2, size=100_000)
    assert is_out_of_space(caught.value)
    assert names(tmp_path) == ["step-00000001"]
    assert newest(tmp_path).state["step"] == 1


# Each forked child writes steps 1 and 2, and kills itself at the n-th system step (audit event or fsync) of writing step 3.
_KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from tunesmith.train import checkpoint

def write(folder, step):
    checkpoint.write_checkpoint(folder, step=step, state={"step": step}, tensors={"w": torch.full((1000,), float(step))})

def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
left = 0
root, kills = Path(sys.argv[1]), 0
write(root / "warm", 1)
while True:
    kills += 1
    pid = os.fork()
    if pid == 0:
        folder = root / f"killed-{kills:03d}"
        write(folder, 1)
        write(folder, 2)
        left, flush = kills, os.fsync
        sys.addaudithook(count)
        os.fsync = lambda descriptor: (count(), flush(descriptor), count())
        write(folder, 3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


def test_a_write_killed_at_every_step_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=True, timeout=240)
    folders = sorted(tmp_path.glob("killed-*"))[:-1]
    assert len(folders) > 25
    steps = [newest(folder).state["step"] for folder in folders]  # a warning would be an error
    assert set(steps) == {2, 3}
    assert steps == sorted(steps)
    for folder, step in zip(folders, steps, strict=True):
        write(folder, 4)
        assert names(folder) == [f"step-{step:08d}", "step-00000004"]

"""Checkpoints are whole or they do not count. Disks are filled and processes killed for real."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import is_out_of_space
from tunesmith.train.checkpoint import Checkpoint, CheckpointWarning, newest_checkpoint, write_checkpoint


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


def flip(name: str, place: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)

    return apply


def cut(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


def become_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def lose_everything(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def write_manifest(text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "manifest.json").write_text(text)

    return apply


DAMAGE: dict[str, Callable[[Path], None]] = {
    "tensors cut short": cut("tensors.safetensors"),
    "a bit of a weight flipped": flip("tensors.safetensors", -1),
    "a bit of the header flipped": flip("tensors.safetensors", 12),
    "a digit of the state changed": flip("state.json", -2),
    "manifest cut short": cut("manifest.json"),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest says nothing": write_manifest("{}"),
    "manifest is a list": write_manifest("[]"),
    "tensors missing": lambda folder: (folder / "tensors.safetensors").unlink(),
    "state missing": lambda folder: (folder / "state.json").unlink(),
    "nothing but a name": lose_everything,
    "a file of that name": become_a_file,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(damage: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    damage(tmp_path / "step-00000020")
    with pytest.warns(CheckpointWarning, match="step-00000020 is damaged"):
        assert newest(tmp_path).state["step"] == 10


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
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Exception) as caught:  # noqa: PT011  safetensors has an error of its own for it
            write(tmp_path, 2, size=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
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

"""Resuming a run: whatever is wrong with its checkpoints, it ends in the bits of a run that never stopped, or it says what differs."""

import random
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tunesmith.errors import Interrupted, is_out_of_space
from tunesmith.train import checkpoint, loop, position
from tunesmith.train.checkpoint import Checkpoints, CheckpointWarning, newest_checkpoint
from tunesmith.train.config import TrainConfig
from tunesmith.train.loop import FitResult, Step
from tunesmith.train.stream import Cursor

from .damage import DAMAGE, MISFIT, Damage, file_limit
from .test_loop import NOISE, assert_equal, epoch, lora, run, tiny

STEPS = 12
Write = Callable[..., None]


@pytest.fixture
def after_every_step() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        yield


def noisy() -> nn.Module:
    """A model that draws from every generator there is: torch's in its dropout, python's and numpy's in its embeddings."""
    model = lora(dropout=0.1, seed=4)
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)

    def disturb(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return output * (1 + 0.1 * random.random() + 0.1 * np.random.rand() + 0.1 * random.gauss()) if model.training else output

    model.get_input_embeddings().register_forward_hook(disturb)  # type: ignore[operator]
    return model


def fit(model: nn.Module, folder: Path, *, stop_at: int | None = None, seen: list[Step] | None = None) -> FitResult:
    # What is learned does not help with noise, so the validation loss rises again: the best weights are not the last ones.
    options: dict[str, Any] = {"validation": NOISE, "evaluations": 6, "patience": None, "rate": 1e-1}
    return run(model, folder, steps=STEPS, stop_at=stop_at, seen=seen, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, FitResult]:
    torch.set_num_threads(1)
    model = noisy()
    return model, fit(model, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped at step 8, with the checkpoints of steps 7 and 8: copy it, do not change it."""
    folder = tmp_path_factory.mktemp("stopped")
    for at in (7, 8):
        stop(folder, at)
    return folder


def stop(folder: Path, at: int) -> None:
    with pytest.raises(Interrupted):
        fit(noisy(), folder, stop_at=at)


def test_the_best_weights_of_this_run_are_not_the_last(whole: tuple[nn.Module, FitResult]) -> None:
    assert whole[1].best_step in (4, 6)


@pytest.mark.parametrize("damage", [*DAMAGE.values(), *MISFIT.values()], ids=[*DAMAGE, *MISFIT])
def test_a_damaged_checkpoint_costs_steps_and_changes_no_bit(
    damage: Damage, whole: tuple[nn.Module, FitResult], stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "step-00000008")
    resumed, seen = noisy(), []
    with pytest.warns(CheckpointWarning, match="checkpoint step-00000008 .* passed over"):
        assert fit(resumed, tmp_path, seen=seen) == whole[1]
    assert seen[0].step == 8  # it went on from step 7
    assert_equal(resumed, whole[0])


@pytest.mark.parametrize("kind", ["tensors cut short", "a weight missing", "torch's random state missing", "a moment missing"])
def test_with_no_checkpoint_left_the_run_starts_over_and_changes_no_bit(
    kind: str, whole: tuple[nn.Module, FitResult], stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    for step in (7, 8):
        (DAMAGE | MISFIT)[kind](tmp_path / f"step-0000000{step}")
    resumed, seen = noisy(), []
    with pytest.warns(CheckpointWarning):
        assert fit(resumed, tmp_path, seen=seen) == whole[1]
    assert seen[0].step == 1
    assert_equal(resumed, whole[0])


def forget_tensors(prefix: str, put: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Any], dict[str, Tensor]], None]:
    def forget(_state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors |= {name: put(tensor) for name, tensor in tensors.items() if name.startswith(prefix)}

    return forget


def forget_best(_state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """As if the last weights were the best."""
    for name in [name for name in tensors if name.startswith("best.")]:
        tensors[name] = tensors[name.replace("best.", "weights.")].detach().clone()


def forget_random(kind: str, fresh: Callable[[], object]) -> Callable[[dict[str, Any], dict[str, Tensor]], None]:
    return lambda state, _: state.update(random={**state["random"], kind: fresh()})


def fresh_numpy() -> object:
    state: Any = np.random.RandomState(0).get_state(legacy=False)
    state["state"]["key"] = state["state"]["key"].tolist()
    return state


FORGET = {
    "torch's generator": forget_tensors("random.cpu", lambda _: torch.Generator().get_state()),
    "python's generator": forget_random("python", lambda: [3, list(random.Random(0).getstate()[1]), None]),
    "python's second gauss": forget_random("python", lambda: [*random.getstate()[:2], None]),
    "numpy's generator": forget_random("numpy", fresh_numpy),
    "the place in the epoch": lambda state, _: state.update(place=0),
    "the epoch": lambda state, _: state.update(epoch=0),
    "the step": lambda state, _: state.update(step=state["step"] - 1),
    "the optimiser's count of steps": forget_tensors("optimiser.step.", torch.zeros_like),
    "the first moments": forget_tensors("optimiser.exp_avg.", torch.zeros_like),
    "the second moments": forget_tensors("optimiser.exp_avg_sq.", torch.ones_like),
    "the whole optimiser": lambda _, tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("optimiser.")],
    "the best weights": forget_best,
    "the best loss": lambda state, _: state.update(best_loss="inf"),
    "the losses since the last measurement": lambda state, _: state.update(recent_loss=0.0, recent_steps=0),
    "the curve": lambda state, _: state.update(curve=[]),
}


@pytest.mark.parametrize("forget", [None, *FORGET.values()], ids=["nothing", *FORGET])
def test_a_run_that_forgets_any_part_of_its_state_ends_elsewhere(
    forget: Callable[..., object] | None, whole: tuple[nn.Module, FitResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted defects: each shows in the weights or in the curve that all tests of resuming compare."""
    write = Checkpoints.write

    def forgetful(self: Checkpoints, *, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        kept, kept_tensors = dict(state), dict(tensors)
        if forget is not None:
            forget(kept, kept_tensors)
        write(self, step=step, state=kept, tensors=kept_tensors)

    monkeypatch.setattr(Checkpoints, "write", forgetful)
    stop(tmp_path, 7)  # in the second epoch, after the best measurement and in between two
    resumed = noisy()
    result = fit(resumed, tmp_path)
    same = result == whole[1] and all(map(torch.equal, resumed.parameters(), whole[0].parameters()))
    assert same == (forget is None)


@pytest.mark.usefixtures("after_every_step")
def test_weights_never_change_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, save = torch.optim.AdamW.step, checkpoint.save_file
    written: list[bool] = []
    begun = threading.Event()

    def watched_step(self: torch.optim.AdamW) -> None:
        begun.set()
        written.append(not any(thread.name.startswith("checkpoint") for thread in threading.enumerate()))
        step(self)

    def late_save(tensors: dict[str, Tensor], file: Path) -> None:
        begun.clear()
        begun.wait(0.05)  # time enough to change weights that are not waited for
        save(tensors, file)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched_step)
    monkeypatch.setattr(checkpoint, "save_file", late_save)
    fit(noisy(), tmp_path / "reclaimed")
    assert len(written) == STEPS
    assert all(written)

    written.clear()
    monkeypatch.setattr(Checkpoints, "reclaim", lambda _: None)
    fit(noisy(), tmp_path / "not reclaimed")
    assert not all(written)  # so the watch above can see it


class Broken(list[Step]):
    """Whoever watches fails at step 5."""

    def append(self, step: Step) -> None:
        if step.step == 5:
            raise RuntimeError("whoever watches is broken")
        super().append(step)


@pytest.mark.usefixtures("after_every_step")
def test_a_loop_that_fails_leaves_the_last_checkpoint_committed_and_no_thread(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="whoever watches"):
        fit(noisy(), tmp_path, seen=Broken())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
    assert newest_checkpoint(tmp_path) is not None
    assert not any(thread.name.startswith("checkpoint") for thread in threading.enumerate())


@pytest.mark.usefixtures("after_every_step")
def test_a_full_disk_ends_the_run_as_such_and_with_room_it_goes_on(whole: tuple[nn.Module, FitResult], tmp_path: Path) -> None:
    stop(tmp_path, 6)
    with file_limit(10_000), pytest.raises(Exception) as caught:  # noqa: PT011  safetensors has an error of its own for it
        fit(noisy(), tmp_path)
    assert is_out_of_space(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000006"]
    resumed = noisy()
    assert fit(resumed, tmp_path) == whole[1]
    assert_equal(resumed, whole[0])


@pytest.mark.usefixtures("after_every_step")
def test_a_full_disk_at_a_stop_is_not_called_an_interruption(tmp_path: Path) -> None:
    with file_limit(10_000), pytest.raises(Exception) as caught:  # noqa: PT011
        fit(noisy(), tmp_path, stop_at=1)
    assert not isinstance(caught.value, Interrupted)
    assert is_out_of_space(caught.value)


def test_losses_that_are_no_numbers_come_back() -> None:
    for loss in (float("inf"), float("nan"), 0.1, None):
        assert repr(position._parsed(position._spelled(loss))) == repr(loss)


def test_a_run_of_another_fingerprint_starts_over(tmp_path: Path) -> None:
    def first_step(**fingerprint: str) -> int:
        seen: list[Step] = []
        with pytest.raises(Interrupted):
            loop.fit(
                tiny(),
                epochs=epoch,
                validation=[],
                total_steps=STEPS,
                batches_per_step=1,
                config=TrainConfig(),
                learning_rate=1e-3,
                device="cpu",
                folder=tmp_path,
                on_step=seen.append,
                should_stop=lambda: len(seen) == 3,
                fingerprint=fingerprint,
            )
        return seen[0].step

    assert first_step(data="1", configuration="1") == 1
    assert first_step(data="1", configuration="1") == 4
    with pytest.warns(CheckpointWarning, match=r"step-0000000\d is of another run \(other data\)"):
        assert first_step(data="2", configuration="1") == 1


def test_better_weights_are_not_kept_over_those_that_are_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, save = threading.Event(), checkpoint.save_file

    def late_save(tensors: dict[str, Tensor], file: Path) -> None:
        go_on.wait(0.1)
        save(tensors, file)

    monkeypatch.setattr(checkpoint, "save_file", late_save)
    weights = {"w": nn.Parameter(torch.zeros(3))}
    with Checkpoints(tmp_path) as checkpoints:
        here = position.Position(weights, torch.optim.AdamW(weights.values()), Cursor(epoch), checkpoints)
        here.measure(2.0)
        here.save()
        weights["w"].data = torch.ones(3)
        here.measure(1.0)
        go_on.set()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.tensors["best.w"].tolist() == [0, 0, 0]
    assert here.best["w"].tolist() == [1, 1, 1]

"""What is decided about compiling, and what a compiler that fails leaves behind: a warning, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.errors import UserError
from tunesmith.model import read_weights_digest
from tunesmith.model.forward import summed_loss
from tunesmith.model.lora import LoraLayer
from tunesmith.train import CompileWarning, compute
from tunesmith.train.compute import Choices, compile_if_it_pays, compile_now, remember

from .test_job import run, scratch_job
from .test_loop import epoch, lora

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecations when it is loaded


def compiling(*, fails_at: int | None = None) -> Callable[..., None]:
    """torch's real compiler up to its last step, which takes no C++ and fails at one of the pieces."""
    pieces: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        pieces.append(graph)
        if len(pieces) - 1 == fails_at:
            raise RuntimeError("the compiler is broken\nand says more of it")
        return graph.forward

    def compile_layer(layer: nn.Module, **options: Any) -> None:
        layer._compiled_call_impl = torch.compile(layer._call_impl, backend=backend, **options)

    return compile_layer


def fail(*_: object) -> None:
    raise RuntimeError("the compiler is broken")


@pytest.mark.parametrize("when", ["at once", "when all but one is compiled", "in the backward pass"])
def test_a_compiler_that_fails_leaves_the_model_as_it_was(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain, batch = lora(), LoraLayer._together, epoch(0)[0]
    expected, state = summed_loss(model.train(), batch, device="cpu").total, torch.get_rng_state()
    monkeypatch.setattr(nn.Module, "compile", compiling(fails_at={"at once": 0, "when all but one is compiled": 3}.get(when)))
    if when == "in the backward pass":  # when the gradients of the last layers are there already
        next(p for p in model.parameters() if p.requires_grad).register_hook(fail)
    with pytest.warns(CompileWarning, match=r"cannot be compiled here .*the compiler is broken") as warned:
        assert compile_now(model, [batch], wish="auto", loss=summed_loss, device="cpu") is None
    assert len([each for each in warned if each.category is CompileWarning]) == 1
    assert "\n" not in str(warned[-1].message)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert LoraLayer._together is plain
    assert all(module._compiled_call_impl is None for module in model.modules())
    assert torch.equal(summed_loss(model.train(), batch, device="cpu").total, expected)


def test_who_insists_on_compiling_is_told_why_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", compiling(fails_at=0))
    with pytest.raises(UserError, match="`always`, but the model's layers cannot be compiled here"):
        compile_now(lora(), epoch(0), wish="always", loss=summed_loss, device="cpu")


@pytest.mark.parametrize(
    ("wish", "seconds", "share", "compiles"),
    [("auto", 1e9, 1e9, True), ("auto", 1e9, 0.0, False), ("auto", 1.0, 1e9, False), ("never", 1e9, 1e9, False)],
    ids=["long and faster", "long and no faster", "short", "never"],
)
def test_only_a_long_run_that_is_faster_is_compiled(
    wish: Any, seconds: float, share: float, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "compile", compiling())
    monkeypatch.setattr(compute, "can_compile", lambda: True)
    monkeypatch.setattr(compute, "_PAYS", share)
    model = lora()
    options = {"num_passes": 10**9, "expected_seconds": seconds, "loss": summed_loss, "device": "cpu"}
    assert compile_if_it_pays(model, epoch(0)[:2], wish=wish, **options) is compiles
    assert all(module._compiled_call_impl is None for module in model.modules())


def test_a_run_keeps_to_what_it_decided_and_decides_anew_when_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, asked = scratch_job(tmp_path / "tokenizer", epochs=0.5), []
    _, _, outcome = run(job, tmp_path / "plain")
    assert outcome.is_compiled is False  # type: ignore[attr-defined]
    decided = remember(tmp_path / "plain" / "checkpoints")
    assert decided is not None
    for name, fails_at in (("works", None), ("fails", 0)):
        folder = tmp_path / name / "checkpoints"
        told = Choices(**{**json.loads((tmp_path / "plain/checkpoints/compute.json").read_bytes()), "is_compiled": True})
        remember(folder, told)
        compile_layer = compiling(fails_at=fails_at)
        monkeypatch.setattr(
            nn.Module, "compile", lambda layer, do=compile_layer, **options: (asked.append(layer), do(layer, **options))
        )
        if fails_at is None:
            out, _, outcome = run(job, tmp_path / name)
        else:
            with pytest.warns(CompileWarning):
                out, _, outcome = run(job, tmp_path / name)
            assert read_weights_digest(out) == read_weights_digest(tmp_path / "plain" / "out")
        assert outcome.is_compiled is (fails_at is None)  # type: ignore[attr-defined]
        assert remember(folder) == (told if fails_at is None else decided)
        assert asked
        asked.clear()


def test_nothing_is_measured_on_a_batch_from_which_nothing_is_learned(tmp_path: Path) -> None:
    from tunesmith.data.pack import encode
    from tunesmith.train.preparation import _to_measure

    job = scratch_job(tmp_path)
    encoded = encode(job.train, chat=job.chat, max_length=90)
    first = encoded.offsets[3]
    encoded.targets[:first] = -100
    measured = _to_measure(encoded, tokens=60, config=job.config)
    assert len(measured) == 2
    assert all(batch.num_supervised for batch in measured)

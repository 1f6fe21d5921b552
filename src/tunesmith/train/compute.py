"""How a run's arithmetic is done on this machine: decided once, before the first step, and kept with the run's checkpoints.

A killed run that goes on elsewhere, or on a busier machine, must not decide anew: another number format or number of threads, or
compiled layers, round differently, and the run would no longer end in the same bits.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
import torch
from torch import nn

from tunesmith.errors import OutOfMemory, UserError
from tunesmith.model.compiled import can_compile, compile_layers
from tunesmith.model.forward import packs, segment_nll
from tunesmith.model.machine import Machine
from tunesmith.model.number_format import compute_in_bf16
from tunesmith.records import TokenBatch
from tunesmith.train.footprint import Room
from tunesmith.train.methods import Loss

__all__ = [
    "Choices",
    "CompileWarning",
    "compile_if_it_pays",
    "compile_now",
    "compute_in",
    "out_of_memory_in_words",
    "rehearse",
    "remember",
]

_FILE = "compute.json"
_LONG_S = 600.0
"""A run shorter than this many seconds would not win back the minute or two that compiling takes on two cores."""
_PAYS = 0.95
"""A compiled pass must take less than this share of a plain one."""
_NEAR = 0.5
"""A run that needs more than this share of the free memory is rehearsed."""


class CompileWarning(UserWarning):
    """The layers could not be compiled, and training goes on without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What was decided."""

    precision: Literal["fp32", "bf16"]
    num_threads: int
    pass_tokens: int
    is_checkpointed: bool
    is_compiled: bool


def remember(folder: Path, choices: Choices | None = None) -> Choices | None:
    """Read what a run has decided, or write it down."""
    file = folder / _FILE
    if choices is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_bytes(orjson.dumps(asdict(choices)))
        file.with_suffix(".part").replace(file)
        return choices
    try:
        return Choices(**orjson.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):  # not written yet, or by another version
        return None


def compute_in(machine: Machine, model: nn.Module) -> None:
    """Put the number format into effect for a model whose own weights stay in fp32. A base in bf16 computes in it anyway."""
    if machine.device == "cpu" and machine.dtype == torch.bfloat16 and next(model.parameters()).dtype == torch.float32:
        compute_in_bf16(model)


def rehearse(model: nn.Module, batches: Sequence[TokenBatch], *, room: Room, loss: Loss, device: str) -> None:
    """Run the worst batch once, without a step, where memory is not plentiful: what fits now fits later."""
    if room.need_bytes > _NEAR * room.free_bytes:
        worst = max(batches, key=lambda batch: (int(np.diff(batch.offsets).max()), batch.num_supervised))
        _pass(model, worst, loss=loss, device=device)


def compile_if_it_pays(
    model: nn.Module,
    batches: Sequence[TokenBatch],
    *,
    wish: Literal["auto", "never", "always"],
    num_passes: int,
    expected_seconds: float,
    loss: Loss,
    device: str,
) -> bool:
    """Whether to compile the model's layers: if asked to, or if the run is long and a measured pass is faster. Leaves them as they are.

    Args:
        model: ready to be trained.
        batches: a few to measure with.
        wish: the recipe's.
        num_passes: of the whole run.
        expected_seconds: of the whole run, roughly; a short one is not measured.
        loss: the method's.
        device: where the model is.

    Raises:
        UserError: `always`, and nothing here can compile.
    """
    if wish == "always" and not can_compile():
        raise UserError(
            "train.compute.compile is `always`, but there is no C++ compiler (g++, or what the environment variable CXX names). "
            "Install one, or use `auto`"
        )
    if wish != "auto" or expected_seconds < _LONG_S / 2 or not can_compile():
        return wish == "always"
    eager = _seconds(model, batches, loss=loss, device=device)
    if eager / len(batches) * num_passes < _LONG_S:
        return False
    undo = compile_now(model, batches, wish=wish, loss=loss, device=device)
    if undo is None:
        return False
    try:
        return _seconds(model, batches, loss=loss, device=device) < _PAYS * eager
    finally:
        undo()


def compile_now(
    model: nn.Module, batches: Sequence[TokenBatch], *, wish: Literal["auto", "never", "always"], loss: Loss, device: str
) -> Callable[[], None] | None:
    """Compile the layers for training and for measuring, so that what fails does so before the first step.

    Fresh and resumed runs compile for the same batches and in the same order, and so round alike.

    Args:
        model: ready to be trained, its layers as they are.
        batches: the run's first few.
        wish: the recipe's.
        loss: the method's.
        device: where the model is.

    Returns:
        What undoes it. None: it failed, a warning says why, and the layers are as they were.

    Raises:
        UserError: it failed, and the recipe insists.
    """
    packs(model, device=device)  # is found out with plain layers
    torch.compiler.reset()
    undo = compile_layers(model)
    try:
        for batch in batches:
            _pass(model, batch, loss=loss, device=device)
        model.eval()
        segment_nll(model, batches[0], device=device)
    except Exception as error:  # torch's compilers fail in many ways, and without them the same pass works
        undo()
        model.zero_grad(set_to_none=True)
        why = f"the model's layers cannot be compiled here ({_first_line(error)})"
        if wish == "always":
            raise UserError(
                f"train.compute.compile is `always`, but {why}. Mend the compiler (CXX names another one), or use `auto`"
            ) from error
        message = f"{why}. Training goes on without: it takes longer, and learns the same but for rounding"
        warnings.warn(message, CompileWarning, stacklevel=2)
        return None
    return undo


@contextmanager
def out_of_memory_in_words() -> Iterator[None]:
    """Turn what torch or Python raises when no memory can be had into our own error.

    Raises:
        OutOfMemory: instead of theirs.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        is_theirs = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_theirs and "can't allocate memory" not in text and "Cannot allocate memory" not in text:
            raise
        raise OutOfMemory(
            "the machine ran out of memory. Lower train.micro_batch_tokens or train.max_length, or set "
            f"train.compute.gradient_checkpointing: always ({text.splitlines()[0] if text else type(error).__name__})"
        ) from error


def _first_line(error: Exception) -> str:
    """Of what a compiler said, without torch's own frame around it."""
    lines = str(getattr(error, "inner_exception", error)).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _seconds(model: nn.Module, batches: Sequence[TokenBatch], *, loss: Loss, device: str) -> float:
    start = time.perf_counter()
    for batch in batches:
        _pass(model, batch, loss=loss, device=device)
    return time.perf_counter() - start


def _pass(model: nn.Module, batch: TokenBatch, *, loss: Loss, device: str) -> None:
    """Forward and backward without a step. Random states are as before: a run that measures draws the same numbers as one that not."""
    model.train()
    with torch.random.fork_rng():
        loss(model, batch, device=device).total.backward()
    model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.synchronize()

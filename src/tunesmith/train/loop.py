"""The training loop, for adapters, full fine-tuning and from scratch alike.

One step: sum the method's loss over the step's tokens, divide by the step's supervised weight once, clip, step. So splitting a step into
smaller forward passes gives the same gradient. The whole state is in each checkpoint; on a CPU in fp32 a resumed run ends in the
same bits as one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.errors import Interrupted
from tunesmith.model.forward import segment_nll, summed_loss
from tunesmith.model.number_format import computes_in
from tunesmith.records import CurvePoint, TokenBatch
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.config import TrainConfig
from tunesmith.train.memory import memory_in_use
from tunesmith.train.methods import Loss
from tunesmith.train.muon import Muon, split_parameters
from tunesmith.train.position import Position, load_weights
from tunesmith.train.schedule import Pace, pace_at
from tunesmith.train.stream import Epochs

__all__ = ["FitResult", "Step", "fit", "validation_loss"]

SECONDS_BETWEEN_CHECKPOINTS = 10.0
"""What a kill may cost; more where writing them would hold up the run (see `Checkpoints.is_due`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step tells whoever watches."""

    step: int
    """Steps done, this one included."""
    total_steps: int
    loss: float
    """Nats per supervised token, averaged over the steps since the last measurement."""
    step_loss: float
    """The same of this step alone."""
    validation_loss: float | None
    learning_rate: float
    grad_norm: float
    """2-norm of the gradient before it was clipped."""
    num_tokens: int
    """Tokens read in this step."""
    num_supervised: int
    """How many of them were learned."""
    tokens_per_s: float
    memory_bytes: int
    """Resident set of this process; on a GPU, the most that was allocated on it so far."""
    elapsed_s: float
    """Since this process began to train."""
    eta_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """How training went. The model holds the best weights."""

    curve: tuple[CurvePoint, ...]
    best_step: int
    stopped_early: bool
    num_steps: int
    first_loss: float
    """Of the first step, before anything was learned."""
    num_clipped: int
    """Steps whose gradient was scaled down."""


def fit(
    model: nn.Module,
    *,
    epochs: Epochs,
    validation: Sequence[TokenBatch],
    total_steps: int,
    batches_per_step: int,
    config: TrainConfig,
    learning_rate: float,
    device: str,
    folder: Path,
    on_step: Callable[[Step], None],
    should_stop: Callable[[], bool] = lambda: False,
    loss: Loss = summed_loss,
    fingerprint: Mapping[str, str] | None = None,
) -> FitResult:
    """Train the parameters that require a gradient, and leave the best weights in the model.

    Args:
        model: a transformers or PEFT model; what is to be trained requires a gradient.
        epochs: gives each epoch's packed batches; must be a pure function of the epoch's number.
        validation: packed batches whose mean loss chooses the best weights; empty: the last weights are kept.
        total_steps: optimiser steps of the whole run.
        batches_per_step: forward passes in each.
        config: the recipe's `train` part.
        learning_rate: the peak.
        device: where the model is.
        folder: for checkpoints; a run found there goes on.
        on_step: called after every step.
        should_stop: asked after every step; True saves a checkpoint and raises.
        loss: the method's.
        fingerprint: hashes of model, data and configuration; a checkpoint of another one is not gone on from.

    Raises:
        Interrupted: `should_stop` said so; the same call goes on.
        FloatingPointError: a loss or gradient is not finite; the message says what to do.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimiser = _optimiser(model, trained, config=config)
    measure_at = {math.ceil(total_steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    with Checkpoints(folder, fingerprint=fingerprint) as checkpoints:
        here = Position.resume(checkpoints, trained=trained, optimiser=optimiser, epochs=epochs)
        clock = _Clock(here.step, total_steps=total_steps)
        while here.step < total_steps and not _is_out_of_patience(here, config):
            batches = here.cursor.take(batches_per_step)
            pace = pace_at(here.step, total_steps=total_steps, peak=learning_rate, config=config)
            step_loss, grad_norm = _train_step(model, batches, loss=loss, here=here, pace=pace, config=config, device=device)
            here.count(step_loss)
            told = {"loss": here.mean_loss, "step_loss": step_loss, "learning_rate": pace.rate, "grad_norm": grad_norm}
            measured = _measure(model, validation, here=here, rate=pace.rate, device=device) if here.step in measure_at else None
            on_step(clock.tick(batches, validation_loss=measured, memory_bytes=memory_in_use(device), **told))
            if should_stop():
                here.save()
                raise Interrupted(f"Interrupted at step {here.step} of {total_steps}; nothing is lost.")
            if checkpoints.is_due(every_s=SECONDS_BETWEEN_CHECKPOINTS):
                here.save()

    return _finish(model, here, total_steps=total_steps)


def validation_loss(model: nn.Module, batches: Sequence[TokenBatch], *, device: str) -> float:
    """Nats per supervised token over all batches, in evaluation mode."""
    model.eval()
    pairs = [pair for batch in batches for pair in segment_nll(model, batch, device=device)]
    return sum(nll for nll, _ in pairs) / max(sum(count for _, count in pairs), 1)


def _measure(model: nn.Module, validation: Sequence[TokenBatch], *, here: Position, rate: float, device: str) -> float | None:
    """Add a point to the curve. Returns the validation loss; None without validation rows."""
    measured = validation_loss(model, validation, device=device) if validation else None
    if measured is not None and not math.isfinite(measured):
        raise _not_finite(f"the validation loss became {measured}", step=here.step, rate=rate)
    here.measure(measured)
    return measured


def _finish(model: nn.Module, here: Position, *, total_steps: int) -> FitResult:
    """Put the best weights into the model."""
    load_weights(here.trained, here.best)
    model.eval()
    return FitResult(
        curve=tuple(here.curve),
        best_step=here.best_step or here.step,
        stopped_early=here.step < total_steps,
        num_steps=here.step,
        first_loss=here.first_loss,
        num_clipped=here.num_clipped,
    )


def _optimiser(model: nn.Module, trained: Mapping[str, nn.Parameter], *, config: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's, decaying matrices only: norms and biases have no direction to shrink."""
    decay = config.optimiser.weight_decay
    inside, parameters = split_parameters(model, trained) if config.optimiser.name == "muon" else ([], list(trained.values()))
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    filled = [group for group in groups if group["params"]]
    return Muon(inside, filled, weight_decay=decay, dtype=computes_in(model)) if inside else torch.optim.AdamW(filled, fused=True)


def _train_step(
    model: nn.Module,
    batches: Sequence[TokenBatch],
    *,
    loss: Loss,
    here: Position,
    pace: Pace,
    config: TrainConfig,
    device: str,
) -> tuple[float, float]:
    """One optimiser step. Returns the mean loss of its supervised tokens, and the gradient's norm."""
    model.train()
    supervised = [batch for batch in batches if batch.num_supervised]
    weight = sum(float(batch.weights.sum(dtype="float64")) for batch in supervised)
    total = 0.0
    for batch in supervised:
        share = loss(model, batch, device=device).total / weight
        share.backward()
        total += float(share.detach())
    max_norm = config.optimiser.max_grad_norm
    norm = float(nn.utils.clip_grad_norm_(here.trained.values(), max_norm))
    if not math.isfinite(total + norm):
        raise _not_finite(f"the training loss became {total} (gradient norm {norm})", step=here.step, rate=pace.rate)
    here.num_clipped += norm > max_norm
    for group in here.optimiser.param_groups:
        group["lr"], group["betas"] = pace.rate, (pace.beta1, config.optimiser.beta2)
    here.checkpoints.reclaim()
    here.optimiser.step()
    here.optimiser.zero_grad(set_to_none=True)
    return total, norm


def _not_finite(found: str, *, step: int, rate: float) -> FloatingPointError:
    """What was found after so many steps, and what to do about it."""
    if step == 0:  # nothing has been learned yet, so it is not the rate
        return FloatingPointError(
            f"{found} before anything was learned: a weight of the base is not finite, or the numbers are too large for the number "
            "format. Write train.compute.precision: fp32; if that does not help, take another base"
        )
    return FloatingPointError(
        f"{found} after step {step}: the learning rate {rate:.2e} is too high for this model. Set train.learning_rate to a third"
    )


def _is_out_of_patience(here: Position, config: TrainConfig) -> bool:
    return bool(here.best_step) and config.patience is not None and here.unimproved >= config.patience


class _Clock:
    """Tokens per second, and the time that is left."""

    def __init__(self, step: int, *, total_steps: int) -> None:
        self._first = self._step = step
        self._total_steps = total_steps
        self._start = self._last = time.monotonic()
        self._tokens_per_s = 0.0

    def tick(self, batches: Sequence[TokenBatch], **measured: Any) -> Step:
        """One step is done; `measured` are the fields of Step that need no clock."""
        now = time.monotonic()
        num_tokens = sum(batch.num_tokens for batch in batches)
        latest = num_tokens / max(now - self._last, 1e-9)
        self._tokens_per_s = 0.9 * self._tokens_per_s + 0.1 * latest if self._tokens_per_s else latest
        self._last = now
        self._step += 1
        return Step(
            step=self._step,
            total_steps=self._total_steps,
            num_tokens=num_tokens,
            num_supervised=sum(batch.num_supervised for batch in batches),
            tokens_per_s=self._tokens_per_s,
            elapsed_s=now - self._start,
            eta_s=(now - self._start) / (self._step - self._first) * (self._total_steps - self._step),
            **measured,
        )

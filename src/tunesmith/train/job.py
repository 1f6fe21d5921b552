"""One training job from records to a saved model folder, and the plan of it that `check` prints.

`preparation.py` goes up to the first step, `loop.py` makes the steps; here is what comes around and after them.
"""

from __future__ import annotations

import heapq
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.data.ledger import Ledger
from tunesmith.data.mix import Passed
from tunesmith.errors import UserError
from tunesmith.model.save import save_model
from tunesmith.records import CurvePoint, Dropped
from tunesmith.store.digest import digest_of
from tunesmith.train.compute import out_of_memory_in_words
from tunesmith.train.diagnosis import RunFacts, diagnose
from tunesmith.train.fingerprint import digest_of_arrays, digest_of_tensors
from tunesmith.train.loop import FitResult, Step, fit
from tunesmith.train.preparation import Job, Prepared, prepare
from tunesmith.train.probe import write_probe

__all__ = ["Outcome", "Plan", "plan_job", "train_job"]

_PROBE_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a job will do, before it does it. Seconds and bytes come from a few measured steps."""

    machine: str
    num_rows: int
    num_tokens: int
    num_supervised_tokens: int
    ledger: Ledger
    """Of the training rows."""
    sources: Mapping[str, Passed]
    """What the run will read of each source."""
    mix: Mapping[str, Any] | None
    """`Mix.as_json`; None when every source is read once in an epoch."""
    dropped: tuple[Dropped, ...]
    num_steps: int
    learning_rate: float
    num_parameters: int
    num_trained_parameters: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job went."""

    curve: tuple[CurvePoint, ...]
    best_step: int
    num_steps: int
    stopped_early: bool
    learning_rate: float
    is_compiled: bool
    """Whether the layers were compiled for it."""
    warnings: tuple[str, ...]
    ledger: Ledger
    """Of the training rows."""
    sources: Mapping[str, Passed]
    """What the run has read of each source."""


def train_job(
    job: Job,
    *,
    checkpoints: Path,
    out: Path,
    on_step: Callable[[Step], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train and save a model folder that plain transformers (and PEFT) can load.

    Args:
        job: what to train.
        checkpoints: the folder in which a killed run finds its way back.
        out: an existing, empty folder for adapter or model, tokenizer and chat template.
        on_step: called after every optimiser step.
        should_stop: asked after every step; True saves and raises Interrupted.

    Raises:
        DataError: nothing is left to train on.
        UserError: the loss is not finite.
        Interrupted: `should_stop` said so.
    """
    prepared = prepare(job, folder=checkpoints)
    try:
        with out_of_memory_in_words():
            result = fit(
                prepared.model,
                epochs=prepared.epoch,
                validation=prepared.validation,
                total_steps=prepared.num_steps,
                batches_per_step=prepared.batches_per_step,
                config=job.config,
                learning_rate=prepared.learning_rate,
                device=prepared.machine.device,
                folder=checkpoints,
                on_step=on_step,
                should_stop=should_stop,
                loss=prepared.method.loss,
                fingerprint=_fingerprint(job, prepared),
            )
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    finally:
        prepared.undo_compiling()
    save_model(prepared.model, out, base_path=job.base)
    job.chat.save(out)
    if not job.num_prompt_tokens:  # a soft prompt is no version, of which anything is proved
        write_probe(prepared.model, prepared.validation or prepared.epoch(0), out, device=prepared.machine.device)
    return Outcome(
        curve=result.curve,
        best_step=result.best_step,
        num_steps=result.num_steps,
        stopped_early=result.stopped_early,
        learning_rate=prepared.learning_rate,
        is_compiled=prepared.choices.is_compiled,
        warnings=diagnose(result.curve, _facts(job, prepared, result)),
        ledger=prepared.encoded.ledger,
        sources=prepared.passed(result.num_steps),
    )


def plan_job(job: Job) -> Plan:
    """Tokenise everything, build the model, and time a few steps of it. Changes nothing."""
    prepared = prepare(job, folder=None)
    seconds_per_token, peak_bytes = _probe(prepared)
    encoded, epoch_tokens = prepared.encoded, prepared.epoch(0).num_tokens
    epochs_done = prepared.num_steps * prepared.batches_per_step / len(prepared.epoch(0))
    validation_tokens = sum(batch.num_tokens for batch in prepared.validation) * job.config.evaluations
    parameters = list(prepared.model.parameters())
    return Plan(
        machine=str(prepared.machine),
        num_rows=len(set(encoded.record_ids)),
        num_tokens=epoch_tokens,
        num_supervised_tokens=encoded.num_supervised,
        ledger=encoded.ledger,
        sources=prepared.passed(prepared.num_steps),
        mix=prepared.mix.as_json() if prepared.mix else None,
        dropped=tuple(encoded.dropped),
        num_steps=prepared.num_steps,
        learning_rate=prepared.learning_rate,
        num_parameters=sum(p.numel() for p in parameters),
        num_trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        # A validation pass has no backward: about a third of a training pass.
        seconds=seconds_per_token * (epoch_tokens * epochs_done + validation_tokens / 3),
        peak_bytes=peak_bytes,
    )


def _facts(job: Job, prepared: Prepared, result: FitResult) -> RunFacts:
    """What the diagnosis is told."""
    encoded = prepared.encoded
    steps_per_epoch = len(prepared.epoch(0)) / prepared.batches_per_step
    return RunFacts(
        best_step=result.best_step,
        num_steps=result.num_steps,
        num_planned_steps=prepared.num_steps,
        first_loss=result.first_loss,
        num_clipped=result.num_clipped,
        learning_rate=prepared.learning_rate,
        tokens_per_step=prepared.epoch(0).num_tokens / steps_per_epoch,
        supervised_per_step=encoded.num_supervised / encoded.num_tokens * prepared.epoch(0).num_tokens / steps_per_epoch,
        num_rows=len(job.train),
        num_truncated_rows=encoded.ledger.num_cut_rows,
        num_supervised=encoded.num_supervised,
        num_truncated_supervised=encoded.ledger.num_lost,
        max_length=prepared.max_length,
        context=prepared.context,
        num_validation_rows=len(set(validation.record_ids)) if (validation := prepared.validation_encoded) else 0,
    )


def _fingerprint(job: Job, prepared: Prepared) -> dict[str, str]:
    """Hashes of all that decides where a run ends; the model is still as it was built."""
    settings = {
        "train": job.config.model_dump(mode="json"),
        "learning_rate": prepared.learning_rate,
        "num_steps": prepared.num_steps,
        "batches_per_step": prepared.batches_per_step,
        "mix": prepared.mix.as_json() if prepared.mix else None,
    }
    splits = [prepared.encoded, *filter(None, [prepared.validation_encoded])]
    return {
        "model": digest_of_tensors(prepared.model.named_parameters()),
        "data": digest_of_arrays(array for e in splits for array in (e.tokens, e.targets, e.weights, e.offsets)),
        "configuration": digest_of(settings),
    }


def _probe(prepared: Prepared) -> tuple[float, int]:
    """Seconds per token and peak memory, measured on the fullest batches, with a learning rate of zero."""
    model, device = prepared.model, prepared.machine.device
    fullest = heapq.nlargest(_PROBE_STEPS, prepared.epoch(0), key=lambda batch: batch.num_supervised * batch.num_tokens)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, weight_decay=0.0)
    model.train()
    durations = []
    for batch in [*fullest, fullest[-1]]:
        start = time.perf_counter()
        if batch.num_supervised:
            prepared.method.loss(model, batch, device=device).total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        durations.append((time.perf_counter() - start) / batch.num_tokens)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return min(durations[1:]), int(peak)

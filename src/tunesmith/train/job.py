"""One training job from records to a saved model folder, and the plan of it that `check` prints.

The only place where `train` meets both rooms below it: `data` makes the batches, `model` reads them.
"""

from __future__ import annotations

import heapq
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import Encoded, encode, pack
from tunesmith.errors import DataError, UserError
from tunesmith.model.config import ScratchConfig
from tunesmith.model.load import context_length, load_model, new_model
from tunesmith.model.machine import Machine, this_machine
from tunesmith.model.save import save_model
from tunesmith.records import CurvePoint, Dropped, Record, TokenBatch
from tunesmith.store.digest import digest_of
from tunesmith.train.config import TrainConfig
from tunesmith.train.diagnosis import RunFacts, diagnose
from tunesmith.train.fingerprint import digest_of_arrays, digest_of_tensors
from tunesmith.train.loop import FitResult, Step, fit
from tunesmith.train.methods import METHODS, Method
from tunesmith.train.probe import write_probe
from tunesmith.train.schedule import default_learning_rate
from tunesmith.train.stream import count_steps, pass_tokens, passes_per_step

__all__ = ["Job", "Outcome", "Plan", "plan_job", "train_job"]

_PROBE_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be trained on what. `base` is a checked folder, or None when `scratch` describes a new model."""

    base: Path | None
    scratch: ScratchConfig | None
    chat: ChatFormat
    train: Sequence[Record]
    validation: Sequence[Record]
    config: TrainConfig
    learn: Literal["answers", "everything"] = "answers"
    """What of a conversation is learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a job will do, before it does it. Seconds and bytes come from a few measured steps."""

    machine: str
    num_rows: int
    num_tokens: int
    num_supervised_tokens: int
    num_truncated_rows: int
    num_truncated_supervised_tokens: int
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
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A job with its model built and its rows tokenised."""

    model: nn.Module
    method: Method
    machine: Machine
    max_length: int
    context: int
    encoded: Encoded
    validation: Sequence[TokenBatch]
    num_validation_rows: int
    splits: tuple[Encoded, ...]
    first_epoch: Sequence[TokenBatch]
    num_steps: int
    batches_per_step: int
    learning_rate: float
    config: TrainConfig

    def epoch(self, number: int) -> Sequence[TokenBatch]:
        return _epoch(self.encoded, config=self.config, number=number)


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
    prepared = _prepare(job)
    try:
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
    save_model(prepared.model, out, base_path=job.base)
    job.chat.save(out)
    write_probe(prepared.model, prepared.validation or prepared.first_epoch, out, device=prepared.machine.device)
    return Outcome(
        curve=result.curve,
        best_step=result.best_step,
        num_steps=result.num_steps,
        stopped_early=result.stopped_early,
        learning_rate=prepared.learning_rate,
        warnings=diagnose(result.curve, _facts(job, prepared, result)),
    )


def plan_job(job: Job) -> Plan:
    """Tokenise everything, build the model, and time a few steps of it. Changes nothing."""
    prepared = _prepare(job)
    seconds_per_token, peak_bytes = _probe(prepared)
    encoded = prepared.encoded
    epochs_done = prepared.num_steps * prepared.batches_per_step / len(prepared.first_epoch)
    validation_tokens = sum(batch.num_tokens for batch in prepared.validation) * job.config.evaluations
    parameters = list(prepared.model.parameters())
    return Plan(
        machine=str(prepared.machine),
        num_rows=len(set(encoded.record_ids)),
        num_tokens=encoded.num_tokens,
        num_supervised_tokens=encoded.num_supervised,
        num_truncated_rows=encoded.num_truncated_rows,
        num_truncated_supervised_tokens=encoded.num_truncated_supervised,
        dropped=tuple(encoded.dropped),
        num_steps=prepared.num_steps,
        learning_rate=prepared.learning_rate,
        num_parameters=sum(p.numel() for p in parameters),
        num_trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        # A validation pass has no backward: about a third of a training pass.
        seconds=seconds_per_token * (encoded.num_tokens * epochs_done + validation_tokens / 3),
        peak_bytes=peak_bytes,
    )


def _prepare(job: Job) -> _Prepared:
    machine = this_machine()
    context = job.scratch.context if job.scratch else context_length(job.base) if job.base else sys.maxsize
    max_length = min(job.config.max_length, context)
    encoded = encode(job.train, chat=job.chat, max_length=max_length, learn=job.learn)
    if not len(encoded):
        raise DataError("nothing is left to train on: no row of the training split has a token that would be learned")
    validation = encode(job.validation, chat=job.chat, max_length=max_length, learn=job.learn) if job.validation else None
    first_epoch = _epoch(encoded, config=job.config, number=0)
    batches_per_step = passes_per_step(job.config, longest=_longest(encoded))
    method = METHODS[job.config.method]
    model = method.make_trainable(_weights(job, machine=machine), job.config)
    return _Prepared(
        model=model,
        method=method,
        machine=machine,
        max_length=max_length,
        context=context,
        encoded=encoded,
        validation=_epoch(validation, config=job.config, number=0) if validation else [],
        num_validation_rows=len(set(validation.record_ids)) if validation else 0,
        splits=(encoded, validation) if validation else (encoded,),
        first_epoch=first_epoch,
        num_steps=count_steps(len(first_epoch), batches_per_step=batches_per_step, config=job.config),
        batches_per_step=batches_per_step,
        learning_rate=job.config.learning_rate
        or default_learning_rate(hidden_size=_hidden_size(model), from_scratch=job.scratch is not None)
        * method.rate_factor(job.config),
        config=job.config,
    )


def _facts(job: Job, prepared: _Prepared, result: FitResult) -> RunFacts:
    """What the diagnosis is told."""
    encoded = prepared.encoded
    steps_per_epoch = len(prepared.first_epoch) / prepared.batches_per_step
    return RunFacts(
        best_step=result.best_step,
        num_steps=result.num_steps,
        num_planned_steps=prepared.num_steps,
        first_loss=result.first_loss,
        num_clipped=result.num_clipped,
        learning_rate=prepared.learning_rate,
        tokens_per_step=encoded.num_tokens / steps_per_epoch,
        supervised_per_step=encoded.num_supervised / steps_per_epoch,
        num_rows=len(job.train),
        num_truncated_rows=encoded.num_truncated_rows,
        num_supervised=encoded.num_supervised,
        num_truncated_supervised=encoded.num_truncated_supervised,
        max_length=prepared.max_length,
        context=prepared.context,
        num_validation_rows=prepared.num_validation_rows,
    )


def _fingerprint(job: Job, prepared: _Prepared) -> dict[str, str]:
    """Hashes of all that decides where a run ends; the model is still as it was built."""
    settings = {
        "train": job.config.model_dump(mode="json"),
        "learning_rate": prepared.learning_rate,
        "num_steps": prepared.num_steps,
        "batches_per_step": prepared.batches_per_step,
    }
    return {
        "model": digest_of_tensors(prepared.model.named_parameters()),
        "data": digest_of_arrays(array for e in prepared.splits for array in (e.tokens, e.targets, e.weights, e.offsets)),
        "configuration": digest_of(settings),
    }


def _weights(job: Job, *, machine: Machine) -> nn.Module:
    """The base, or a model of random weights drawn from the seed."""
    if job.scratch is not None:
        tokens = {"bos_token_id": None, "eos_token_id": list(job.chat.stop_tokens), "pad_token_id": job.chat.pad_token}
        return new_model(job.scratch, special_tokens=tokens, machine=machine, seed=job.config.seed)
    assert job.base is not None
    return load_model(job.base, machine=machine)


def _epoch(encoded: Encoded, *, config: TrainConfig, number: int) -> Sequence[TokenBatch]:
    return pack(encoded, batch_tokens=pass_tokens(config, longest=_longest(encoded)), seed=config.seed, epoch=number)


def _longest(encoded: Encoded) -> int:
    return int(np.diff(encoded.offsets).max())


def _hidden_size(model: Any) -> int:
    settings = model.config.to_dict()
    return int(settings.get("hidden_size") or settings.get("n_embd") or 2000)


def _probe(prepared: _Prepared) -> tuple[float, int]:
    """Seconds per token and peak memory, measured on the fullest batches, with a learning rate of zero."""
    model, device = prepared.model, prepared.machine.device
    fullest = heapq.nlargest(_PROBE_STEPS, prepared.first_epoch, key=lambda batch: batch.num_supervised * batch.num_tokens)
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

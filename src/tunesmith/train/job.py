"""One training job from records to a saved model folder, and the plan of it that `check` prints.

The only place where `train` meets both rooms below it: `data` makes the batches, `model` reads them.
"""

from __future__ import annotations

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
from tunesmith.model.forward import summed_loss
from tunesmith.model.load import context_length, load_model, new_model
from tunesmith.model.lora import add_lora
from tunesmith.model.machine import Machine, this_machine
from tunesmith.model.save import save_model
from tunesmith.records import CurvePoint, Dropped, Record, TokenBatch
from tunesmith.train.config import TrainConfig
from tunesmith.train.diagnosis import diagnose
from tunesmith.train.loop import Step, fit
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
    machine: Machine
    encoded: Encoded
    validation: list[TokenBatch]
    first_epoch: list[TokenBatch]
    num_steps: int
    batches_per_step: int
    learning_rate: float
    config: TrainConfig

    def epoch(self, number: int) -> list[TokenBatch]:
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
        warnings=diagnose(result.curve, best_step=result.best_step),
    )


def plan_job(job: Job) -> Plan:
    """Tokenise everything, build the model, and time a few steps of it. Changes nothing."""
    prepared = _prepare(job)
    seconds_per_token, peak_bytes = _probe(prepared)
    tokens_per_epoch = sum(batch.num_tokens for batch in prepared.first_epoch)
    epochs_done = prepared.num_steps * prepared.batches_per_step / len(prepared.first_epoch)
    validation_tokens = sum(batch.num_tokens for batch in prepared.validation) * job.config.evaluations
    parameters = list(prepared.model.parameters())
    encoded = prepared.encoded
    return Plan(
        machine=str(prepared.machine),
        num_rows=len(set(encoded.record_ids)),
        num_tokens=tokens_per_epoch,
        num_supervised_tokens=sum(batch.num_supervised for batch in prepared.first_epoch),
        num_truncated_rows=encoded.num_truncated_rows,
        num_truncated_supervised_tokens=encoded.num_truncated_supervised,
        dropped=tuple(encoded.dropped),
        num_steps=prepared.num_steps,
        learning_rate=prepared.learning_rate,
        num_parameters=sum(p.numel() for p in parameters),
        num_trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        # A validation pass has no backward: about a third of a training pass.
        seconds=seconds_per_token * (tokens_per_epoch * epochs_done + validation_tokens / 3),
        peak_bytes=peak_bytes,
    )


def _prepare(job: Job) -> _Prepared:
    machine = this_machine()
    limit = job.scratch.context if job.scratch else context_length(job.base) if job.base else sys.maxsize
    max_length = min(job.config.max_length, limit)
    encoded = encode(job.train, chat=job.chat, max_length=max_length, learn=job.learn)
    if not len(encoded):
        raise DataError("nothing is left to train on: no row of the training split has a token that would be learned")
    validation = encode(job.validation, chat=job.chat, max_length=max_length, learn=job.learn) if job.validation else None
    first_epoch = _epoch(encoded, config=job.config, number=0)
    batches_per_step = passes_per_step(job.config, longest=_longest(encoded))
    model = _build_model(job, machine=machine)
    return _Prepared(
        model=model,
        machine=machine,
        encoded=encoded,
        validation=_epoch(validation, config=job.config, number=0) if validation else [],
        first_epoch=first_epoch,
        num_steps=count_steps(len(first_epoch), batches_per_step=batches_per_step, config=job.config),
        batches_per_step=batches_per_step,
        learning_rate=job.config.learning_rate
        or default_learning_rate(job.config, hidden_size=_hidden_size(model), from_scratch=job.scratch is not None),
        config=job.config,
    )


def _build_model(job: Job, *, machine: Machine) -> nn.Module:
    """Base or random weights, made trainable by the method. The seed is set before any weight is drawn."""
    if job.scratch is not None:
        tokens = {"bos_token_id": None, "eos_token_id": list(job.chat.stop_tokens), "pad_token_id": job.chat.pad_token}
        return new_model(job.scratch, special_tokens=tokens, machine=machine, seed=job.config.seed)
    assert job.base is not None
    lora = job.config.lora
    if job.config.method == "lora":
        model = load_model(job.base, machine=machine)
        return add_lora(model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, seed=job.config.seed)
    # Full fine-tuning keeps its weights in fp32 (small updates vanish in bf16); the forward pass computes in bf16 on a GPU.
    model = load_model(job.base, machine=machine).float()
    torch.manual_seed(job.config.seed)
    return model


def _epoch(encoded: Encoded, *, config: TrainConfig, number: int) -> list[TokenBatch]:
    return pack(encoded, batch_tokens=pass_tokens(config, longest=_longest(encoded)), seed=config.seed, epoch=number)


def _longest(encoded: Encoded) -> int:
    return int(np.diff(encoded.offsets).max())


def _hidden_size(model: Any) -> int:
    settings = model.config.to_dict()
    return int(settings.get("hidden_size") or settings.get("n_embd") or 2000)


def _probe(prepared: _Prepared) -> tuple[float, int]:
    """Seconds per token and peak memory, measured on the fullest batches, with a learning rate of zero."""
    model, device = prepared.model, prepared.machine.device
    fullest = sorted(prepared.first_epoch, key=lambda batch: batch.num_supervised * batch.num_tokens)[-_PROBE_STEPS:]
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, weight_decay=0.0)
    model.train()
    durations = []
    for batch in reversed([fullest[0], *fullest]):
        start = time.perf_counter()
        if batch.num_supervised:
            summed_loss(model, batch, device=device).total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        durations.append((time.perf_counter() - start) / batch.num_tokens)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return min(durations[1:]), int(peak)

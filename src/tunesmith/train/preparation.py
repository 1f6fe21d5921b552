"""From a job to the first step: rows tokenised, the model built and made trainable, and settled how this machine computes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from tunesmith.data.chat import ChatFormat
from tunesmith.data.config import MixConfig, Overlong
from tunesmith.data.ledger import refuse_faults, refuse_losses
from tunesmith.data.mix import Mix, Passed, count_passes, plan_mix
from tunesmith.data.pack import Batches, Encoded, encode, pack, prefixed
from tunesmith.errors import DataError
from tunesmith.model.config import ScratchConfig
from tunesmith.model.dropout import add_dropout
from tunesmith.model.load import context_length, load_model, new_model
from tunesmith.model.machine import Machine, this_machine
from tunesmith.model.number_format import compute_activations_twice
from tunesmith.model.soft_prompt import placeholders
from tunesmith.records import Record, TokenBatch
from tunesmith.train.compute import (
    Choices,
    compile_if_it_pays,
    compile_now,
    compute_in,
    out_of_memory_in_words,
    rehearse,
    remember,
)
from tunesmith.train.config import TrainConfig
from tunesmith.train.footprint import find_room, measure_need, refuse_weights
from tunesmith.train.methods import METHODS, Method, soft_prompt
from tunesmith.train.schedule import default_learning_rate
from tunesmith.train.stream import count_steps, pass_tokens, passes_per_step

__all__ = ["Job", "Prepared", "encode_row", "prepare"]


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
    overlong: Overlong = "right"
    """What becomes of a conversation that does not fit."""
    sources: Sequence[str] = ()
    """Names of the recipe's sources, by which the ledger is kept and the mix made."""
    mix: MixConfig = field(default_factory=MixConfig)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of each source in the mix."""
    num_prompt_tokens: int = 0
    """Above 0: a soft prompt of so many vectors is trained in front of the frozen base, whatever `config.method` says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job with its model built and its rows tokenised."""

    model: nn.Module
    method: Method
    machine: Machine
    max_length: int
    context: int
    encoded: Encoded
    validation_encoded: Encoded | None
    mix: Mix | None
    choices: Choices
    config: TrainConfig
    learning_rate: float
    undo_compiling: Callable[[], None]
    sources: Sequence[str] = ()
    """Names of the recipe's sources."""

    def epoch(self, number: int) -> Batches:
        """The batches of an epoch."""
        return _epoch(self.encoded, mix=self.mix, tokens=self.choices.pass_tokens, config=self.config, number=number)

    def passed(self, num_steps: int) -> dict[str, Passed]:
        """What so many steps read of each source."""
        num_batches = num_steps * self.batches_per_step
        return count_passes(self.encoded, epoch=self.epoch, num_batches=num_batches, names=self.sources)

    @property
    def validation(self) -> Sequence[TokenBatch]:
        encoded = self.validation_encoded
        if encoded is None:
            return []
        return _epoch(encoded, tokens=max(self.choices.pass_tokens, _longest(encoded)), config=self.config, number=0)

    @property
    def batches_per_step(self) -> int:
        return passes_per_step(self.config, tokens=self.choices.pass_tokens)

    @property
    def num_steps(self) -> int:
        return count_steps(len(self.epoch(0)), batches_per_step=self.batches_per_step, config=self.config)


def prepare(job: Job, *, folder: Path | None) -> Prepared:
    """Do everything up to the first step.

    Args:
        job: what to train.
        folder: the run's; what was decided about this machine is read there, or written. None decides for this time only.

    Raises:
        DataError: nothing is left to train on, or a row would teach something wrong.
        GateRefused: the policy is `error`, and too much would be cut away.
        OutOfMemory: it would not fit; the message says what would.
    """
    config, known = job.config, remember(folder) if folder else None
    machine = this_machine(
        precision=known.precision if known else config.compute.precision,
        num_threads=known.num_threads if known else config.compute.threads,
    )
    context = _context(job)
    max_length = _max_length(job)
    encoded, validation = (_encode(records, job=job, max_length=max_length) for records in (job.train, job.validation))
    ledger = encoded.ledger.plus(validation.ledger)
    refuse_faults(ledger)
    if job.overlong == "error":
        refuse_losses(ledger, max_length=max_length, context=context)
    if not len(encoded):
        raise DataError("nothing is left to train on: no row of the training split has a token that would be learned")
    mix = plan_mix(encoded, config=job.mix, weights=job.weights, epochs=config.epochs, seed=config.seed)
    if known is not None and known.pass_tokens < _longest(encoded) + job.num_prompt_tokens:
        known = None  # decided for other rows, which the folder's checkpoints belong to as well
    method = soft_prompt(encoded, num_tokens=job.num_prompt_tokens) if job.num_prompt_tokens else METHODS[config.method]
    with out_of_memory_in_words():
        model = _trainable(job, method=method, machine=machine)
        encoded, validation = (prefixed(rows, prefix=placeholders(model)) for rows in (encoded, validation))
        compute_in(machine, model)
        choices = known or _choose(model, encoded, method=method, mix=mix, machine=machine, config=config, folder=folder)
    if known is not None and known.is_checkpointed:
        compute_activations_twice(model)
    undo = None
    if choices.is_compiled:
        first = _to_measure(encoded, tokens=choices.pass_tokens, config=config)
        undo = compile_now(model, first, wish=config.compute.compile, loss=method.loss, device=machine.device)
        choices = replace(choices, is_compiled=undo is not None)
    if folder is not None and choices != known:
        remember(folder, choices)
    return Prepared(
        model=model,
        method=method,
        machine=machine,
        max_length=max_length,
        context=context,
        encoded=encoded,
        validation_encoded=validation if len(validation) else None,
        mix=mix,
        choices=choices,
        config=config,
        learning_rate=config.learning_rate or _default_rate(model, method=method, job=job),
        undo_compiling=undo or (lambda: None),
        sources=job.sources,
    )


def _choose(
    model: nn.Module,
    encoded: Encoded,
    *,
    method: Method,
    mix: Mix | None,
    machine: Machine,
    config: TrainConfig,
    folder: Path | None,
) -> Choices:
    """Find out how the run fits into memory and whether compiling pays. The model is left uncompiled."""
    loss, device, longest = method.loss, machine.device, _longest(encoded)
    tokens = pass_tokens(config, longest=longest)
    start = time.perf_counter()
    sample = _epoch(encoded, mix=mix, tokens=tokens, config=config, number=0)[0]
    need = measure_need(model, sample, loss=loss, device=device)
    seconds_per_token = (time.perf_counter() - start) / need.num_tokens
    room = find_room(need, pass_tokens=tokens, longest=longest, checkpointing=config.compute.gradient_checkpointing)
    if room.is_checkpointed:
        compute_activations_twice(model)
    batches = _epoch(encoded, mix=mix, tokens=room.pass_tokens, config=config, number=0)
    rehearse(model, batches, room=room, loss=loss, device=device)
    return Choices(
        precision=machine.precision,
        num_threads=machine.num_threads,
        pass_tokens=room.pass_tokens,
        is_checkpointed=room.is_checkpointed,
        is_compiled=folder is not None
        and compile_if_it_pays(
            model,
            _to_measure(encoded, tokens=room.pass_tokens, config=config),
            wish=config.compute.compile,
            num_passes=round(len(batches) * config.epochs),
            expected_seconds=3 * seconds_per_token * batches.num_tokens * config.epochs,
            loss=loss,
            device=device,
        ),
    )


def encode_row(row: Record, *, job: Job) -> Encoded:
    """What a job makes of one row."""
    return _encode([row], job=job, max_length=_max_length(job))


def _max_length(job: Job) -> int:
    """Tokens of a row at most; a soft prompt takes room in the context too."""
    return min(job.config.max_length, _context(job) - job.num_prompt_tokens)


def _context(job: Job) -> int:
    """Tokens that the model can read."""
    return job.scratch.context if job.scratch else context_length(job.base) if job.base else sys.maxsize


def _encode(records: Sequence[Record], *, job: Job, max_length: int) -> Encoded:
    return encode(records, chat=job.chat, max_length=max_length, learn=job.learn, overlong=job.overlong, sources=job.sources)


def _trainable(job: Job, *, method: Method, machine: Machine) -> nn.Module:
    """The model, with what is to be learned. A soft prompt is no recipe's training, and has no dropout."""
    model = method.make_trainable(_weights(job, machine=machine), job.config)
    add_dropout(model, share=0.0 if job.num_prompt_tokens else job.config.optimiser.dropout)
    return model


def _weights(job: Job, *, machine: Machine) -> nn.Module:
    """The base, or a model of random weights drawn from the seed."""
    if job.scratch is not None:
        tokens = {"bos_token_id": None, "eos_token_id": list(job.chat.stop_tokens), "pad_token_id": job.chat.pad_token}
        return new_model(job.scratch, special_tokens=tokens, machine=machine, seed=job.config.seed)
    assert job.base is not None
    is_trained_whole = job.config.method == "full" and not job.num_prompt_tokens
    if is_trained_whole:  # in fp32: a base that is kept in fp32 loses nothing on its way in
        machine = replace(machine, dtype=torch.float32)
    refuse_weights(job.base, is_fp32=machine.dtype == torch.float32)
    return load_model(job.base, machine=machine)


def _epoch(encoded: Encoded, *, tokens: int, config: TrainConfig, number: int, mix: Mix | None = None) -> Batches:
    chosen = mix.epoch(number) if mix else None
    return pack(encoded, batch_tokens=tokens, seed=config.seed, epoch=number, chosen=chosen)


def _to_measure(encoded: Encoded, *, tokens: int, config: TrainConfig) -> Sequence[TokenBatch]:
    """The run's first two batches from which something is learned."""
    return [batch for batch in _epoch(encoded, tokens=tokens, config=config, number=0) if batch.num_supervised][:2]


def _longest(encoded: Encoded) -> int:
    return int(np.diff(encoded.offsets).max())


def _default_rate(model: nn.Module, *, method: Method, job: Job) -> float:
    if method.own_rate is not None:
        return method.own_rate(model)
    rate = default_learning_rate(hidden_size=_hidden_size(model), from_scratch=job.scratch is not None)
    return rate * method.rate_factor(job.config)


def _hidden_size(model: Any) -> int:
    settings = model.config.to_dict()
    return int(settings.get("hidden_size") or settings.get("n_embd") or 2000)

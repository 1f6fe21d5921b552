"""Every proof of the training engine, on one model and a few rows: what `tunesmith prove` runs.

A proof is a function that returns a `records.Proof`: a figure beside its tolerance. To add one, write the function and name it in
`prove_training`; another room adds its own to the sheet in `pipeline.proving`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from tunesmith.data.chat import ChatFormat
from tunesmith.data.contract import Contract
from tunesmith.model.load import load_model, load_version
from tunesmith.model.machine import Machine
from tunesmith.model.save import save_model
from tunesmith.records import Proof, Record, TokenBatch
from tunesmith.train.config import TrainConfig
from tunesmith.train.contract import make_contract
from tunesmith.train.fresh import Ask, fresh_process
from tunesmith.train.probe import Probe, log_likelihoods, read_probe
from tunesmith.train.proofs_adapter import CHANGED, prove_adapter, prove_changed, require_adapter_gradients, trial_adapter
from tunesmith.train.proofs_data import prove_tokens
from tunesmith.train.proofs_exact import prove_compiled, prove_step
from tunesmith.train.proofs_measure import documents, proving_machine, rounding
from tunesmith.train.proofs_process import Saved, prove_reloaded, prove_resumed, read_task, train_task
from tunesmith.train.proofs_rows import choose_rows
from tunesmith.train.proofs_turn import prove_ends

__all__ = ["Subject", "prove_training"]

_MOST_COMPARED = 200_000_000
"""Beyond so many weights an adapter's gradients stand for all of them, and memory and minutes are spared."""
_MOST_SAVED = 20_000_000
"""The same for the runs that are killed: each of their steps writes all that is trained three times over."""
_ONE_THREAD = 20_000_000
"""Up to so many weights a second thread only waits for the first, and on a busy machine for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be proved something about."""

    saved: Saved
    """A base, a whole tuned model or an adapter. A whole tuned model's `base` is what it started from, if it had one."""
    is_tuned: bool
    """False for a bare base."""
    chat: ChatFormat | None
    """None when the folder has no tokenizer."""
    records: Sequence[Record]
    """Rows that it was trained on; none for a bare base."""
    max_length: int
    """Longest row in tokens."""
    config: TrainConfig = field(default_factory=TrainConfig)
    context: int | None = None
    """Tokens of a conversation that is served; None: `max_length`."""
    is_compiled: bool = False
    """Whether its training compiled it, or the proof of compiling is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """The model on the bench: as it is, and with an adapter that does something."""

    subject: Subject
    machine: Machine
    model: nn.Module
    """The version's adapter on its base, or the whole model."""
    adapted: nn.Module
    """The same for an adapter; for a whole model, a second copy with an adapter made for trial."""
    adapted_saved: Saved
    batch: TokenBatch
    num_weights: int
    base: Callable[[], nn.Module]
    """Loads what a whole tuned model started from, once."""


def prove_training(
    subject: Subject,
    *,
    on_proof: Callable[[Proof], None] = lambda _: None,
    on_contract: Callable[[Contract], None] = lambda _: None,
    ask: Ask | None = None,
) -> list[Proof]:
    """Try every proof of the training engine on a model.

    Args:
        subject: the model and its rows.
        on_proof: hears each result as it comes.
        on_contract: given the contract of a tuned model with conversations, to which whoever serves it can be held.
        ask: a fresh process that was started before; None starts one.
    """
    proofs = []
    num_threads = torch.get_num_threads()
    try:
        with (
            TemporaryDirectory(prefix="tunesmith-proof-", ignore_cleanup_errors=True) as folder,
            nullcontext(ask) if ask else fresh_process() as ask_it,
        ):
            for proof in _prove(_lay_out(subject, Path(folder)), Path(folder), ask_it, on_contract):
                proofs.append(proof)
                on_proof(proof)
    finally:
        torch.set_num_threads(num_threads)
    return proofs


def _prove(bench: _Bench, folder: Path, ask: Ask, on_contract: Callable[[Contract], None]) -> Iterator[Proof]:
    subject, batch, device = bench.subject, bench.batch, bench.machine.device
    probe, probed, when = _remembered(bench)
    trained, in_words = _to_train(bench)
    tasks = {
        "num_threads": torch.get_num_threads(),
        "train": train_task(trained, batch=batch, config=_config(subject, trained)),
        "read": read_task(probed, probe=probe),
    }
    compared = bench.model if bench.num_weights <= _MOST_COMPARED else bench.adapted
    answer = ask(folder, tasks)
    tolerance = rounding(compared, batch, device=device)
    tries: dict[str, Callable[[], Sequence[Proof]]] = {
        "packed, accumulated, head": lambda: prove_step(compared, batch, device=device, tolerance=tolerance),
        "compiled": lambda: [prove_compiled(compared, batch, device=device, is_used=subject.is_compiled, tolerance=tolerance)],
        "LoRA": lambda: prove_adapter(bench.adapted, bench.adapted_saved, batch, machine=bench.machine, tolerance=tolerance),
        "changed": lambda: [_prove_changed(bench, tolerance=tolerance)],
        "ends its turn": lambda: [prove_ends(_contract(bench, on_contract))],
        "tokens": lambda: [prove_tokens(subject.records, chat=subject.chat)],
        "reloaded": lambda: [prove_reloaded(answer()["read"], probe, tolerance=tolerance, when=when)],
        "killed and resumed": lambda: [prove_resumed(answer()["train"], trained=in_words)],
    }
    for name, attempt in tries.items():
        yield from _tried(name, attempt)


def _tried(name: str, attempt: Callable[[], Sequence[Proof]]) -> Sequence[Proof]:
    """What cannot even be tried is not proved, and keeps nothing else from being tried."""
    try:
        return attempt()
    except Exception as error:  # whatever it is, the sheet must say that this claim stands on nothing
        reason = f"{type(error).__name__}: {error}"
        return [Proof(name=name, meaning="It could not be tried, so nothing is known.", compared=reason[:400], holds=False)]


def _lay_out(subject: Subject, folder: Path) -> _Bench:
    machine, saved = proving_machine(), subject.saved
    if saved.is_adapter:
        model = load_version(saved.folder, base=saved.base, machine=machine)
        require_adapter_gradients(model)
        adapted, adapted_saved = model, saved
    else:
        model = load_model(saved.folder, machine=machine)
        adapted = trial_adapter(load_model(saved.folder, machine=machine), config=subject.config.lora)
        adapted_saved = Saved(folder=folder / "adapter", base=saved.folder)
        adapted_saved.folder.mkdir()
        save_model(adapted, adapted_saved.folder, base_path=saved.folder)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    if num_weights <= _ONE_THREAD:
        torch.set_num_threads(1)
    return _Bench(
        subject=subject,
        machine=machine,
        model=model,
        adapted=adapted,
        adapted_saved=adapted_saved,
        batch=choose_rows(subject.records, chat=subject.chat, vocabulary=_vocabulary(model), max_length=subject.max_length),
        num_weights=num_weights,
        base=cache(lambda: load_model(_base(saved), machine=machine)),
    )


def _base(saved: Saved) -> Path:
    assert saved.base is not None
    return saved.base


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _remembered(bench: _Bench) -> tuple[Probe, Saved, str]:
    """What a model in memory said, where its weights are saved, and when it was."""
    if (probe := read_probe(bench.subject.saved.folder)) is not None:
        return probe, bench.subject.saved, "when training ended"
    rows = [row.tokens.tolist() for row in documents(bench.batch) if row.num_tokens > 1]
    probe = Probe(
        rows=tuple(map(tuple, rows)),
        log_likelihoods=tuple(map(tuple, log_likelihoods(bench.adapted, rows, device=bench.machine.device))),
        number_format=str(bench.machine.dtype).removeprefix("torch."),
    )
    return (
        probe,
        bench.adapted_saved,
        "now, with the adapter" if bench.subject.is_tuned else "now, with an adapter made for trial",
    )


def _to_train(bench: _Bench) -> tuple[Saved, str]:
    """What the runs that are killed train, also in words."""
    if bench.subject.saved.is_adapter:
        return bench.subject.saved, "this adapter"
    if bench.num_weights <= _MOST_SAVED:
        return bench.subject.saved, "this model, every weight"
    return bench.adapted_saved, "an adapter on this model"


def _config(subject: Subject, trained: Saved) -> TrainConfig:
    return subject.config.model_copy(update={"method": "lora" if trained.is_adapter else "full"})


def _prove_changed(bench: _Bench, *, tolerance: float) -> Proof:
    subject, device = bench.subject, bench.machine.device
    if subject.saved.is_adapter or not subject.is_tuned:
        return prove_changed(bench.adapted, None, bench.batch, device=device, tolerance=tolerance)
    if subject.saved.base is None:
        return Proof(
            name="tuned ≠ base",
            meaning=CHANGED,
            compared="it started from random weights, so it has no base",
            holds=None,
        )
    return prove_changed(bench.model, bench.base(), bench.batch, device=device, tolerance=tolerance)


def _contract(bench: _Bench, on_contract: Callable[[Contract], None]) -> Contract | None:
    """What whoever serves this model must give; a bare base promises nothing."""
    subject = bench.subject
    if not subject.is_tuned or subject.chat is None:
        return None
    base = None if subject.saved.is_adapter or subject.saved.base is None else bench.base()
    max_length = subject.context or subject.max_length
    contract = make_contract(bench.model, base=base, chat=subject.chat, records=subject.records, max_length=max_length)
    if contract is not None:
        on_contract(contract)
    return contract

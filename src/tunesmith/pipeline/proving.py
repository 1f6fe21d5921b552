"""The sheet of proofs: what is claimed of a model, tried on this machine and on its own rows, and stored with the version.

The proofs of the training engine are `train`'s. A room that has others to make gives a function from a version to proofs, and
`_try_all` lists it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tunesmith.data import load_snapshot, load_split
from tunesmith.data.contract import Contract, read_contract, write_contract
from tunesmith.errors import BrokenArtefact, NotFound, UserError
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.proving_served import Start, fresh_server, prove_served
from tunesmith.pipeline.stages import finished_stage, stage_key
from tunesmith.pipeline.versions import MODEL_FACTS, base_of
from tunesmith.records import ModelVersion, Proof
from tunesmith.store import Artefact, Store, files_of, sound_files_of
from tunesmith.train.fresh import Ask, fresh_process

if TYPE_CHECKING:
    from tunesmith.train import Subject

__all__ = ["Ready", "Sheet", "contract_for", "prove", "prove_version", "soon_to_prove", "stored_sheet"]

_SHEET = "sheet.json"
_NUM_RECORDS = 64


class Ready(NamedTuple):
    """Processes that were started before they are needed."""

    ask: Ask
    start: Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What was proved of a model."""

    subject: str
    """A version such as `boutique@1`, or a base."""
    model: str
    """Digest of the version's artefact, or of the base's files."""
    machine: str
    proofs: tuple[Proof, ...]

    @property
    def holds(self) -> bool:
        """Whether some proof could be tried, and every one that could holds."""
        tried = [proof.holds for proof in self.proofs if proof.holds is not None]
        return bool(tried) and all(tried)

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(proof.name for proof in self.proofs if proof.holds is False)

    @property
    def objection(self) -> str:
        """Why it does not hold: the proofs that fail, or that there were none."""
        return f"not proved: {', '.join(self.failed)}" if self.failed else "nothing could be tried"

    @property
    def summary(self) -> str:
        tried = [proof for proof in self.proofs if proof.holds is not None]
        unused = len(self.proofs) - len(tried)
        tail = f" · {unused} not used here" if unused else ""
        return f"{sum(bool(proof.holds) for proof in tried)} of {len(tried)} proofs hold{tail}"

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `--json` and for the store."""
        return {"schema": 1, "holds": self.holds, **asdict(self)}


def prove(ref: str, *, store: Store, watcher: Watcher | None = None, compiled: bool = False) -> Sheet:
    """Prove now whatever can be proved of a version or a base. A version's sheet is stored with it.

    Args:
        ref: `boutique`, `boutique@3`, `tunesmith/base`, a folder with a model, or a hub id.
        store: the workspace.
        watcher: hears each proof as it is tried.
        compiled: compile the layers and compare, also where training did not.

    Raises:
        NotFound: neither a version nor a base.
        UserError: nothing can be compiled on this machine.
        BrokenArtefact: the version's files are not what was stored.
    """
    watch = watcher or Silent()
    version = _version(ref, store=store)
    if compiled:
        _require_compiler()
    with (
        fresh_process() as ask,
        nullcontext() if version is None else fresh_server() as start,
    ):  # they import while this process does
        if start is None or version is None:
            return _prove_base(ref, store=store, watcher=watch, ask=ask, compiled=compiled)
        sound_files_of(version, store=store)
        return _prove_and_store(version, store=store, watcher=watch, ready=Ready(ask, start), compiled=compiled)


@contextmanager
def soon_to_prove(artefact: str, *, store: Store) -> Iterator[Ready | None]:
    """Inside the block processes make themselves ready for the proofs of a model; None where they have been made already."""
    if finished_stage(store, _key(artefact)) is not None:
        yield None
        return
    with fresh_process() as ask, fresh_server() as start:
        yield Ready(ask, start)


def prove_version(version: ModelVersion, *, store: Store, watcher: Watcher, ready: Ready | None = None) -> Sheet:
    """The stage of a run: prove a version, unless this code has done so on this kind of machine."""
    started = time.monotonic()
    finished = finished_stage(store, _key(version.artefact))
    if finished is None:
        sheet = _prove_and_store(version, store=store, watcher=watcher, ready=ready)
    else:
        sheet = _read(finished)
        if sheet.subject != version.ref:  # another name for the same weights
            store.ledger.record_proof(version, artefact=finished.digest, holds=sheet.holds)
    line = f"{sheet.summary} (tunesmith prove {version.ref})"
    watcher.stage("prove", [line], seconds=time.monotonic() - started, is_cached=finished is not None)
    for proof in sheet.proofs:
        if proof.holds is False:
            watcher.warn(f"not proved: {proof.name}. {proof.compared}")
    return sheet


def stored_sheet(version: ModelVersion, *, store: Store) -> Sheet | None:
    """The newest sheet that is stored with a version; None when it was never proved, or the sheet is gone."""
    digests = _sheets(version, store=store)
    if not digests:
        return None
    try:
        return _read(store.artefacts.get(digests[-1]))
    except (NotFound, BrokenArtefact):  # `doctor` speaks of what is broken; a list of versions is shown all the same
        return None


def _sheets(version: ModelVersion, *, store: Store) -> list[str]:
    """Digests of all sheets of a version, the newest last."""
    return [
        event.because[0]
        for event in store.ledger.events(version.name)
        if event.kind in {"proved", "refuted"} and event.version == version.number
    ]


def _version(ref: str, *, store: Store) -> ModelVersion | None:
    """The version of that name; None when there is none and a base may be meant."""
    try:
        return store.ledger.version(ref)
    except NotFound:
        if "@" in ref and not Path(ref).is_dir():
            raise
        return None


def _require_compiler() -> None:
    from tunesmith.model.compiled import can_compile

    if not can_compile():
        raise UserError(
            "--compiled: there is no C++ compiler on this machine (g++, or what the environment variable CXX names). Install one, "
            "or leave the option out"
        )


def _prove_base(ref: str, *, store: Store, watcher: Watcher, ask: Ask, compiled: bool) -> Sheet:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model import open_base
    from tunesmith.model.load import context_length
    from tunesmith.train import Saved, Subject

    try:
        base = open_base(ref, folder=Path.cwd(), cache=store.cache)
    except NotFound as error:
        raise NotFound(f"{ref!r} is no version here (`tunesmith models` lists them), and no base: {error}") from error
    subject = Subject(
        saved=Saved(folder=base.path, base=None),
        is_tuned=False,
        chat=ChatFormat.load(base.path) if (base.path / "tokenizer.json").is_file() else None,
        records=(),
        max_length=context_length(base.path),
        is_compiled=compiled,
    )
    return _try_all(ref, subject, model=base.digest, watcher=watcher, ask=ask)


def _prove_and_store(
    version: ModelVersion, *, store: Store, watcher: Watcher, ready: Ready | None, compiled: bool = False
) -> Sheet:
    subject = _subject(version, store=store)
    if compiled:
        subject = replace(subject, is_compiled=True)
    contracts: list[Contract] = []
    with nullcontext(ready.start) if ready else fresh_server() as start:
        url = start(subject, ref=version.ref)
        sheet = _try_all(
            version.ref, subject, model=version.artefact, watcher=watcher, ask=ready.ask if ready else None, contracts=contracts
        )
        served = prove_served(url, contracts[0] if contracts else None, ref=version.ref)
    sheet = replace(sheet, proofs=(*sheet.proofs, served))
    with store.artefacts.publish("proof") as staging:
        if contracts:
            write_contract(contracts[0], staging.path)
        (staging.path / _SHEET).write_bytes(orjson.dumps(sheet.as_json(), option=orjson.OPT_INDENT_2))
    store.ledger.record_stage(_key(version.artefact), stage="proof", artefact=staging.artefact.digest)
    store.ledger.record_proof(version, artefact=staging.artefact.digest, holds=sheet.holds)
    return sheet


def contract_for(version: ModelVersion, *, store: Store) -> Contract:
    """What a version says: kept beside its newest sheet, or asked of it now.

    Raises:
        UserError: it has learned no conversation.
    """
    from tunesmith.train import contract_of

    for digest in reversed(_sheets(version, store=store)):
        with suppress(NotFound, BrokenArtefact):
            if (kept := read_contract(store.artefacts.get(digest).path)) is not None:
                return kept
    subject = _subject(version, store=store)
    assert subject.chat is not None
    max_length = subject.context or subject.max_length
    made = contract_of(subject.saved, chat=subject.chat, records=subject.records, max_length=max_length)
    if made is None:
        raise UserError(f"{version.ref} has learned no conversation, so there is no answer to which a server could be held")
    return made


def _subject(version: ModelVersion, *, store: Store) -> Subject:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.train import Saved, Subject, TrainConfig

    folder = files_of(version, store=store).path
    facts = orjson.loads((folder / MODEL_FACTS).read_bytes())
    config = TrainConfig.model_validate(facts["train"])
    return Subject(
        saved=Saved(folder=folder, base=base_of(facts)),
        is_tuned=True,
        chat=ChatFormat.load(folder),
        records=load_split(store, load_snapshot(store, facts["snapshot"]), split="train")[:_NUM_RECORDS],
        max_length=min(facts["max_length"], config.max_length),
        config=config,
        context=facts["max_length"],
        is_compiled=facts.get("is_compiled", False),  # older versions do not say
    )


def _try_all(
    ref: str, subject: Subject, *, model: str, watcher: Watcher, ask: Ask | None, contracts: list[Contract] | None = None
) -> Sheet:
    from tunesmith.train import prove_training

    keep = contracts.append if contracts is not None else lambda _: None
    proofs = prove_training(subject, on_proof=_told(watcher), on_contract=keep, ask=ask)
    return Sheet(subject=ref, model=model, machine=_machine(), proofs=tuple(proofs))


def _told(watcher: Watcher) -> Callable[[Proof], None]:
    num_tried = 0

    def tell(_: Proof) -> None:
        nonlocal num_tried
        num_tried += 1
        watcher.progress("proofs tried", done=num_tried, total=None)

    return tell


def _machine() -> str:
    from tunesmith.model import this_machine

    return str(this_machine())


def _key(artefact: str) -> str:
    return stage_key(
        "proof", inputs={"model": artefact, "machine": _machine()}, rooms=("data", "evaluate", "model", "serve", "train")
    )


def _read(artefact: Artefact) -> Sheet:
    content = orjson.loads((artefact.path / _SHEET).read_bytes())
    proofs = tuple(Proof(**proof) for proof in content["proofs"])
    return Sheet(subject=content["subject"], model=content["model"], machine=content["machine"], proofs=proofs)

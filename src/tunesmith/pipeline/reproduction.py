"""A version trained again from what is stored of it, and compared with what it is.

On the machine that trained it, with the same code and libraries, the weights must come out bit for bit. Where any of these differs, the
weights and the likelihood of held-out rows must lie within a bound. The version, its aliases and its reports stay as they are.
What it takes to get a report again is told by `reproducing.py`.
"""

from __future__ import annotations

import math
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith import __version__
from tunesmith.data import load_snapshot, load_split
from tunesmith.errors import BrokenArtefact, Interrupted, NotFound, UserError
from tunesmith.evaluate.questions import choose_rows
from tunesmith.model.config import ScratchConfig
from tunesmith.pipeline.lineage import LIBRARIES, ROOMS, recipe_of
from tunesmith.pipeline.preparation import lay_out, learn_tokenizer
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.recipe import Recipe
from tunesmith.pipeline.reproducing import library_versions
from tunesmith.pipeline.stages import code_digest, only_one
from tunesmith.pipeline.stopping import asked_to_stop, interruptible
from tunesmith.pipeline.versions import MODEL_FACTS, base_of, find_base, open_artefact
from tunesmith.records import ModelVersion, Record, Snapshot
from tunesmith.store import Artefact, Store, digest_of, sound_files_of

if TYPE_CHECKING:
    from tunesmith.model.machine import Machine
    from tunesmith.train import Job

__all__ = ["LIKELIHOOD_BOUND", "WEIGHTS_BOUND", "Reproduction", "reproduce_version", "stored_reproduction"]

WEIGHTS_BOUND, LIKELIHOOD_BOUND = 0.1, 0.005
"""Relative differences that are let pass on another machine, with other libraries or other code (docs/design/cards.md has measurements)."""
_FILE = "reproduction.json"
_FIGURES = ("weights_difference", "likelihood_then", "likelihood_now")
_MAX_ROWS = 64
"""Held-out rows whose likelihood is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What came of training a version again."""

    ref: str
    expected: str
    """Digest of the version's weights."""
    found: str
    """Digest of the new ones."""
    is_same_chat: bool
    """Whether tokenizer and template came out the same."""
    differs: tuple[str, ...]
    """What of code, libraries and machine is not as it was; none is allowed to matter where this is empty."""
    weights_difference: float
    """Relative, as `weights_difference` gives it."""
    likelihood_then: float | None
    """Nats per token of the held-out rows; None where it was not needed or there are none."""
    likelihood_now: float | None
    num_rows: int
    """Held-out rows that were compared."""

    @property
    def is_exact(self) -> bool:
        """Whether it came out bit for bit."""
        return self.is_same_chat and self.found == self.expected

    @property
    def likelihood_difference(self) -> float | None:
        """Relative to the version's own."""
        if self.likelihood_then is None or self.likelihood_now is None:
            return None
        return abs(self.likelihood_now - self.likelihood_then) / self.likelihood_then if self.likelihood_then else 0.0

    @property
    def holds(self) -> bool:
        """Whether the version is reproduced: bit for bit where nothing differs, within the bounds elsewhere."""
        if self.is_exact or not self.differs:
            return self.is_exact
        return (
            self.is_same_chat
            and self.weights_difference <= WEIGHTS_BOUND
            and (self.likelihood_difference is None or self.likelihood_difference <= LIKELIHOOD_BOUND)
        )

    @property
    def verdict(self) -> str:
        """What came of it, in a sentence."""
        if self.is_exact:
            return f"Reproduced bit for bit: the weights of {self.ref} have the digest {self.expected[:12]} again."
        apart = [f"the weights differ by {self.weights_difference:.2g} (relative; bound {WEIGHTS_BOUND:g})"]
        if self.likelihood_difference is not None:
            apart.append(
                f"the likelihood of {self.num_rows} held-out rows by {self.likelihood_difference:.2g} (bound {LIKELIHOOD_BOUND:g})"
            )
        apart += [] if self.is_same_chat else ["the tokenizer or the chat template came out another"]
        if self.holds:
            return f"Reproduced within the bounds, and not bit for bit: {', '.join(apart)}."
        why = "" if self.differs else ", though code, libraries and machine are the same, so it must be bit for bit"
        return f"Not reproduced: {', '.join(apart)}{why}."

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `--json` and for the store."""
        return {
            "schema": 1,
            "holds": self.holds,
            "is_exact": self.is_exact,
            "verdict": self.verdict,
            **asdict(self),
            **{name: _plain(getattr(self, name)) for name in (*_FIGURES, "likelihood_difference")},
            "bounds": {"weights": WEIGHTS_BOUND, "likelihood": LIKELIHOOD_BOUND},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A version with everything that it takes to train it again."""

    version: ModelVersion
    artefact: Artefact
    facts: Mapping[str, Any]
    recipe: Recipe
    snapshot: Snapshot
    base: Path | None


def reproduce_version(ref: str, *, store: Store, watcher: Watcher | None = None) -> Reproduction:
    """Train a version again from its stored recipe and rows, and compare; no source file is needed.

    Args:
        ref: `boutique@3`, or a name.
        store: the workspace.
        watcher: hears what differs before it starts, and how far it is.

    Raises:
        NotFound: no such version; or its rows are gone.
        UserError: it was registered by a release that kept no recipe, or its recipe is not understood.
        ModelError: its base is gone or has changed.
        BrokenArtefact: what is stored of it is not what was stored.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    watch = watcher or Silent()
    with interruptible():
        stored = _open(store.ledger.version(ref), store=store)
        key = digest_of({"stage": "reproduce", "model": stored.version.artefact, "code": code_digest(ROOMS)})
        folder = store.job_folder(key)
        with only_one(folder):
            found = _train_and_compare(stored, folder=folder, store=store, watcher=watch)
        shutil.rmtree(folder, ignore_errors=True)
        with store.artefacts.publish("reproduction") as staging:
            (staging.path / _FILE).write_bytes(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2))
        store.ledger.record_stage(_record_key(stored.version), stage="reproduction", artefact=staging.artefact.digest)
        return found


def stored_reproduction(version: ModelVersion, *, store: Store) -> Reproduction | None:
    """What came of the last time; None where it was never tried, or what it left is gone."""
    digest = store.ledger.stage(_record_key(version))
    if digest is None:
        return None
    try:
        content = orjson.loads((store.artefacts.get(digest).path / _FILE).read_bytes())
    except (NotFound, BrokenArtefact):  # `doctor` speaks of what is broken
        return None
    known = {field.name: content[field.name] for field in fields(Reproduction)}
    figures = {name: None if known[name] is None else float(known[name]) for name in _FIGURES}
    return Reproduction(**known | figures | {"differs": tuple(known["differs"])})


def _record_key(version: ModelVersion) -> str:
    return digest_of({"stage": "reproduction", "version": version.ref, "model": version.artefact})


def _open(version: ModelVersion, *, store: Store) -> _Stored:
    recipe = recipe_of(version, store=store)
    artefact = sound_files_of(version, store=store)
    if problems := store.artefacts.verify(version.lineage["snapshot"]):
        raise BrokenArtefact(f"{version.ref}: its rows cannot be trusted: {problems[0]}. `tunesmith doctor` says more")
    facts = orjson.loads((artefact.path / MODEL_FACTS).read_bytes())
    return _Stored(
        version=version,
        artefact=artefact,
        facts=facts,
        recipe=recipe,
        snapshot=load_snapshot(store, version.lineage["snapshot"]),
        base=_base(version, facts=facts, store=store),
    )


def _base(version: ModelVersion, *, facts: Mapping[str, Any], store: Store) -> Path | None:
    """Its base; where that is a version, wherever the workspace lies now."""
    parent = version.lineage.get("parent")
    if parent is None:
        return base_of(dict(facts))
    base = find_base(parent, folder=store.root, store=store)
    return base_of({**facts, "base_files": str(base.path)})


def _train_and_compare(stored: _Stored, *, folder: Path, store: Store, watcher: Watcher) -> Reproduction:
    from tunesmith.model import read_weights_digest
    from tunesmith.model.difference import weights_difference

    job, machine = _lay_out(stored, folder=folder, store=store)
    differs = _differences(stored, machine=machine)
    for one in differs:
        watcher.warn(f"not as it was: {one}")
    if differs:
        watcher.warn(
            f"so it need not come out bit for bit: weights within {WEIGHTS_BOUND:g} and likelihood within {LIKELIHOOD_BOUND:g}, "
            "both relative, will do"
        )
    started = time.monotonic()
    out = _train(job, stored=stored, folder=folder, watcher=watcher)
    watcher.stage("train", [f"{stored.version.ref} again"], seconds=time.monotonic() - started, is_cached=False)
    found = read_weights_digest(out)
    rows, then, now = 0, None, None
    if found != stored.version.weights_digest and job.chat.digest == stored.version.chat_digest:
        rows, then, now = _likelihoods(stored, out=out, store=store, watcher=watcher)
    return Reproduction(
        ref=stored.version.ref,
        expected=stored.version.weights_digest,
        found=found,
        is_same_chat=job.chat.digest == stored.version.chat_digest,
        differs=differs,
        weights_difference=0.0 if found == stored.version.weights_digest else weights_difference(stored.artefact.path, out),
        likelihood_then=then,
        likelihood_now=now,
        num_rows=rows,
    )


def _lay_out(stored: _Stored, *, folder: Path, store: Store) -> tuple[Job, Machine]:
    """The job as it was, with what `auto` came to then in place of `auto`."""
    from tunesmith.model.compiled import can_compile

    recipe, lineage = stored.recipe, stored.version.lineage
    settled: dict[str, Any] = {"compile": "always" if stored.facts.get("is_compiled") and can_compile() else "never"}
    if "threads" in lineage:
        settled["threads"] = int(lineage["threads"])
    if lineage.get("machine", "").startswith("cpu "):
        settled["precision"] = "bf16" if lineage["machine"].endswith("bfloat16") else "fp32"
    compute = recipe.train.compute.model_copy(update=settled)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"compute": compute})})
    tokenizer = None
    if isinstance(recipe.base, ScratchConfig):
        tokenizer = _empty(folder / "tokenizer")
        learn_tokenizer(stored.snapshot, vocab_size=recipe.base.vocab_size, store=store, out=tokenizer)
    return lay_out(recipe, snapshot=stored.snapshot, base=stored.base, tokenizer=tokenizer, store=store)


def _differences(stored: _Stored, *, machine: Machine) -> tuple[str, ...]:
    """What is not as it was when the version was trained, in words."""
    lineage = stored.version.lineage
    now = {
        "tunesmith": __version__,
        "python": platform.python_version(),
        **{name: release for name, release in library_versions().items() if name in LIBRARIES},
        "machine": machine.kind,
        "processor": machine.processor,
        "threads": str(machine.num_threads),
    }
    found = [
        f"{name} is {value}, and was {lineage[name]}" if name in lineage else f"{name} is {value}; what it was is not known"
        for name, value in now.items()
        if lineage.get(name) != value and name != "python"  # which decides neither arithmetic nor tokens
    ]
    if lineage.get("code") != code_digest(ROOMS):
        found.append(f"the code of tunesmith ({', '.join(ROOMS)}) is another")
    if stored.facts.get("is_compiled"):
        from tunesmith.model.compiled import can_compile

        found += [] if can_compile() else ["its layers were compiled, and there is no compiler here"]
    return tuple(found)


def _train(job: Job, *, stored: _Stored, folder: Path, watcher: Watcher) -> Path:
    from tunesmith.train import train_job

    out = _empty(folder / "model")
    watcher.begin("train", f"{stored.version.ref} again, from {len(job.train):,} stored rows")
    with asked_to_stop(watcher.stopping) as should_stop:
        try:
            train_job(job, checkpoints=folder, out=out, on_step=watcher.step, should_stop=should_stop)
        except Interrupted as error:
            raise Interrupted(f"{error} Go on with the same command.") from error
        except UserError as error:
            raise UserError(f"{stored.version.ref} cannot be trained again: {error}") from error
    shutil.copyfile(stored.artefact.path / MODEL_FACTS, out / MODEL_FACTS)  # what is read of it to open the model is the same
    return out


def _likelihoods(stored: _Stored, *, out: Path, store: Store, watcher: Watcher) -> tuple[int, float | None, float | None]:
    """Held-out rows, and their nats per token by the version and by the new model."""
    rows = _held_out(stored.snapshot, store=store)
    if not rows:
        return 0, None, None
    watcher.begin("evaluate", f"the likelihood of {len(rows)} held-out rows, then and now")
    again = Artefact(digest="", kind="model", path=out, files={})
    then, now = (_nats_per_token(artefact, ref=stored.version.ref, rows=rows) for artefact in (stored.artefact, again))
    return len(rows), then, now


def _held_out(snapshot: Snapshot, *, store: Store) -> list[Record]:
    """The test rows, at most 64; where there are none, those of validation."""
    split = next((name for name in ("test", "validation") if snapshot.splits.get(name)), None)
    rows = load_split(store, snapshot, split=split) if split else []
    return [rows[place] for place in choose_rows(rows, max_rows=_MAX_ROWS)]


def _nats_per_token(artefact: Artefact, *, ref: str, rows: list[Record]) -> float:
    found = open_artefact(artefact, ref=ref).likelihood(rows)
    return sum(one.nll for one in found) / max(sum(one.num_tokens for one in found), 1)


def _empty(folder: Path) -> Path:
    """A folder with nothing in it, whatever a killed try has left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _plain(number: float | None) -> float | str | None:
    """JSON has no infinity, so what is not finite is written as text."""
    return number if number is None or math.isfinite(number) else str(number)

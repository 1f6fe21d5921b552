"""What `check` and `run` do alike before anything trains: freeze the data, open the base, lay out the job."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data import DataConfig, freeze, load_snapshot, load_split, source_digests
from tunesmith.data.fields import text_and_label
from tunesmith.data.nested import LOWER_RANKED
from tunesmith.data.read import NOT_WANTED
from tunesmith.evaluate.must_not_break import Prompt, read_prompts
from tunesmith.model.config import ScratchConfig
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.recipe import LoadedRecipe, Recipe
from tunesmith.pipeline.servable import serving_warnings
from tunesmith.pipeline.stages import finished_stage, run_stage, stage_key
from tunesmith.records import Record, Snapshot
from tunesmith.store import Store, digest_of, digest_of_file

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model.machine import Machine
    from tunesmith.pipeline.covering import Coverage
    from tunesmith.pipeline.data_kept import KeptReport
    from tunesmith.train import Job

__all__ = ["Prepared", "complete_report", "held_out", "lay_out", "learn_tokenizer", "prepare", "source_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A recipe with its data frozen and its base found."""

    loaded: LoadedRecipe
    snapshot: Snapshot
    store: Store
    job: Job
    base_name: str
    base_digest: str
    base_files: str | None
    """Where the base lies on this machine; None when the model starts from scratch."""
    machine_kind: str
    processor: str
    """What computes: the GPU's name, or the widest instructions that torch uses of this CPU."""
    num_threads: int
    max_length: int
    """The model's context in tokens."""
    report: KeptReport
    """The page that shows what the data is like."""
    must_not_break: tuple[Prompt, ...] = ()
    """The prompts of `evaluate.must_not_break`."""
    must_not_break_digest: str | None = None
    """Sha256 of their file."""

    def records(self, split: str) -> list[Record]:
        """The rows of `train`, `validation` or `test`."""
        return load_split(self.store, self.snapshot, split=split)


def prepare(loaded: LoadedRecipe, *, store: Store, watcher: Watcher) -> Prepared:
    """Freeze the data and open the base.

    Raises:
        UserError: the data or the base cannot be used; nothing was kept.
    """
    from tunesmith.model.load import context_length
    from tunesmith.pipeline.versions import find_base, moves

    recipe = loaded.recipe
    prompts, prompts_digest = _prompts(loaded)
    scratch = recipe.base if isinstance(recipe.base, ScratchConfig) else None
    if scratch is None:
        watcher.begin("base", f"opening {recipe.base}")
    base = find_base(recipe.base, folder=loaded.folder, store=store) if isinstance(recipe.base, str) else None
    for warning in serving_warnings(recipe, base=base.path if base else None):
        watcher.warn(warning)
    if base is not None and (unpinned := moves(base)):
        watcher.warn(unpinned)
    snapshot = _freeze(loaded, store=store, watcher=watcher)
    tokenizer = _tokenizer(snapshot, scratch=scratch, store=store, watcher=watcher) if scratch else None
    job, machine = lay_out(recipe, snapshot=snapshot, base=base.path if base else None, tokenizer=tokenizer, store=store)
    report = _report(
        loaded, snapshot=snapshot, chat=job.chat, tokenizer=base.name if base else "this run", store=store, watcher=watcher
    )
    return Prepared(
        loaded=loaded,
        snapshot=snapshot,
        store=store,
        job=job,
        base_name=base.name if base else "scratch",
        base_digest=base.digest if base else digest_of([loaded.resolved()["base"], job.chat.digest]),
        base_files=str(base.path) if base else None,
        machine_kind=machine.kind,
        processor=machine.processor,
        num_threads=machine.num_threads,
        max_length=scratch.context if scratch else context_length(base.path) if base else 0,
        report=report,
        must_not_break=prompts,
        must_not_break_digest=prompts_digest,
    )


def lay_out(
    recipe: Recipe, *, snapshot: Snapshot, base: Path | None, tokenizer: Path | None, store: Store
) -> tuple[Job, Machine]:
    """The training job of a recipe whose rows are frozen: no source is read, so none needs to be there any more.

    Args:
        recipe: what to train, and how.
        snapshot: its rows.
        base: a checked folder; None where the model starts from scratch.
        tokenizer: the folder of the tokenizer that was learned for it, where there is no base.
        store: where the snapshot lies.

    Returns:
        The job, and what this machine computes it with.
    """
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model import this_machine
    from tunesmith.model.machine import settled_precision
    from tunesmith.train import Job

    names = source_names(recipe.data)
    compute = recipe.train.compute
    precision = settled_precision(compute.precision, file=store.cache / "number-format.json")
    machine = this_machine(precision=precision, num_threads=compute.threads)
    job = Job(
        base=base,
        scratch=recipe.base if isinstance(recipe.base, ScratchConfig) else None,
        chat=ChatFormat.load(base or tokenizer or Path()),
        train=load_split(store, snapshot, split="train"),
        validation=load_split(store, snapshot, split="validation"),
        config=recipe.train.model_copy(update={"compute": compute.model_copy(update={"precision": machine.precision})}),
        learn=recipe.data.learn,
        overlong=recipe.data.overlong,
        mix=recipe.data.mix,
        weights=dict(zip(names, (source.weight for source in recipe.data.sources), strict=True)),
        sources=names,
    )
    return job, machine


def learn_tokenizer(snapshot: Snapshot, *, vocab_size: int, store: Store, out: Path) -> None:
    """Make the tokenizer of a model from scratch, from the training rows alone, in an existing folder."""
    from tunesmith.data.tokenizer import train_tokenizer

    # Role names are part of what the model reads: with them each is one token instead of several.
    texts = (
        text
        for record in load_split(store, snapshot, split="train")
        for text in ([record.text] if record.text is not None else [f"{m.role}\n{m.content}" for m in record.messages])
    )
    train_tokenizer(texts, vocab_size=vocab_size, folder=out)


def _prompts(loaded: LoadedRecipe) -> tuple[tuple[Prompt, ...], str | None]:
    """The prompts that must not break, read before anything trains, and the digest of their file."""
    if (given := loaded.recipe.evaluate.must_not_break) is None:
        return (), None
    path = loaded.folder / given
    return tuple(read_prompts(path)), digest_of_file(path)


def _report(
    loaded: LoadedRecipe, *, snapshot: Snapshot, chat: ChatFormat, tokenizer: str, store: Store, watcher: Watcher
) -> KeptReport:
    """The page that shows what the data is like, for people, as far as it is known before the plan."""
    from tunesmith.pipeline.data_kept import KeptReport
    from tunesmith.pipeline.data_report import chat_tokens

    started = time.monotonic()
    config, train = loaded.resolved()["data"], loaded.resolved()["train"]
    settings = {key: config[key] for key in ("sources", "learn", "overlong", "mix")}
    settings |= {key: train[key] for key in ("max_length", "epochs", "max_steps", "batch_tokens", "seed")}
    report = KeptReport(
        loaded.recipe.name, snapshot=snapshot, store=store, tokens=chat_tokens(chat, name=tokenizer), settings=settings
    )
    is_new = report.begin()
    watcher.stage("report", [str(report.page)], seconds=time.monotonic() - started, is_cached=not is_new)
    return report


def complete_report(
    prepared: Prepared,
    *,
    ledger: Mapping[str, Any] | None,
    sources: Mapping[str, Any] | None,
    watcher: Watcher,
    coverage: Coverage | None = None,
) -> None:
    """Put what is learned of the rows onto the page, and warn of a source of which nothing is.

    Args:
        prepared: the recipe's data and base.
        ledger: of the training rows, as `Ledger.as_json` gives it; None where it was not kept.
        sources: what is read of each source, `Passed` as plain values; None likewise.
        watcher: hears the warning.
        coverage: of the test rows, if it was measured already.
    """
    from tunesmith.pipeline.covering import cover_test

    prepared.report.complete(
        ledger=ledger,
        sources=sources,
        cover=lambda: coverage or cover_test(prepared.job.train, test=prepared.records("test")),
    )
    if unread := [name for name, passed in (sources or {}).items() if not passed["sequences"]]:
        watcher.warn(f"nothing is read of {', '.join(unread)}: no row of it is left to train on, or the mix gives it no place")


def source_names(config: DataConfig) -> tuple[str, ...]:
    """What a recipe's sources are called.

    Each by its path as the recipe writes it, or by the name alone where the path is one of this machine; of several with one name
    the later ones bear a number.
    """
    names: list[str] = []
    for source in config.sources:
        path = Path(source.path)
        plain = path.name if path.is_absolute() or path.parts[:1] == ("~",) else path.as_posix()
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain} ({number})"
        names.append(name)
    return tuple(names)


def held_out(config: DataConfig) -> frozenset[str]:
    """The sources none of whose rows are to be trained on, by name."""
    places = zip(source_names(config), config.sources, strict=True)
    return frozenset(name for name, source in places if source.split in {"validation", "test"})


def _freeze(loaded: LoadedRecipe, *, store: Store, watcher: Watcher) -> Snapshot:
    config = loaded.recipe.data
    inputs = {"data": loaded.resolved()["data"], "files": source_digests(config, folder=loaded.folder)}
    key = stage_key("snapshot", inputs=inputs, rooms=("data",))
    started = time.monotonic()
    finished = finished_stage(store, key)
    if finished is not None:
        snapshot = load_snapshot(store, finished.digest)
    else:
        watcher.begin("data", "reading the sources")
        snapshot = freeze(
            config,
            folder=loaded.folder,
            store=store,
            on_progress=lambda what, done: watcher.progress(what, done=done, total=None),
        )
        store.ledger.record_stage(key, stage="snapshot", artefact=snapshot.id)
    watcher.stage("data", _lines(snapshot), seconds=time.monotonic() - started, is_cached=finished is not None)
    if snapshot.leakage is not None and snapshot.leakage.reason:
        watcher.warn(snapshot.leakage.reason)
    for name, why in snapshot.unread.items():
        watcher.warn(f"nothing of {name} could be read: {why}")
    for name, told in snapshot.formats.items():
        if keys := text_and_label(told):
            watcher.warn(
                f"{name}: `{keys[1]}` is kept beside `{keys[0]}` and not learned: the model only goes on with such texts. "
                f"To have it answer with the label, write map: {{question: {keys[0]}, answer: {keys[1]}}} beside the path"
            )
    return snapshot


def _lines(snapshot: Snapshot) -> list[str]:
    dropped = dict(snapshot.dropped)
    duplicates = sum(dropped.pop(reason) for reason in list(dropped) if reason.endswith("_duplicate"))
    lower_ranked, not_wanted = dropped.pop(LOWER_RANKED, 0), dropped.pop(NOT_WANTED, 0)
    kept = sum(snapshot.splits.values())
    lines = [f"{path}: {found}" for path, found in snapshot.formats.items()]
    others = sum(dropped.values())
    num_bad = others if snapshot.num_bad is None else snapshot.num_bad
    counts = f"{snapshot.num_read:,} rows read · {kept:,} kept · {num_bad:,} quarantined · {duplicates:,} duplicates removed"
    counts += f" · {lower_ranked:,} lower-ranked answers left out" if lower_ranked else ""
    counts += f" · {not_wanted:,} left out by `where`" if not_wanted else ""
    lines.append(counts + (f" · {others - num_bad:,} dropped by cleaning" if others > num_bad else ""))
    if snapshot.leakage is not None:
        lines.append(str(snapshot.leakage))
    lines.append(" · ".join(f"{split} {count:,}" for split, count in snapshot.splits.items()))
    return lines


def _tokenizer(snapshot: Snapshot, *, scratch: ScratchConfig, store: Store, watcher: Watcher) -> Path:
    """A model from scratch needs a tokenizer, trained on the training rows alone."""
    key = stage_key("tokenizer", inputs={"snapshot": snapshot.id, "vocab_size": scratch.vocab_size}, rooms=("data",))
    started = time.monotonic()
    is_cached = finished_stage(store, key) is not None

    def build(out: Path) -> None:
        watcher.begin("tokenizer", f"learning {scratch.vocab_size:,} tokens from the training rows")
        learn_tokenizer(snapshot, vocab_size=scratch.vocab_size, store=store, out=out)

    artefact = run_stage(store, stage="tokenizer", key=key, build=build)
    watcher.stage(
        "tokenizer", [f"byte-level BPE, {scratch.vocab_size:,} tokens"], seconds=time.monotonic() - started, is_cached=is_cached
    )
    return artefact.path

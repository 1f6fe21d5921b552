"""A registered version judged again: beside its base or another version, on its own test rows or on a file; with a page of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data import load_split, read
from tunesmith.data.collect import sources_of
from tunesmith.errors import DataError, UserError
from tunesmith.evaluate import EvaluateConfig, evaluate, from_json, is_better, to_json
from tunesmith.evaluate.questions import question_of
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.evaluating import stored_report
from tunesmith.pipeline.evaluation_page import write_evaluation
from tunesmith.pipeline.evaluation_rows import Learned, contamination_of, labels_of, learned_by, near_rows, tied, unseen
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.reproducing import reproduce
from tunesmith.pipeline.stages import finished_stage, run_stage, stage_key
from tunesmith.pipeline.stopping import interruptible
from tunesmith.pipeline.versions import MODEL_FACTS, open_version
from tunesmith.records import Dropped, ModelVersion, Record, Report
from tunesmith.store import Store, digest_of

__all__ = ["Judged", "compare_refs", "evaluate_ref"]

_BASE = "base"
_SETTINGS = ("metrics", "max_rows", "max_new_tokens", "seed")
"""Of the recipe's `evaluate`, what is used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict, and where it is kept."""

    report: Report
    artefact: str
    """Digest of the stored report."""
    page: Path

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, and where it lies."""
        plain: dict[str, Any] = orjson.loads(to_json(self.report))
        return plain | {"is_better": is_better(self.report), "artefact": self.artefact, "page": str(self.page)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What is to be judged, on what."""

    arms: Mapping[str, ModelVersion | None]
    """By name; None is the base of the subject."""
    subject: str
    baseline: str
    records: Sequence[Record]
    details: Mapping[str, Any]
    labels: Mapping[str, Sequence[str]]
    command: Sequence[str]
    page: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Test rows with what is to be told of them."""

    records: Sequence[Record]
    left_out: Mapping[str, int] = field(default_factory=dict)
    contamination: Mapping[str, Any] = field(default_factory=dict)


def evaluate_ref(
    ref: str,
    *,
    store: Store,
    against: str | None = None,
    data: Path | None = None,
    names: Sequence[str] = (),
    max_rows: int | None = None,
    out: Path | None = None,
    watcher: Watcher | None = None,
) -> Judged:
    """Judge a version on rows that it has not seen.

    Args:
        ref: `boutique@3`, or a name.
        store: the workspace.
        against: what it is compared with: another version, or `base` (the default, where it has one).
        data: a file of rows; None takes the version's own untouched test rows.
        names: which of the file's keys is which, such as `prompt=text`.
        max_rows: rows, at most, for which answers are generated; None takes the recipe's.
        out: where the page is written; None: in the workspace's reports.
        watcher: hears what happens.

    Raises:
        NotFound: no such version, or file.
        DataError: no row is left to judge on, or the file cannot be read.
        UserError: it is compared with itself, or with a base that it has not.
    """
    watch = watcher or Silent()
    with interruptible():
        version = store.ledger.version(ref)
        rival = store.ledger.version(against) if against not in {None, _BASE} else None
        has_base = _facts(version, store=store)["base_files"] is not None
        if rival is not None and rival.artefact == version.artefact:
            raise UserError(f"{rival.ref} and {version.ref} are one and the same model; name another version, or `base`")
        if against == _BASE and not has_base:
            raise UserError(f"{version.ref} started from scratch and has no base. Leave out --against, or name another version")
        named = {rival.ref: rival} if rival else {}
        rows = _rows_for([version, *named.values()], data=data, names=names, store=store, watcher=watch)
        arms: dict[str, ModelVersion | None] = {**({_BASE: None} if has_base else {}), **named, version.ref: version}
        command = ["tunesmith", "evaluate", version.ref]
        command += ["--against", against if rival is None else rival.ref] if against else []
        command += ["--data", str(data)] if data else []
        command += [part for name in names for part in ("--map", name)]
        name = "".join([f"-against-{rival.ref}" if rival else "", f"-on-{data.name.partition('.')[0]}" if data else ""])
        page = out or store.reports / version.ref / f"evaluation{name}.html"
        task = _task(
            rows,
            arms=arms,
            version=version,
            baseline=rival.ref if rival else _BASE,
            command=command,
            page=page,
            store=store,
            watcher=watch,
        )
        return _judge(task, max_rows=max_rows, store=store, watcher=watch)


def compare_refs(
    first: str, second: str, *, store: Store, max_rows: int | None = None, out: Path | None = None, watcher: Watcher | None = None
) -> Judged:
    """Compare two versions on the test rows of both that neither has seen; the verdict is about the second.

    Raises:
        NotFound: no such version.
        DataError: no such row is left.
        UserError: both are one and the same model.
    """
    watch = watcher or Silent()
    with interruptible():
        one, other = store.ledger.version(first), store.ledger.version(second)
        if one.artefact == other.artefact:
            raise UserError(f"{one.ref} and {other.ref} are one and the same model; name two that differ")
        rows = _rows_for([other, one], data=None, store=store, watcher=watch, joins_tests=True)
        page = out or store.reports / other.ref / f"comparison-with-{one.ref}.html"
        command = ["tunesmith", "compare", one.ref, other.ref]
        arms: dict[str, ModelVersion | None] = {one.ref: one, other.ref: other}
        task = _task(rows, arms=arms, version=other, baseline=one.ref, command=command, page=page, store=store, watcher=watch)
        return _judge(task, max_rows=max_rows, store=store, watcher=watch)


def _task(
    rows: _Rows,
    *,
    arms: Mapping[str, ModelVersion | None],
    version: ModelVersion,
    baseline: str,
    command: Sequence[str],
    page: Path,
    store: Store,
    watcher: Watcher,
) -> _Task:
    watcher.begin("evaluate", f"comparing {len(rows.records):,} test rows with the training rows")
    train = learned_by(version.artefact, store=store).train
    return _Task(
        arms=arms,
        subject=version.ref,
        baseline=baseline,
        records=rows.records,
        details={"contamination": rows.contamination, **({"left_out": rows.left_out} if rows.left_out else {})},
        labels=labels_of(rows.records, train=train),
        command=command,
        page=page,
    )


def _rows_for(
    versions: Sequence[ModelVersion],
    *,
    data: Path | None,
    names: Sequence[str] = (),
    store: Store,
    watcher: Watcher,
    joins_tests: bool = False,
) -> _Rows:
    """Rows that none of these versions has seen: of the first one's test rows, of those of all of them, or of a file."""
    learned = {version.ref: learned_by(version.artefact, store=store) for version in versions}
    own = next(iter(learned.values()))
    if data is not None:
        return _file_rows(data, names=names, learned=learned, watcher=watcher)
    tests: dict[str, Record] = {}
    for one in learned.values() if joins_tests else [own]:
        for record in load_split(store, one.snapshot, split="test") if "test" in one.snapshot.splits else []:
            tests.setdefault(record.id, record)
    if not tests:
        raise DataError(
            f"{versions[0].ref} keeps no test rows (data.split.test was 0). Name a file of rows that it has not learned: --data FILE"
        )
    records, left_out = unseen(list(tests.values()), by=learned)
    if not records:
        raise DataError(
            f"{' and '.join(learned)} have seen all {len(tests):,} test rows, so none is left to judge them on. "
            "Name a file of rows that none of them has learned: --data FILE"
        )
    snapshots = {one.snapshot.id for one in learned.values()}
    if joins_tests and len(snapshots) > 1:
        records = tied(records)
    near = {ref: near_rows(records, train=one.train) for ref, one in learned.items()}
    contamination = contamination_of(near[versions[0].ref], num_rows=len(records), snapshot=own.snapshot, are_left_out=False)
    if len(near) > 1:
        contamination["rows that ask nearly what was learned by"] = {ref: len(found) for ref, found in near.items()}
    return _Rows(records=records, left_out=left_out, contamination=contamination)


def _file_rows(data: Path, *, names: Sequence[str], learned: Mapping[str, Learned], watcher: Watcher) -> _Rows:
    """A file's rows without those that are near a training row."""
    (source,) = sources_of([str(data)], names=names)
    reading = read(source, folder=Path())
    rows = list(reading.rows)
    bad = [row for row in rows if isinstance(row, Dropped)]
    records = list({row.id: row for row in rows if isinstance(row, Record)}.values())
    if bad:
        watcher.warn(f"{len(bad):,} of {len(rows):,} rows of {data} cannot be used, the first: {bad[0].source}  {bad[0].detail}")
    if not records:
        raise DataError(
            f"{data} has no row that can be asked" + (f"; the first: {bad[0].source}  {bad[0].detail}" if bad else "")
        )
    answers = any(record.messages for one in learned.values() for record in one.train)
    if answers and not any(map(question_of, records)):
        raise DataError(
            f"{data} was read as {'; '.join(reading.formats.values())}, so there is nothing to ask, but {next(iter(learned))} has learned "
            "to answer. Say which key is the question and which the answer: --map prompt=KEY --map completion=KEY"
        )
    left_out = {"unusable": len(bad)} if bad else {}
    if repeated := len(rows) - len(bad) - len(records):
        left_out["repeated"] = repeated
    kept, seen = unseen(records, by=learned)
    found = []
    for ref, one in learned.items():
        near = near_rows(kept, train=one.train)
        found += near
        ids = {row.test.id for row in near}
        if ids:
            seen[f"near a training row of {ref}"] = len(ids)
        kept = [record for record in kept if record.id not in ids]
    if not kept:
        raise DataError(
            f"none of the {len(records):,} rows of {data} is new: {', '.join(f'{n:,} {why}' for why, n in seen.items())}"
        )
    own = next(iter(learned.values()))
    contamination = contamination_of(found, num_rows=len(records), snapshot=own.snapshot, are_left_out=True)
    if seen:
        watcher.warn(f"contaminated rows of {data} are left out: {', '.join(f'{n:,} {why}' for why, n in seen.items())}")
    return _Rows(records=tied(kept), left_out=left_out | seen, contamination=contamination)


def _judge(task: _Task, *, max_rows: int | None, store: Store, watcher: Watcher) -> Judged:
    """Build the report, or find the one that equal inputs have given before; write the page."""
    version = next(one for name, one in task.arms.items() if name == task.subject and one is not None)
    config = _config(version, store=store)
    config = config.model_copy(update={"max_rows": max_rows}) if max_rows is not None else config
    models = {name: one.artefact if one else _BASE for name, one in task.arms.items()}
    command = [*task.command, *(["--max-rows", str(max_rows)] if max_rows is not None else [])]
    details = {**task.details, "reproduce": reproduce(task.records, config=config, models=models, command=command)}
    key = stage_key(
        "evaluate",
        inputs={"details": digest_of(details), "labels": digest_of(dict(task.labels))},
        rooms=("data", "model", "evaluate"),
    )
    started, is_cached = time.monotonic(), finished_stage(store, key) is not None

    def build(folder: Path) -> None:
        watcher.begin("evaluate", f"{len(task.records):,} test rows: opening {', '.join(task.arms)}")
        arms = _open(task, store=store, config=config)
        report = evaluate(
            task.records,
            arms=arms,
            config=config,
            baseline=task.baseline,
            subject=task.subject,
            labels=task.labels,
            details=details,
            on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
        )
        (folder / "report.json").write_bytes(to_json(report))
        for name, arm in arms.items():
            if arm.num_cut_prompts:
                watcher.warn(
                    f"{arm.num_cut_prompts:,} test questions are longer than the context of {name}, {arm.max_length:,} tokens, and lost "
                    "their beginning"
                )

    artefact = run_stage(store, stage="report", key=key, build=build)
    report = from_json((artefact.path / "report.json").read_bytes())
    title = f"{task.subject} beside {task.baseline}" if task.baseline in task.arms else task.subject
    write_evaluation(report, title=title, html=task.page)
    watcher.stage("evaluate", [report.verdict], seconds=time.monotonic() - started, is_cached=is_cached)
    return Judged(report=report, artefact=artefact.digest, page=task.page)


def _open(task: _Task, *, store: Store, config: EvaluateConfig) -> dict[str, ChatModel]:
    opened = {
        name: open_version(version.ref, store=store, max_new_tokens=config.max_new_tokens)
        for name, version in task.arms.items()
        if version is not None
    }
    return {name: opened[name] if name in opened else opened[task.subject].base() for name in task.arms}


def _config(version: ModelVersion, *, store: Store) -> EvaluateConfig:
    """What the version was judged by when it was made; the defaults where that is not known."""
    report = stored_report(version, store=store)
    kept = report.details.get("reproduce", {}).get("evaluate", {}) if report else {}
    return EvaluateConfig.model_validate({name: kept[name] for name in _SETTINGS if name in kept})


def _facts(version: ModelVersion, *, store: Store) -> dict[str, Any]:
    facts: dict[str, Any] = orjson.loads((store.artefacts.get(version.artefact).path / MODEL_FACTS).read_bytes())
    return facts

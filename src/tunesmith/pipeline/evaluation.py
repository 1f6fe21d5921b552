"""A registered version judged again: beside its base or another version, on its own test rows or on a file; with a page of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data import load_split
from tunesmith.data.writing import check_outputs
from tunesmith.errors import DataError, UserError
from tunesmith.evaluate import EvaluateConfig, evaluate, from_json, is_better, to_json
from tunesmith.evaluate.codec import digest_report
from tunesmith.evaluate.questions import question_of
from tunesmith.pipeline.arms import Arms, build_arms, meter_of, require_keys
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.evaluation_file import FileRows, read_file
from tunesmith.pipeline.evaluation_page import write_evaluation
from tunesmith.pipeline.evaluation_rows import Learned, contamination_of, labels_of, learned_by, near_rows, tied, unseen
from tunesmith.pipeline.judged_by import Judging, judged_by
from tunesmith.pipeline.lineage import stored_recipe
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.reproducing import reproduce
from tunesmith.pipeline.stages import finished_stage, run_stage, stage_key
from tunesmith.pipeline.stopping import interruptible
from tunesmith.pipeline.versions import MODEL_FACTS, open_version
from tunesmith.records import Dropped, ModelVersion, Record, Report
from tunesmith.store import Store, digest_of, files_of

__all__ = ["Judged", "compare_refs", "evaluate_ref"]

_BASE = "base"


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
    judging: Judging
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
    arms: Sequence[str] = (),
    max_rows: int | None = None,
    out: Path | None = None,
    watcher: Watcher | None = None,
) -> Judged:
    """Judge a version on rows that it has not seen, by what its recipe said.

    Args:
        ref: `boutique@3`, or a name.
        store: the workspace.
        against: what it is compared with: another version, or `base` (the default, where it has one).
        data: a file of rows; None takes the version's own untouched test rows.
        names: which of the file's keys is which, such as `prompt=text`.
        arms: what else to ask: `few_shot`, `instruction`, `tuned_few_shot`, endpoints of its recipe by name; or `recipe`, all of its arms.
        max_rows: rows, at most, for which answers are generated; None takes the recipe's.
        out: where the page is written; None: in the workspace's reports.
        watcher: hears what happens.

    Raises:
        NotFound: no such version, or file.
        DataError: no row is left to judge on, or the file cannot be read.
        UserError: it is compared with itself, or with a base that it has not; an arm cannot be asked; or the page would replace the rows.
        EndpointError: an endpoint's key is not set, or it fails; what it has answered is kept.
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
        judging = judged_by(version, store=store, arms=arms, has_base=has_base, warn=watch.warn)
        require_keys(judging.config)
        name = _page_name(rival=rival.ref if rival else None, data=data, has_arms=bool(arms))
        page = _checked(out or store.reports / version.ref / name, data=data)
        rows = _rows_for([version, *named.values()], data=data, names=names, store=store, watcher=watch)
        judged: dict[str, ModelVersion | None] = {**({_BASE: None} if has_base else {}), **named, version.ref: version}
        command = _command(version.ref, against=rival.ref if rival is not None else against, data=data, names=names, arms=arms)
        task = _task(
            rows,
            arms=judged,
            version=version,
            judging=judging,
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
    """Compare two versions on the test rows of both that neither has seen; the verdict is about the second, by what its recipe said.

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
        page = _checked(out or store.reports / other.ref / f"comparison-with-{one.ref}.html")
        rows = _rows_for([other, one], data=None, store=store, watcher=watch, joins_tests=True)
        command = ["tunesmith", "compare", one.ref, other.ref]
        arms: dict[str, ModelVersion | None] = {one.ref: one, other.ref: other}
        judging = judged_by(other, store=store, has_base=False, warn=watch.warn)
        task = _task(
            rows,
            arms=arms,
            version=other,
            judging=judging,
            baseline=one.ref,
            command=command,
            page=page,
            store=store,
            watcher=watch,
        )
        return _judge(task, max_rows=max_rows, store=store, watcher=watch)


def _command(ref: str, *, against: str | None, data: Path | None, names: Sequence[str], arms: Sequence[str]) -> list[str]:
    command = ["tunesmith", "evaluate", ref]
    command += ["--against", against] if against else []
    command += ["--data", str(data)] if data else []
    command += [part for name in names for part in ("--map", name)]
    return command + (["--arms", ",".join(arms)] if arms else [])


def _page_name(*, rival: str | None, data: Path | None, has_arms: bool) -> str:
    parts = [f"-against-{rival}" if rival else "", f"-on-{data.name.partition('.')[0]}" if data else ""]
    return f"evaluation{''.join(parts)}{'-with-arms' if has_arms else ''}.html"


def _checked(page: Path, *, data: Path | None = None) -> Path:
    """Where the page goes, which is not where the rows are, nor where its figures go."""
    outputs = [("--out", page), ("the figures beside --out", page.with_suffix(".json"))]
    check_outputs(outputs, sources=[data] if data else [])
    return page


def _task(
    rows: _Rows,
    *,
    arms: Mapping[str, ModelVersion | None],
    version: ModelVersion,
    judging: Judging,
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
        judging=judging,
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
        file = read_file(data, names=names, recipe=stored_recipe(versions[0], store=store), warn=watcher.warn)
        return _file_rows(data, file, learned=learned, watcher=watcher)
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


def _file_rows(data: Path, file: FileRows, *, learned: Mapping[str, Learned], watcher: Watcher) -> _Rows:
    """A file's rows without those that are near a training row."""
    rows = file.rows
    bad = [row for row in rows if isinstance(row, Dropped)]
    records = list({row.id: row for row in file.records}.values())
    if bad:
        watcher.warn(f"{len(bad):,} of {len(rows):,} rows of {data} cannot be used, the first: {bad[0].source}  {bad[0].detail}")
    if not records:
        raise DataError(
            f"{data} has no row that can be asked" + (f"; the first: {bad[0].source}  {bad[0].detail}" if bad else "")
        )
    answers = any(record.messages for one in learned.values() for record in one.train)
    if answers and not any(map(question_of, records)):
        raise DataError(
            f"{data} was read as {'; '.join(file.formats)}, so there is nothing to ask, but {next(iter(learned))} has learned "
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
    config, sheets = task.judging.config, task.judging.sheets
    config = config.model_copy(update={"max_rows": max_rows}) if max_rows is not None else config
    models = {name: one.artefact if one else _BASE for name, one in task.arms.items()}
    command = [*task.command, *(["--max-rows", str(max_rows)] if max_rows is not None else [])]
    details = {**task.details, "reproduce": reproduce(task.records, config=config, models=models, command=command)}
    key = stage_key(
        "evaluate",
        inputs={"details": digest_of(details), "labels": digest_of(dict(task.labels)), "sheets": sheets.digest},
        rooms=("data", "model", "evaluate"),
    )
    started, is_cached = time.monotonic(), finished_stage(store, key) is not None

    def build(folder: Path) -> None:
        watcher.begin("evaluate", f"{len(task.records):,} test rows: opening {', '.join(task.arms)}")
        arms = _open(task, store=store, config=config)
        others = _others(task, opened=arms, config=config, store=store, watcher=watcher)
        report = evaluate(
            task.records,
            arms={**arms, **others.prompted, **others.tuned, **others.endpoints},
            config=config,
            baseline=task.baseline,
            subject=task.subject,
            prompted=[*others.prompted, *others.endpoints],
            metrics=sheets.metrics(config),
            labels=task.labels,
            details=details | ({"prompts": others.details} if others.details else {}),
            meter=meter_of(config, training_s=None) if config.arms or config.endpoints else None,
            on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
        )
        if reused := others.reused():
            report = replace(report, details={**report.details, "kept answers": reused})
            report = replace(report, id=digest_report(report))
        (folder / "report.json").write_bytes(to_json(report))
        for said in others.in_words():
            watcher.warn(said)
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


def _others(task: _Task, *, opened: Mapping[str, ChatModel], config: EvaluateConfig, store: Store, watcher: Watcher) -> Arms:
    """The arms that were asked for: examples are training rows of the subject, prompts are chosen on its validation rows."""
    version = task.arms[task.subject]
    if version is None or not (config.arms or config.endpoints):
        return Arms()
    learned = learned_by(version.artefact, store=store)
    splits = learned.snapshot.splits
    others = build_arms(
        config,
        tuned=opened[task.subject],
        base=opened.get(_BASE),
        train=list(learned.train),
        validation=load_split(store, learned.snapshot, split="validation") if "validation" in splits else [],
        test=list(task.records),
        sheets=task.judging.sheets,
        answers=store.answers,
        warn=watcher.warn,
        on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
    )
    named = {name: name.replace("tuned", task.subject, 1) for name in others.tuned}
    others.tuned = {named[name]: arm for name, arm in others.tuned.items()}
    others.details = {named.get(name, name): found for name, found in others.details.items()}
    return others


def _facts(version: ModelVersion, *, store: Store) -> dict[str, Any]:
    facts: dict[str, Any] = orjson.loads((files_of(version, store=store).path / MODEL_FACTS).read_bytes())
    return facts

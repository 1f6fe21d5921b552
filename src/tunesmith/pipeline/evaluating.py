"""A version judged on untouched rows, beside its base and the champion; the report is a stage of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from tunesmith.data import load_snapshot, load_split
from tunesmith.evaluate import Answering, evaluate, from_json, to_json
from tunesmith.evaluate.asked_once import AskedOnce
from tunesmith.evaluate.codec import digest_report
from tunesmith.evaluate.forgetting import forgetting_in_words
from tunesmith.pipeline.arms import Arms, Sheets, build_arms, meter_of, read_sheets
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.preparation import Prepared
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.promoting import CHAMPION
from tunesmith.pipeline.safety import safety_details, safety_warnings
from tunesmith.pipeline.stages import run_stage, stage_key
from tunesmith.pipeline.versions import MODEL_FACTS, open_artefact, open_version
from tunesmith.records import ModelVersion, Record, Report, Score
from tunesmith.store import Artefact, Store

__all__ = ["evaluate_version", "stored_report"]


def evaluate_version(
    prepared: Prepared, *, trained: Artefact, store: Store, watcher: Watcher, training_s: float | None = None
) -> tuple[Artefact | None, Report | None]:
    """Base, champion, tuned and the other arms of the recipe on the same untouched test rows.

    Args:
        prepared: the recipe's data and base.
        trained: the model to judge.
        store: the workspace.
        watcher: hears how far it is.
        training_s: seconds that the training took, to say when they have paid off.
    """
    records = prepared.records("test")
    if not records:
        watcher.warn("no test rows (data.split.test is 0): the version is registered without a verdict")
        return None, None
    name = prepared.loaded.recipe.name
    rival = _rival(name, trained=trained, records=records, store=store, watcher=watcher)
    config = prepared.loaded.recipe.evaluate
    sheets = read_sheets(config, folder=prepared.loaded.folder)
    key = stage_key(
        "evaluate",
        inputs={
            "model": trained.digest,
            "snapshot": prepared.snapshot.id,
            "evaluate": prepared.loaded.resolved()["evaluate"],
            "champion": rival.artefact if rival else None,
            "sheets": sheets.digest,
            "must_not_break": prepared.must_not_break_digest,
        },
        rooms=("data", "model", "evaluate"),
    )
    started = time.monotonic()

    def build(out: Path) -> None:
        tuned = open_artefact(trained, ref="tuned", max_new_tokens=config.max_new_tokens)
        base = tuned.base() if prepared.job.base is not None else None
        arms = {"base": AskedOnce(base)} if base is not None else {}
        if rival is not None:
            arms["champion"] = AskedOnce(open_version(rival.ref, store=store, max_new_tokens=config.max_new_tokens))
        arms["tuned"] = AskedOnce(tuned)
        others = _others(prepared, tuned=tuned, base=base, test=records, sheets=sheets, watcher=watcher)
        report = evaluate(
            records,
            arms=_in_order(arms, others),
            config=config,
            prompted=[*others.prompted, *others.endpoints],
            metrics=sheets.metrics(config),
            details={"prompts": others.details},
            meter=meter_of(config, training_s=training_s),
            on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
        )
        for shortened in [*others.in_words(), *_cut_in_words(tuned, num_rows=len(records))]:
            watcher.warn(shortened)
        (out / "report.json").write_bytes(to_json(_complete(report, prepared=prepared, arms=arms, watcher=watcher)))

    artefact = run_stage(store, stage="report", key=key, build=build)
    report = from_json((artefact.path / "report.json").read_bytes())
    watcher.stage("evaluate", [report.verdict], seconds=time.monotonic() - started, is_cached=False)
    return artefact, report


def _in_order(arms: Mapping[str, Answering], others: Arms) -> dict[str, Answering]:
    """The tuned model stands after the base and its prompts."""
    return {**{name: arm for name, arm in arms.items() if name != "tuned"}, **others.prompted, "tuned": arms["tuned"]} | (
        others.tuned | others.endpoints
    )


def _cut_in_words(tuned: ChatModel, *, num_rows: int) -> list[str]:
    if not tuned.num_cut_prompts:
        return []
    return [
        f"{tuned.num_cut_prompts} of {num_rows} test questions are longer than the model's context of "
        f"{tuned.max_length} tokens and lost their beginning"
    ]


def _others(
    prepared: Prepared, *, tuned: ChatModel, base: ChatModel | None, test: Sequence[Record], sheets: Sheets, watcher: Watcher
) -> Arms:
    for endpoint in prepared.loaded.recipe.evaluate.endpoints:
        watcher.progress(f"asking {endpoint.name} at {endpoint.url}", done=0, total=None)
    return build_arms(
        prepared.loaded.recipe.evaluate,
        tuned=tuned,
        base=base,
        train=prepared.records("train"),
        validation=prepared.records("validation"),
        test=list(test),
        sheets=sheets,
        warn=watcher.warn,
        on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
    )


def _complete(report: Report, *, prepared: Prepared, arms: Mapping[str, AskedOnce], watcher: Watcher) -> Report:
    """The report with what the same answers say of safety, and with the differences to the champion."""
    test, config = prepared.records("test"), prepared.loaded.recipe.evaluate
    watcher.begin("evaluate", "general text, prompts that must not break, verbatim answers")
    safety = safety_details(
        arms["tuned"],
        arms.get("base"),
        train=prepared.job.train,
        test=test,
        answers=report.samples,
        config=config,
        prompts=prepared.must_not_break,
    )
    for warning in safety_warnings(safety):
        watcher.warn(warning)
    details = {**report.details, "safety": safety}
    if "champion" in arms:
        rivals = {name: arms[name] for name in ("champion", "tuned")}
        beside = evaluate(test, arms=rivals, config=config, baseline="champion").differences.get("tuned", {})
        details[CHAMPION] = {"differences": {metric: _plain(score) for metric, score in beside.items()}}
    verdict = " ".join(filter(None, (report.verdict, forgetting_in_words(details))))
    report = replace(report, details=details, verdict=verdict)
    return replace(report, id=digest_report(report))


def _plain(score: Score) -> dict[str, float | str]:
    """A score as plain values; JSON has no infinity, so what is not finite is written as text."""
    numbers = {name: getattr(score, name) for name in ("value", "low", "high", "p_value", "p_adjusted")}
    return {name: n if math.isfinite(n) else str(n) for name, n in numbers.items() if n is not None}


def stored_report(version: ModelVersion, *, store: Store) -> Report | None:
    """The report with which a version was registered; None where it had no test rows."""
    if not version.reports:
        return None
    return from_json((store.artefacts.get(version.reports[-1]).path / "report.json").read_bytes())


def _rival(name: str, *, trained: Artefact, records: Sequence[Record], store: Store, watcher: Watcher) -> ModelVersion | None:
    """The champion, if it can be compared fairly: one that has learned some of these test rows would win by memory."""
    champion = store.ledger.deployment(name, "champion")
    if champion is None:
        return None
    rival = store.ledger.version(f"{name}@{champion.version}")
    if rival.artefact == trained.digest:
        return None
    facts = orjson.loads((store.artefacts.get(rival.artefact).path / MODEL_FACTS).read_bytes())
    snapshot = load_snapshot(store, facts["snapshot"])
    learned = {record.id for record in load_split(store, snapshot, split="train")}
    if known := sum(record.id in learned for record in records):
        watcher.warn(
            f"the champion {rival.ref} has learned {known} of these {len(records)} test rows, so the two are not compared, and it "
            "stays champion. `promote: always` in the recipe makes the new version champion all the same"
        )
        return None
    return rival

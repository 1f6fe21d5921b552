"""A version judged on untouched rows, beside its base and the champion; the report is a stage of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from tunesmith.evaluate import Answering, evaluate, from_json, to_json
from tunesmith.evaluate.asked_once import AskedOnce
from tunesmith.evaluate.bootstrap import MIN_CLUSTERS
from tunesmith.evaluate.codec import digest_report
from tunesmith.evaluate.forgetting import forgetting_in_words
from tunesmith.evaluate.questions import cluster_ids
from tunesmith.pipeline.arms import Arms, Sheets, build_arms, meter_of, read_sheets
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.evaluation_rows import contamination_of, labels_of, learned_by, near_rows, unseen
from tunesmith.pipeline.preparation import Prepared
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.promoting import CHAMPION
from tunesmith.pipeline.reproducing import reproduce
from tunesmith.pipeline.safety import safety_details, safety_warnings
from tunesmith.pipeline.soft_prompt import SoftPrompt, trained_soft_prompt
from tunesmith.pipeline.stages import run_stage, stage_key
from tunesmith.pipeline.versions import open_artefact, open_version
from tunesmith.records import ModelVersion, Record, Report, Score
from tunesmith.store import Artefact, Store

__all__ = ["SHEETS", "evaluate_version", "stored_report"]

SHEETS = "sheets.json"
"""Beside a report: the texts that it rests on, so that the version can be judged by them again."""


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
    rival, records, left_out = _rival(name, trained=trained, records=records, store=store, watcher=watcher)
    config = prepared.loaded.recipe.evaluate
    sheets = read_sheets(config, folder=prepared.loaded.folder)
    key = _key(prepared, trained=trained, rival=rival, sheets=sheets)
    started = time.monotonic()

    def build(out: Path) -> None:
        soft_prompt = trained_soft_prompt(prepared, store=store, watcher=watcher)  # before two models lie in the memory
        watcher.begin("evaluate", f"comparing {len(records):,} test rows with the training rows")
        tuned = open_artefact(trained, ref="tuned", max_new_tokens=config.max_new_tokens)
        base = tuned.base() if prepared.job.base is not None else None
        arms = {"base": AskedOnce(base)} if base is not None else {}
        if rival is not None:
            arms["champion"] = AskedOnce(open_version(rival.ref, store=store, max_new_tokens=config.max_new_tokens))
        arms["tuned"] = AskedOnce(tuned)
        others = _others(
            prepared, tuned=tuned, base=base, test=records, sheets=sheets, store=store, soft_prompt=soft_prompt, watcher=watcher
        )
        report = evaluate(
            records,
            arms=_in_order(arms, others),
            config=config,
            prompted=[*others.prompted, *others.endpoints],
            metrics=sheets.metrics(config),
            labels=labels_of(records, train=prepared.job.train),
            details=_details(prepared, trained=trained, rival=rival, records=records, left_out=left_out)
            | {"prompts": others.details},
            meter=meter_of(config, training_s=training_s),
            on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
        )
        if reused := others.reused():
            report = replace(report, details={**report.details, "kept answers": reused})
        for shortened in [*others.in_words(), *_cut_in_words(tuned, num_rows=len(records))]:
            watcher.warn(shortened)
        (out / SHEETS).write_bytes(orjson.dumps(sheets.as_json(config), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        (out / "report.json").write_bytes(to_json(_complete(report, prepared=prepared, test=records, arms=arms, watcher=watcher)))

    artefact = run_stage(store, stage="report", key=key, build=build)
    report = from_json((artefact.path / "report.json").read_bytes())
    watcher.stage("evaluate", [report.verdict], seconds=time.monotonic() - started, is_cached=False)
    return artefact, report


def _key(prepared: Prepared, *, trained: Artefact, rival: ModelVersion | None, sheets: Sheets) -> str:
    return stage_key(
        "evaluate",
        inputs={
            "model": trained.digest,
            "snapshot": prepared.snapshot.id,
            "evaluate": prepared.loaded.resolved()["evaluate"],
            "champion": rival.artefact if rival else None,
            "sheets": sheets.digest,
            "must_not_break": prepared.must_not_break_digest,
        },
        rooms=("data", "model", "evaluate", *(["train"] if "soft_prompt" in prepared.loaded.recipe.evaluate.arms else [])),
    )


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
    prepared: Prepared,
    *,
    tuned: ChatModel,
    base: ChatModel | None,
    test: Sequence[Record],
    sheets: Sheets,
    store: Store,
    soft_prompt: SoftPrompt | None,
    watcher: Watcher,
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
        answers=store.answers,
        soft_prompt=soft_prompt,
        warn=watcher.warn,
        on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
    )


def _complete(
    report: Report, *, prepared: Prepared, test: Sequence[Record], arms: Mapping[str, AskedOnce], watcher: Watcher
) -> Report:
    """The report with what the same answers say of safety, and with the differences to the champion."""
    config = prepared.loaded.recipe.evaluate
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


def _details(
    prepared: Prepared, *, trained: Artefact, rival: ModelVersion | None, records: Sequence[Record], left_out: Mapping[str, int]
) -> dict[str, Any]:
    """What the report keeps beside its scores."""
    models = {"base": prepared.base_digest, **({"champion": rival.artefact} if rival else {}), "tuned": trained.digest}
    near = near_rows(records, train=prepared.job.train)
    command = ["tunesmith", "run", prepared.loaded.path.name]
    config = prepared.loaded.recipe.evaluate
    return {
        "contamination": contamination_of(near, num_rows=len(records), snapshot=prepared.snapshot, are_left_out=False),
        "reproduce": {"snapshot": prepared.snapshot.id} | reproduce(records, config=config, models=models, command=command),
        **({"left_out": dict(left_out)} if left_out else {}),
    }


def _rival(
    name: str, *, trained: Artefact, records: list[Record], store: Store, watcher: Watcher
) -> tuple[ModelVersion | None, list[Record], dict[str, int]]:
    """The champion, and the rows on which it can be compared fairly: it would win by memory on those that it has seen.

    Returns:
        The champion or None; the rows to judge on; how many were left out, by reason.
    """
    champion = store.ledger.deployment(name, "champion")
    if champion is None:
        return None, records, {}
    rival = store.ledger.version(f"{name}@{champion.version}")
    if rival.artefact == trained.digest:
        return None, records, {}
    kept, left_out = unseen(records, by={rival.ref: learned_by(rival.artefact, store=store)})
    num_clusters = len(set(cluster_ids(kept).tolist()))
    if left_out and num_clusters < MIN_CLUSTERS:
        watcher.warn(
            f"the champion {rival.ref} has seen {len(records) - len(kept):,} of these {len(records):,} test rows in training. The others "
            f"stand in {num_clusters} clusters, and a comparison needs {MIN_CLUSTERS}: the two are not compared, and it stays champion. "
            "`promote: always` in the recipe makes the new version champion all the same"
        )
        return None, records, {}
    if left_out:
        watcher.warn(
            f"the champion {rival.ref} has seen {len(records) - len(kept):,} of these {len(records):,} test rows in training; all arms "
            f"are judged on the other {len(kept):,}"
        )
    return rival, kept, left_out

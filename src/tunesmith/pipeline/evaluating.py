"""A version judged on untouched rows, beside its base and the champion; the report is a stage of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from tunesmith.data import load_snapshot, load_split
from tunesmith.evaluate import Arm, evaluate, from_json, to_json
from tunesmith.pipeline.preparation import Prepared
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.stages import run_stage, stage_key
from tunesmith.pipeline.versions import MODEL_FACTS, open_artefact, open_version
from tunesmith.records import ModelVersion, Record, Report
from tunesmith.store import Artefact, Store

__all__ = ["evaluate_version", "stored_report"]


def evaluate_version(
    prepared: Prepared, *, trained: Artefact, store: Store, watcher: Watcher
) -> tuple[Artefact | None, Report | None]:
    """Base, champion and tuned on the same untouched test rows."""
    records = prepared.records("test")
    if not records:
        watcher.warn("no test rows (data.split.test is 0): the version is registered without a verdict")
        return None, None
    name = prepared.loaded.recipe.name
    rival = _rival(name, trained=trained, records=records, store=store, watcher=watcher)
    config = prepared.loaded.recipe.evaluate
    key = stage_key(
        "evaluate",
        inputs={
            "model": trained.digest,
            "snapshot": prepared.snapshot.id,
            "evaluate": prepared.loaded.resolved()["evaluate"],
            "champion": rival.artefact if rival else None,
        },
        rooms=("data", "model", "evaluate"),
    )
    started = time.monotonic()

    def build(out: Path) -> None:
        arms: dict[str, Arm] = {}
        tuned = open_artefact(trained, ref="tuned", max_new_tokens=config.max_new_tokens)
        if prepared.job.base is not None:
            arms["base"] = tuned.base()
        if rival is not None:
            arms["champion"] = open_version(rival.ref, store=store, max_new_tokens=config.max_new_tokens)
        arms["tuned"] = tuned
        report = evaluate(
            records,
            arms=arms,
            config=config,
            on_progress=lambda what, done, total: watcher.progress(what, done=done, total=total),
        )
        if tuned.num_cut_prompts:
            watcher.warn(
                f"{tuned.num_cut_prompts} of {len(records)} test questions are longer than the model's context of "
                f"{tuned.max_length} tokens and lost their beginning"
            )
        (out / "report.json").write_bytes(to_json(report))

    artefact = run_stage(store, stage="report", key=key, build=build)
    report = from_json((artefact.path / "report.json").read_bytes())
    watcher.stage("evaluate", [report.verdict], seconds=time.monotonic() - started, is_cached=False)
    return artefact, report


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

"""A version judged on untouched rows, beside its base and the champion; the report is a stage of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.evaluate import Arm, evaluate, from_json, to_json
from tunesmith.evaluate.bootstrap import MIN_CLUSTERS
from tunesmith.evaluate.questions import cluster_ids
from tunesmith.pipeline.evaluation_rows import contamination_of, labels_of, learned_by, near_rows, unseen
from tunesmith.pipeline.preparation import Prepared
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.reproducing import reproduce
from tunesmith.pipeline.stages import run_stage, stage_key
from tunesmith.pipeline.versions import open_artefact, open_version
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
    rival, records, left_out = _rival(name, trained=trained, records=records, store=store, watcher=watcher)
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
        watcher.begin("evaluate", f"comparing {len(records):,} test rows with the training rows")
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
            labels=labels_of(records, train=prepared.job.train),
            details=_details(prepared, trained=trained, rival=rival, records=records, left_out=left_out),
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

"""The whole job: a recipe in, a registered and evaluated version out, as a chain of stages that are never done twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data import load_snapshot, load_split
from tunesmith.errors import Interrupted
from tunesmith.evaluate import Arm, evaluate, from_json, is_better, to_json
from tunesmith.pipeline.preparation import Prepared, prepare
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.proving import prove_version
from tunesmith.pipeline.recipe import LoadedRecipe
from tunesmith.pipeline.stages import finished_stage, only_one, run_stage, stage_key
from tunesmith.pipeline.versions import MODEL_FACTS, open_artefact, open_version
from tunesmith.records import ModelVersion, Record, Report
from tunesmith.store import Artefact, Store, digest_of

__all__ = ["Finished", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a run leaves behind."""

    version: ModelVersion
    report: Report | None
    """None when the recipe keeps no test rows."""
    aliases: tuple[str, ...]
    is_new: bool
    """False when everything had been done before."""


def run(loaded: LoadedRecipe, *, store: Store, watcher: Watcher | None = None) -> Finished:
    """Do whatever of a recipe is not done yet.

    Args:
        loaded: a checked recipe.
        store: the workspace.
        watcher: hears what happens.

    Raises:
        UserError: data, base or recipe cannot be used; the store is as it was.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    watch = watcher or Silent()
    prepared = prepare(loaded, store=store, watcher=watch)
    trained = _train(prepared, store=store, watcher=watch)
    run_id = digest_of(
        {
            "name": loaded.recipe.name,
            "model": trained.digest,
            "evaluate": loaded.resolved()["evaluate"],
            "snapshot": prepared.snapshot.id,
        }
    )
    version = next((v for v in store.ledger.versions(loaded.recipe.name) if v.run == run_id), None)
    is_new = version is None
    if version is None:
        version = _evaluate_and_register(prepared, trained=trained, run_id=run_id, store=store, watcher=watch)
    report = _stored_report(version, store=store)
    if not is_new and report is not None:
        watch.stage("evaluate", [report.verdict], seconds=0.0, is_cached=True)
    if prove_version(version, store=store, watcher=watch).holds:
        _promote(version, report, policy=loaded.recipe.promote, store=store)
    else:
        watch.warn(f"{version.ref} is not promoted: a proof fails. `tunesmith prove {version.ref}` shows the sheet")
    aliases = tuple(sorted(a for a, number in store.ledger.aliases(version.name).items() if number == version.number))
    return Finished(version=version, report=report, aliases=aliases, is_new=is_new)


def _train(prepared: Prepared, *, store: Store, watcher: Watcher) -> Artefact:
    """Train, or find what these very rows, base and settings have given before."""
    recipe = prepared.loaded.recipe
    key = stage_key(
        "train",
        inputs={
            "snapshot": prepared.snapshot.id,
            "base": prepared.base_digest,
            "train": prepared.loaded.resolved()["train"],
            "machine": prepared.machine_kind,
        },
        rooms=("data", "model", "train"),
    )
    if (finished := finished_stage(store, key)) is not None:
        facts = orjson.loads((finished.path / MODEL_FACTS).read_bytes())
        watcher.stage("train", _train_lines(facts), seconds=0.0, is_cached=True)
        return finished
    started = time.monotonic()
    folder = store.job_folder(key)
    with only_one(folder), _stop_signals() as should_stop:

        def build(out: Path) -> None:
            facts = _train_into(out, prepared, checkpoints=folder, watcher=watcher, should_stop=should_stop)
            (out / MODEL_FACTS).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))

        try:
            artefact = run_stage(store, stage="model", key=key, build=build)
        except Interrupted as error:
            raise Interrupted(f"{error} Go on with the same command.") from error
    facts = orjson.loads((artefact.path / MODEL_FACTS).read_bytes())
    watcher.stage(
        "train",
        [recipe.train.method + " on " + prepared.base_name, *_train_lines(facts)],
        seconds=time.monotonic() - started,
        is_cached=False,
    )
    for warning in facts["warnings"]:
        watcher.warn(warning)
    _forget(folder)
    return artefact


def _train_into(
    out: Path, prepared: Prepared, *, checkpoints: Path, watcher: Watcher, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train into a folder; returns the facts that are stored beside the weights. No times: equal runs give equal artefacts."""
    from tunesmith.model import read_weights_digest
    from tunesmith.train import train_job

    job = prepared.job
    outcome = train_job(job, checkpoints=checkpoints, out=out, on_step=watcher.step, should_stop=should_stop)
    return {
        "schema": 1,
        "name": prepared.loaded.recipe.name,
        "base": prepared.base_name,
        "base_digest": prepared.base_digest,
        "base_files": prepared.base_files,
        "snapshot": prepared.snapshot.id,
        "train": prepared.loaded.resolved()["train"],
        "seed": job.config.seed,
        "learning_rate": outcome.learning_rate,
        "curve": [[p.step, p.train_loss, p.validation_loss] for p in outcome.curve],
        "best_step": outcome.best_step,
        "num_steps": outcome.num_steps,
        "stopped_early": outcome.stopped_early,
        "warnings": list(outcome.warnings),
        "weights_digest": read_weights_digest(out),
        "chat_digest": job.chat.digest,
        "max_length": prepared.max_length,
    }


def _train_lines(facts: dict[str, Any]) -> list[str]:
    curve = facts["curve"]
    if not curve:
        return [f"{facts['num_steps']} steps"]
    line = f"{facts['num_steps']} steps · loss {curve[0][1]:.2f} → {curve[-1][1]:.2f}"
    best = next((point[2] for point in curve if point[0] == facts["best_step"]), None)
    return [line + (f" · validation {best:.2f} at step {facts['best_step']}" if best is not None else "")]


def _evaluate_and_register(prepared: Prepared, *, trained: Artefact, run_id: str, store: Store, watcher: Watcher) -> ModelVersion:
    facts = orjson.loads((trained.path / MODEL_FACTS).read_bytes())
    report_artefact, report = _evaluate(prepared, trained=trained, store=store, watcher=watcher)
    version = ModelVersion(
        name=prepared.loaded.recipe.name,
        number=0,
        run=run_id,
        artefact=trained.digest,
        weights_digest=facts["weights_digest"],
        chat_digest=facts["chat_digest"],
        base_digest=facts["base_digest"],
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        metrics={name: score.value for name, score in report.scores["tuned"].items()} if report else {},
        reports=(report_artefact.digest,) if report_artefact else (),
    )
    return store.ledger.register(version)


def _evaluate(prepared: Prepared, *, trained: Artefact, store: Store, watcher: Watcher) -> tuple[Artefact | None, Report | None]:
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


def _stored_report(version: ModelVersion, *, store: Store) -> Report | None:
    if not version.reports:
        return None
    return from_json((store.artefacts.get(version.reports[-1]).path / "report.json").read_bytes())


def _promote(version: ModelVersion, report: Report | None, *, policy: str, store: Store) -> None:
    """Make a version champion, once: a version that somebody has since replaced is not put back by running its recipe again."""
    if policy == "never" or any(
        event.kind == "pointed" and event.version == version.number for event in store.ledger.events(version.name)
    ):
        return
    champion = store.ledger.deployment(version.name, "champion")
    if policy == "if_better" and not _deserves(report, has_champion=champion is not None):
        return
    store.ledger.point(
        version.name,
        alias="champion",
        version=version.number,
        because=version.reports,
        actor="run",
        expected_generation=champion.generation if champion else None,
    )


def _deserves(report: Report | None, *, has_champion: bool) -> bool:
    """Better than its base, and on the same rows at least as likely as the champion."""
    if report is None:
        return not has_champion
    if "base" in report.scores and not is_better(report):
        return False
    if not has_champion:
        return True
    rival = report.scores.get("champion", {}).get("perplexity")
    return rival is not None and report.scores["tuned"]["perplexity"].value <= rival.value


def _forget(folder: Path) -> None:
    """The checkpoints of a finished job: its result is in the store."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the loop to save and stop; a second Ctrl-C stops at once."""
    asked = False

    def ask(_signal: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started the thread handles signals
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

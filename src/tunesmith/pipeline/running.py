"""The whole job: a recipe in, a registered and evaluated version out, as a chain of stages that are never done twice."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson

from tunesmith.errors import Interrupted
from tunesmith.pipeline.accounting import account_in_words, passes_in_words, tools_warning
from tunesmith.pipeline.arms import Sheets, read_sheets, require_keys
from tunesmith.pipeline.curve import keep_chart
from tunesmith.pipeline.evaluating import evaluate_version, stored_report
from tunesmith.pipeline.evaluation_page import write_evaluation
from tunesmith.pipeline.lineage import lineage_of
from tunesmith.pipeline.preparation import Prepared, complete_report, held_out, prepare
from tunesmith.pipeline.progress import Remembering, Silent, Watcher
from tunesmith.pipeline.promoting import promote
from tunesmith.pipeline.proving import Ready, Sheet, prove_version, soon_to_prove
from tunesmith.pipeline.recipe import LoadedRecipe
from tunesmith.pipeline.stages import finished_stage, only_one, run_stage, stage_key
from tunesmith.pipeline.stopping import asked_to_stop, interruptible
from tunesmith.pipeline.trackers import TrackedRun, TrackerName, Trackers, flat, open_trackers, require_trackers
from tunesmith.pipeline.training_log import LOG, TrainingLog, find_log, keep_log, read_log
from tunesmith.pipeline.versions import MODEL_FACTS
from tunesmith.records import ModelVersion, Report
from tunesmith.store import Artefact, Store, digest_of

__all__ = ["Finished", "run", "training_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a run leaves behind."""

    version: ModelVersion
    report: Report | None
    """None when the recipe keeps no test rows."""
    aliases: tuple[str, ...]
    is_new: bool
    """False when the recipe had made this very version before."""
    warnings: tuple[str, ...]
    refusal: tuple[str, ...]
    """Why `promote` of the recipe did not make it champion; empty where it did, or was not to."""
    sheet: Sheet
    """What was proved of it on this machine."""
    log: Path | None
    """How it was trained, step by step (JSONL); None when it was trained by a version that kept no log."""
    chart: Path
    """The same as a picture (SVG)."""
    page: Path | None
    """How it was judged, as a page (HTML; the report lies beside it as JSON); None when the recipe keeps no test rows."""
    ledger: Mapping[str, Any] | None
    """What became of every training row and token (`Ledger.as_json`); None when it was trained by a version that kept none."""
    sources: Mapping[str, Any] | None
    """What was read of each source in the whole training (`Passed`); None likewise."""


def run(loaded: LoadedRecipe, *, store: Store, watcher: Watcher | None = None, log_to: Sequence[TrackerName] = ()) -> Finished:
    """Do whatever of a recipe is not done yet.

    Args:
        loaded: a checked recipe.
        store: the workspace.
        watcher: hears what happens.
        log_to: trackers that are told of the training too.

    Raises:
        UserError: data, base or recipe cannot be used, or a tracker cannot be opened; the store is as it was.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    watch = Remembering(watcher or Silent())
    require_trackers(log_to)
    with interruptible(), store.at_work():
        return _run(loaded, store=store, watch=watch, log_to=log_to)


def _run(loaded: LoadedRecipe, *, store: Store, watch: Remembering, log_to: Sequence[TrackerName]) -> Finished:
    sheets = read_sheets(loaded.recipe.evaluate, folder=loaded.folder)  # what is missing is told before hours of training
    prepared = prepare(loaded, store=store, watcher=watch)
    key = training_key(prepared)
    trained = _train(prepared, key=key, store=store, watcher=watch, log_to=log_to)
    with soon_to_prove(trained.digest, store=store) as ready:
        return _after_training(prepared, key=key, trained=trained, sheets=sheets, store=store, watch=watch, ready=ready)


def _after_training(
    prepared: Prepared, *, key: str, trained: Artefact, sheets: Sheets, store: Store, watch: Remembering, ready: Ready | None
) -> Finished:
    """Judge, register, prove and promote what was trained, as far as that is not done yet."""
    loaded = prepared.loaded
    facts = orjson.loads((trained.path / MODEL_FACTS).read_bytes())
    complete_report(prepared, ledger=facts.get("ledger"), sources=facts.get("sources"), watcher=watch)
    run_id = digest_of(
        {
            "name": loaded.recipe.name,
            "model": trained.digest,
            "evaluate": loaded.resolved()["evaluate"],
            "sheets": sheets.digest,
            "snapshot": prepared.snapshot.id,
            "must_not_break": prepared.must_not_break_digest,
        }
    )
    version = next((v for v in store.ledger.versions(loaded.recipe.name) if v.run == run_id), None)
    is_new = version is None
    if version is None:
        version = _evaluate_and_register(prepared, trained=trained, run_id=run_id, store=store, watcher=watch)
    elif version.state != "ready" and not store.artefacts.verify(version.artefact):  # `doctor` had set it aside
        from tunesmith.store import mark  # with SQLAlchemy, which a recipe with a mistake need not wait for

        version = mark(store.ledger, version, state="ready", because=("the recipe made its files again",), actor="run")
    log = keep_log(store, version, job=store.jobs / key)
    _forget(store.jobs / key)
    report = stored_report(version, store=store)
    if not is_new and report is not None:
        watch.stage("evaluate", [report.verdict], seconds=0.0, is_cached=True)
    sheet = prove_version(version, store=store, watcher=watch, ready=ready)
    refusal: tuple[str, ...] = ()
    if sheet.holds:
        refusal = promote(version, report, policy=loaded.recipe.promote, store=store)
        if refusal:
            watch.warn(f"{version.ref} is not promoted (promote: {loaded.recipe.promote}): {'; '.join(refusal)}")
    else:
        watch.warn(f"{version.ref} is not promoted ({sheet.objection}). `tunesmith prove {version.ref}` shows the sheet")
    return Finished(
        version=version,
        report=report,
        aliases=tuple(sorted(a for a, number in store.ledger.aliases(version.name).items() if number == version.number)),
        is_new=is_new,
        warnings=tuple(watch.warnings),
        refusal=refusal,
        sheet=sheet,
        log=log,
        chart=keep_chart(version, store=store),
        page=_keep_page(version, report, store=store),
        ledger=facts.get("ledger"),
        sources=facts.get("sources"),
    )


def _keep_page(version: ModelVersion, report: Report | None, *, store: Store) -> Path | None:
    """The page of a version's own report; made of what is stored, so that it can be made again at any time."""
    if report is None:
        return None
    page = store.reports / version.ref / "evaluation.html"
    write_evaluation(report, title=f"{version.ref} beside {report.baseline}", html=page)
    return page


def training_key(prepared: Prepared) -> str:
    """Identity of a training: its rows, base, settings, code, and kind of machine."""
    return stage_key(
        "train",
        inputs={
            "snapshot": prepared.snapshot.id,
            "base": prepared.base_digest,
            "train": prepared.loaded.resolved()["train"],
            "learned": [prepared.job.learn, prepared.job.overlong, prepared.job.mix.model_dump(), dict(prepared.job.weights)],
            "machine": prepared.machine_kind,
        },
        rooms=("data", "model", "train"),
    )


def _train(prepared: Prepared, *, key: str, store: Store, watcher: Watcher, log_to: Sequence[TrackerName]) -> Artefact:
    """Train, or find what these very rows, base and settings have given before. Trackers are told of it either way."""
    settings = flat({"base": prepared.base_name, "snapshot": prepared.snapshot.id, "train": prepared.loaded.resolved()["train"]})
    tracked = TrackedRun(name=prepared.loaded.recipe.name, id=key[:16], settings=settings, folder=store.logs)
    with open_trackers(log_to, run=tracked, warn=watcher.warn) as trackers:
        finished = finished_stage(store, key)
        if finished is None:
            return _train_anew(prepared, key=key, store=store, watcher=watcher, trackers=trackers)
        facts = orjson.loads((finished.path / MODEL_FACTS).read_bytes())
        watcher.stage("train", [*_train_lines(facts), *trackers.where], seconds=0.0, is_cached=True)
        for warning in facts["warnings"]:
            watcher.warn(warning)
        if log_to and (log := find_log(store, job=store.jobs / key, artefact=finished.digest)) is not None:
            trackers.tell(read_log(log))
        return finished


def _train_anew(prepared: Prepared, *, key: str, store: Store, watcher: Watcher, trackers: Trackers) -> Artefact:
    require_keys(prepared.loaded.recipe.evaluate)
    started = time.monotonic()
    folder = store.job_folder(key)
    with only_one(folder), _warnings_of_training(watcher):

        def build(out: Path) -> None:
            facts = _train_into(out, prepared, job_folder=folder, watcher=watcher, trackers=trackers)
            (out / MODEL_FACTS).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))

        try:
            artefact = run_stage(store, stage="model", key=key, build=build)
        except Interrupted as error:
            raise Interrupted(f"{error} Go on with the same command.") from error
    facts = orjson.loads((artefact.path / MODEL_FACTS).read_bytes())
    watcher.stage(
        "train",
        [prepared.loaded.recipe.train.method + " on " + prepared.base_name, *_train_lines(facts), *trackers.where],
        seconds=time.monotonic() - started,
        is_cached=False,
    )
    for warning in facts["warnings"]:
        watcher.warn(warning)
    _forget(folder, but=LOG)
    return artefact


def _train_into(out: Path, prepared: Prepared, *, job_folder: Path, watcher: Watcher, trackers: Trackers) -> dict[str, Any]:
    """Train into a folder; returns the facts that are stored beside the weights. No times: equal runs give equal artefacts."""
    from tunesmith.model import read_weights_digest
    from tunesmith.train import Step, train_job

    job = prepared.job
    log = TrainingLog(job_folder / LOG)

    def tell(step: Step) -> None:
        watcher.step(step)
        trackers.tell(log.write(step))

    model = "making the model" if job.base is None else f"loading {prepared.base_name}"
    watcher.begin("train", f"{model}, tokenising {len(job.train):,} rows")
    with log, asked_to_stop(watcher.stopping) as should_stop:
        outcome = train_job(job, checkpoints=job_folder, out=out, on_step=tell, should_stop=should_stop)
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
        "is_compiled": outcome.is_compiled,
        "curve": [[p.step, p.train_loss, p.validation_loss] for p in outcome.curve],
        "best_step": outcome.best_step,
        "num_steps": outcome.num_steps,
        "stopped_early": outcome.stopped_early,
        "warnings": list(outcome.warnings),
        "weights_digest": read_weights_digest(out),
        "chat_digest": job.chat.digest,
        "max_length": prepared.max_length,
        "ledger": outcome.ledger.as_json(),
        "sources": {
            name: passed._asdict()
            for name, passed in outcome.sources.items()
            if name not in held_out(prepared.loaded.recipe.data)
        },
    }


def _train_lines(facts: dict[str, Any]) -> list[str]:
    curve = facts["curve"]
    account = [account_in_words(facts["ledger"]["total"])] if "ledger" in facts else []
    account += [warning] if "ledger" in facts and (warning := tools_warning(facts["ledger"]["total"])) else []
    account += passes_in_words(facts.get("sources", {}))
    if not curve:
        return [*account, f"{facts['num_steps']} steps"]
    line = f"{facts['num_steps']} steps · loss {curve[0][1]:.2f} → {curve[-1][1]:.2f}"
    best = next((point[2] for point in curve if point[0] == facts["best_step"]), None)
    return [*account, line + (f" · validation {best:.2f} at step {facts['best_step']}" if best is not None else "")]


def _evaluate_and_register(prepared: Prepared, *, trained: Artefact, run_id: str, store: Store, watcher: Watcher) -> ModelVersion:
    facts = orjson.loads((trained.path / MODEL_FACTS).read_bytes())
    log = find_log(store, job=store.jobs / training_key(prepared), artefact=trained.digest)
    steps = read_log(log) if log is not None else []
    with _warnings_of_training(watcher):  # an arm may be trained too
        report_artefact, report = evaluate_version(
            prepared, trained=trained, store=store, watcher=watcher, training_s=steps[-1]["elapsed_s"] if steps else None
        )
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
        lineage=lineage_of(prepared, store=store),
    )
    return store.ledger.register(version)


def _forget(folder: Path, *, but: str = "") -> None:
    """Remove a job's folder, or all of it but one file: what is finished lies in the store."""
    import shutil

    if not but:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != but:
            path.unlink(missing_ok=True)


@contextmanager
def _warnings_of_training(watcher: Watcher) -> Iterator[None]:
    """Let a damaged checkpoint, or a compiler that fails, be told of like everything else, and not as a line of source code."""
    from tunesmith.train import CheckpointWarning, CompileWarning

    with warnings.catch_warnings():
        for kind in (CheckpointWarning, CompileWarning):
            warnings.simplefilter("always", kind)
        show = warnings.showwarning

        def tell(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, CheckpointWarning | CompileWarning):
                watcher.warn(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = tell
        yield

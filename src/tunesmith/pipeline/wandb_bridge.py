"""A registered version told to Weights & Biases: run, configuration, metrics, and an artefact with files and aliases.

Written to a folder of the workspace and sent nowhere, unless the user asks for it: `wandb sync FOLDER` sends it later. Pushed again, the
folder that was not sent yet is replaced; the run's id comes from the version, so what was sent already is the same run.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import UserError
from tunesmith.pipeline.bridged import documents_of, identity_of, params_of, sound_version
from tunesmith.pipeline.trackers import TrackerName, require_trackers, tracked_metrics, wandb_run, wandb_where
from tunesmith.pipeline.training_log import log_of, read_log
from tunesmith.records import ModelVersion
from tunesmith.store import Store, files_of

__all__ = ["PushedToWandb", "push_to_wandb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedToWandb:
    """Where a version lies for W&B now. Its library may still be writing; it is done when the process ends."""

    ref: str
    run_id: str
    artifact: str
    aliases: tuple[str, ...]
    is_online: bool
    where: str
    """The command that sends it, or its address."""


def push_to_wandb(ref: str, *, store: Store, project: str | None = None, is_online: bool = False) -> PushedToWandb:
    """Write a version down as W&B's own records.

    Args:
        ref: `boutique@3`, or a name.
        store: the workspace; the records lie in its `logs/wandb`.
        project: None takes WANDB_PROJECT, else `tunesmith`.
        is_online: send it now. Without it nothing leaves this machine, whatever WANDB_MODE says.

    Raises:
        NotFound: no such version.
        BrokenArtefact: its files are not what was stored; nothing was pushed.
        MissingExtra: wandb is not installed.
        UserError: wandb refuses, or cannot be reached.
    """
    version = sound_version(ref, store=store)
    require_trackers([TrackerName.WANDB])
    run_id = hashlib.sha256(identity_of(version).encode()).hexdigest()[:16]
    aliases = tuple(sorted(a for a, number in store.ledger.aliases(version.name).items() if number == version.number))
    _forget_unsent(store.logs / "wandb", run_id=run_id)
    run = None
    try:
        run = wandb_run(
            name=version.ref,
            run_id=run_id,
            folder=store.logs,
            config=params_of(version, store=store),
            project=project,
            mode="online" if is_online else "offline",
        )
        _log_metrics(run, version, store=store)
        run.log_artifact(_artifact(version, store=store), aliases=list(aliases))
        where = wandb_where(run)
        run.finish(exit_code=0)
    except Exception as error:  # the library raises many kinds
        if run is not None:
            run.finish(exit_code=1)
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(f"wandb could not take {version.ref}: {type(error).__name__}: {reason}") from error
    return PushedToWandb(ref=version.ref, run_id=run_id, artifact=version.name, aliases=aliases, is_online=is_online, where=where)


def _forget_unsent(folder: Path, *, run_id: str) -> None:
    for old in folder.glob(f"offline-run-*-{run_id}"):
        if not list(old.glob("*.synced")):  # what `wandb sync` leaves beside a record that it has sent
            shutil.rmtree(old)


def _log_metrics(run: Any, version: ModelVersion, *, store: Store) -> None:
    log = log_of(store, version.ref)
    for entry in read_log(log) if log else ():
        if entry["step"] >= run.step:  # it takes no step before its last one
            run.log(tracked_metrics(entry), step=entry["step"])
    run.summary.update({f"test/{name}": float(value) for name, value in version.metrics.items()})


def _artifact(version: ModelVersion, *, store: Store) -> Any:
    """Files of the version by their places in our store, which never change: `immutable` keeps W&B from copying them."""
    import wandb

    facts = {"version": version.ref, "digest": version.artefact, "weights": version.weights_digest, "made": version.created_at}
    artifact = wandb.Artifact(name=version.name, type="model", metadata=facts)
    model = files_of(version, store=store)
    for name in model.files:
        artifact.add_file(str(model.path / name), name=f"model/{name}", policy="immutable")
    reports = store.reports / version.ref
    found = [file for file in reports.rglob("*") if file.is_file()] if reports.is_dir() else []
    for file in sorted(found):
        artifact.add_file(str(file), name=f"reports/{file.relative_to(reports).as_posix()}")
    for file in sorted(store.reports.glob(f"{version.ref}.*")):
        artifact.add_file(str(file), name=f"reports/{file.name}")
    for name, content in documents_of(version, store=store).items():
        with artifact.new_file(name, mode="wb") as written:
            written.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return artifact

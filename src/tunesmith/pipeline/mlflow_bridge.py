"""A registered version told to an MLflow server: run, parameters, metrics, artefacts, registered model, aliases.

Our own registry stays the one that counts: MLflow moves an alias without asking where it was, and takes a version whose files do not
exist. What is pushed twice is there once: the run is found by a tag with the version's id, the model's version by another.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import UserError
from tunesmith.pipeline.bridged import documents_of, identity_of, params_of, sound_version
from tunesmith.pipeline.trackers import TrackerName, mlflow_client, mlflow_metrics, require_trackers
from tunesmith.pipeline.training_log import log_of, read_log
from tunesmith.records import ModelVersion
from tunesmith.store import Store, files_of

__all__ = ["PushedToMlflow", "push_to_mlflow"]

_ID = "tunesmith.id"
_REF = "tunesmith.version"
_MAX_PARAM = 6000
"""Characters of a parameter's value; MLflow's own limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedToMlflow:
    """Where a version lies in MLflow now."""

    ref: str
    run_id: str
    model: str
    version: int
    """MLflow's number, which may differ from ours."""
    aliases: tuple[str, ...]
    is_new: bool
    where: str
    """The address without its password."""


def push_to_mlflow(ref: str, *, store: Store, uri: str | None = None, experiment: str | None = None) -> PushedToMlflow:
    """Push a version; what is there already is completed and not doubled.

    Args:
        ref: `boutique@3`, or a name.
        store: the workspace.
        uri: MLflow's address; None takes MLFLOW_TRACKING_URI, else a database in the workspace's logs.
        experiment: its name; None takes MLFLOW_EXPERIMENT_NAME, else `tunesmith`.

    Raises:
        NotFound: no such version.
        BrokenArtefact: its files are not what was stored; nothing was pushed.
        MissingExtra: MLflow is not installed.
        UserError: MLflow cannot be reached, or refuses.
    """
    version = sound_version(ref, store=store)
    require_trackers([TrackerName.MLFLOW])
    given = uri or os.environ.get("MLFLOW_TRACKING_URI")
    address = given or f"sqlite:///{store.logs / 'mlflow.db'}"
    store.logs.mkdir(parents=True, exist_ok=True)
    try:
        pushing = _Pushing(mlflow_client(address), version=version, store=store)
        run_id = pushing.run(experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "tunesmith"), address=address)
        number, is_new = pushing.registered(run_id)
        aliases = pushing.aliases(number)
    except Exception as error:  # the library and its database each raise their own kinds
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(f"mlflow could not take {version.ref}: {type(error).__name__}: {_without_password(reason)}") from error
    return PushedToMlflow(
        ref=version.ref,
        run_id=run_id,
        model=version.name,
        version=number,
        aliases=aliases,
        is_new=is_new,
        where=_without_password(address),
    )


class _Pushing:
    """One version on its way."""

    def __init__(self, client: Any, *, version: ModelVersion, store: Store) -> None:
        self._client = client
        self._version = version
        self._store = store
        self._id = identity_of(version)

    def run(self, experiment: str, *, address: str) -> str:
        """The run's id, with everything in it that MLflow has not yet."""
        client = self._client
        found = client.get_experiment_by_name(experiment)
        place = _artefacts_of(address)
        experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
        runs = client.search_runs([experiment_id], filter_string=f"tags.`{_ID}` = '{self._id}'", max_results=1)
        tags = {_ID: self._id, _REF: self._version.ref, "tunesmith.weights": self._version.weights_digest}
        run = runs[0] if runs else client.create_run(experiment_id, run_name=self._version.ref, tags=tags)
        run_id: str = run.info.run_id
        for key, value in params_of(self._version, store=self._store).items():
            if key not in run.data.params:
                client.log_param(run_id, key, str(value)[:_MAX_PARAM])
        self._log_metrics(run_id)
        self._log_artefacts(run_id)
        client.set_terminated(run_id, status="FINISHED")
        return run_id

    def registered(self, run_id: str) -> tuple[int, bool]:
        """MLflow's number of the version, and whether it was made just now."""
        from mlflow.exceptions import MlflowException

        client, name = self._client, self._version.name
        known = [v for v in client.search_model_versions(f"name = '{name}'") if v.tags.get(_ID) == self._id]
        if known:
            return int(known[0].version), False
        try:
            client.create_registered_model(name, tags={"tunesmith.name": name})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        tags = {_ID: self._id, _REF: self._version.ref, "tunesmith.weights": self._version.weights_digest}
        made = client.create_model_version(name, source=source, run_id=run_id, tags=tags)
        return int(made.version), True

    def aliases(self, number: int) -> tuple[str, ...]:
        """Move our aliases to MLflow's version, and take those away that point elsewhere now."""
        version = self._version
        ours = {alias for alias, n in self._store.ledger.aliases(version.name).items() if n == version.number}
        theirs = set(self._client.get_model_version(version.name, str(number)).aliases)
        for alias in sorted(ours - theirs):
            self._client.set_registered_model_alias(version.name, alias, str(number))
        for alias in sorted(theirs - ours):
            self._client.delete_registered_model_alias(version.name, alias)
        return tuple(sorted(ours))

    def _log_metrics(self, run_id: str) -> None:
        from mlflow.entities import Metric

        log = log_of(self._store, self._version.ref)
        told = {(m.key, m.step) for key in self._client.get_run(run_id).data.metrics for m in self._history(run_id, key)}
        made_ms = int(datetime.fromisoformat(self._version.created_at).timestamp() * 1000)
        metrics = mlflow_metrics(read_log(log)) if log else []
        metrics += [Metric(f"test/{name}", float(value), made_ms, 0) for name, value in self._version.metrics.items()]
        fresh = [metric for metric in metrics if (metric.key, metric.step) not in told]
        for start in range(0, len(fresh), 1000):  # the most that it takes at once
            self._client.log_batch(run_id, metrics=fresh[start : start + 1000])

    def _history(self, run_id: str, key: str) -> list[Any]:
        return list(self._client.get_metric_history(run_id, key))

    def _log_artefacts(self, run_id: str) -> None:
        client, store, version = self._client, self._store, self._version
        there = {file.path for file in client.list_artifacts(run_id)}
        if "model" not in there:
            client.log_artifacts(run_id, str(files_of(version, store=store).path), "model")
        reports = store.reports / version.ref
        if reports.is_dir():
            client.log_artifacts(run_id, str(reports), "reports")
        for file in sorted(store.reports.glob(f"{version.ref}.*")):
            client.log_artifact(run_id, str(file), "reports")
        with tempfile.TemporaryDirectory() as folder:
            for name, content in documents_of(version, store=store).items():
                (Path(folder) / name).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
                client.log_artifact(run_id, str(Path(folder) / name))


def _artefacts_of(address: str) -> str | None:
    """Where a new experiment keeps its files: beside a database on this machine, else where the server says."""
    path = address.removeprefix("sqlite:///")
    return (Path(path).absolute().parent / "mlflow-artefacts").as_uri() if path != address else None


def _without_password(text: str) -> str:
    import re

    return re.sub(r"//[^/@\s]*@", "//***@", text)

"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, each through its own library and only when asked for.

A tracker reads the run's log (`training_log`) as it grows. It works in a thread of its own: one that is slow does not slow the
training, and one that fails is given up with a warning. What a killed run has told it already is not told twice.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from tunesmith.errors import MissingExtra, UserError
from tunesmith.pipeline.training_log import Entry

__all__ = [
    "TrackedRun",
    "Tracker",
    "TrackerName",
    "Trackers",
    "flat",
    "mlflow_client",
    "mlflow_metrics",
    "open_trackers",
    "require_trackers",
    "tracked_metrics",
    "wandb_run",
    "wandb_where",
]

_SECONDS_BETWEEN_WRITES = 2.0
_SECONDS_TO_FINISH = 30.0
_METRICS = {
    "loss": "train/loss",
    "mean_loss": "train/mean_loss",
    "validation_loss": "validation/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "tokens_per_s": "train/tokens_per_s",
    "memory_bytes": "train/memory_bytes",
}


class TrackerName(StrEnum):
    """The trackers there are; each is also the name of its module and of our extra."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """What a tracker is told of a run before its first step. No data and no path."""

    name: str
    id: str
    """The same whenever this run goes on."""
    settings: Mapping[str, object]
    folder: Path
    """Where trackers that write files put them: the workspace's `logs`."""


class Tracker(Protocol):
    """One tracker's open run. `where` says how to look at it."""

    where: str

    def write(self, entries: Sequence[Entry]) -> None:
        """Add lines of the log."""
        ...

    def close(self, *, is_done: bool) -> None:
        """The run is done, or has stopped and may go on later."""
        ...


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Check that each tracker's library is there, before anything is computed.

    Raises:
        MissingExtra: naming the package and the command that installs it.
    """
    missing = [str(name) for name in names if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"--log-to {missing[0]} needs the package `{missing[0]}`, which is not installed. "
            f"Install it: pip install 'tunesmith[{','.join(missing)}]'"
        )


class Trackers:
    """All the trackers of a run."""

    def __init__(self, outlets: Sequence[_Outlet], *, warn: Callable[[str], None]) -> None:
        self._outlets = outlets
        self._warn = warn

    @property
    def where(self) -> list[str]:
        return [f"{outlet.name}: {outlet.tracker.where}" for outlet in self._outlets if outlet.error is None]

    def tell(self, entries: Sequence[Entry]) -> None:
        """Pass new lines of the log on, without waiting."""
        for outlet in self._outlets:
            outlet.put(entries)
            self._report(outlet)

    def close(self, *, is_done: bool) -> None:
        """Let each finish what it has, for a while."""
        for outlet in self._outlets:
            outlet.finish(is_done=is_done)
            self._report(outlet)

    def _report(self, outlet: _Outlet) -> None:
        if outlet.error is not None and not outlet.is_reported:
            outlet.is_reported = True
            reason = f"{type(outlet.error).__name__}: {outlet.error}".splitlines()[0][:300]
            self._warn(
                f"{outlet.name} has failed and is told no more ({reason}). The training goes on, and its log has every step"
            )


@contextmanager
def open_trackers(names: Sequence[TrackerName], *, run: TrackedRun, warn: Callable[[str], None]) -> Iterator[Trackers]:
    """Open trackers for a run, and close them when the block ends.

    Raises:
        UserError: one could not be opened.
    """
    opened = Trackers([_Outlet(name, _open(name, run)) for name in dict.fromkeys(names)], warn=warn)
    is_done = False
    try:
        yield opened
        is_done = True
    finally:
        opened.close(is_done=is_done)


def _open(name: TrackerName, run: TrackedRun) -> Tracker:
    kinds: Mapping[TrackerName, Callable[[TrackedRun], Tracker]] = {
        TrackerName.TENSORBOARD: _TensorBoard,
        TrackerName.WANDB: _Wandb,
        TrackerName.MLFLOW: _Mlflow,
    }
    try:
        return kinds[name](run)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{name} could not be opened: {reason}. Mend that, or leave `--log-to {name}` out") from error


class _Outlet:
    """A tracker with its thread."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self.tracker = tracker
        self.error: Exception | None = None
        self.is_reported = False
        self._is_done = False
        self._ending = threading.Event()
        self._queue: SimpleQueue[Sequence[Entry]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, entries: Sequence[Entry]) -> None:
        if self.error is None:
            self._queue.put(entries)

    def finish(self, *, is_done: bool) -> None:
        self._is_done = is_done
        self._ending.set()
        self._thread.join(_SECONDS_TO_FINISH)
        if self._thread.is_alive() and self.error is None:
            self.error = TimeoutError(f"no answer within {_SECONDS_TO_FINISH:.0f} s")

    def _work(self) -> None:
        try:
            while not self._ending.wait(_SECONDS_BETWEEN_WRITES):
                self._write_waiting()
            self._write_waiting()
            self.tracker.close(is_done=self._is_done)
        except Exception as error:  # whatever a foreign library throws: the training must not die of it
            self.error = error

    def _write_waiting(self) -> None:
        entries: list[Entry] = []
        while not self._queue.empty():
            entries += self._queue.get()
        if entries:
            self.tracker.write(entries)


def tracked_metrics(entry: Entry) -> dict[str, float]:
    """A line of the log under the names that trackers show."""
    return dict(_metrics(entry))


def _metrics(entry: Entry) -> Iterator[tuple[str, float]]:
    return ((name, entry[key]) for key, name in _METRICS.items() if entry.get(key) is not None)


def _seconds(entry: Entry) -> float:
    return datetime.fromisoformat(entry["time"]).timestamp()


class _TensorBoard:
    """Event files. A run that goes on begins them anew from its log: no step stands there twice."""

    def __init__(self, run: TrackedRun) -> None:
        from tensorboard.summary import Writer

        folder = run.folder / "tensorboard" / f"{run.name}-{run.id}"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = Writer(str(folder))
        self.where = f"tensorboard --logdir {_near(folder.parent)}"

    def write(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            for name, value in _metrics(entry):
                self._writer.add_scalar(name, value, entry["step"], wall_time=_seconds(entry))
        self._writer.flush()

    def close(self, *, is_done: bool) -> None:  # noqa: ARG002 - TensorBoard knows no states
        self._writer.close()


class _Wandb:
    """Weights & Biases. WANDB_MODE, WANDB_PROJECT and the rest mean what they mean there."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = wandb_run(name=run.name, run_id=run.id, folder=run.folder, config=run.settings)
        self.where = wandb_where(self._run)

    def write(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry["step"] >= self._run.step:  # it takes no step before its last one
                self._run.log(tracked_metrics(entry), step=entry["step"])

    def close(self, *, is_done: bool) -> None:
        self._run.finish(exit_code=0 if is_done else 1)


def wandb_run(
    *, name: str, run_id: str, folder: Path, config: Mapping[str, object], project: str | None = None, mode: str | None = None
) -> Any:
    """Open a run of W&B that hears only what it is told.

    Args:
        name: for people.
        run_id: the same whenever this run goes on.
        folder: where its records go.
        config: settings to show.
        project: None takes WANDB_PROJECT, else `tunesmith`.
        mode: `offline` or `online`; None takes WANDB_MODE.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own crash reports: nobody asked for those
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=project or os.environ.get("WANDB_PROJECT", "tunesmith"),
        name=name,
        id=run_id,
        resume="allow",
        dir=folder,
        config=dict(config),
        mode=mode,
        # Figures and settings are what was asked for; not the repository, the command line or this machine.
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, x_disable_meta=True, x_disable_stats=True, x_save_requirements=False
        ),
    )


def wandb_where(run: Any) -> str:
    """How to look at an open run: the command that sends it, or its address."""
    return f"wandb sync {_near(Path(run.dir).parent)}" if run.offline else str(run.url)


class _Mlflow:
    """MLflow, at MLFLOW_TRACKING_URI; left out, a database in the workspace."""

    def __init__(self, run: TrackedRun) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        database = run.folder / "mlflow.db"
        self._client = mlflow_client(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "tunesmith")
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        found = self._client.search_runs([experiment_id], filter_string=f"tags.`tunesmith.run` = '{run.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            self._told = max((m.step for m in self._client.get_metric_history(self._id, _METRICS["loss"])), default=0)
        else:
            self._id = self._client.create_run(experiment_id, run_name=run.name, tags={"tunesmith.run": run.id}).info.run_id
            self._told = 0
            for key, value in run.settings.items():
                self._client.log_param(self._id, key, value)
        # The address is not told: it may hold a password.
        place = "MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else f"sqlite:///{_near(database)}"
        self.where = f"run {self._id} at {place}"

    def write(self, entries: Sequence[Entry]) -> None:
        metrics = mlflow_metrics([entry for entry in entries if entry["step"] > self._told])
        for start in range(0, len(metrics), 1000):  # the most that it takes at once
            self._client.log_batch(self._id, metrics=metrics[start : start + 1000])

    def close(self, *, is_done: bool) -> None:
        self._client.set_terminated(self._id, status="FINISHED" if is_done else "KILLED")


def mlflow_client(uri: str) -> Any:
    """MLflow's client for an address, with its telemetry off."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when it is imported; nothing leaves this machine that nobody asked for
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def mlflow_metrics(entries: Sequence[Entry]) -> list[Any]:
    """Lines of the log as MLflow's metrics."""
    from mlflow.entities import Metric

    return [Metric(name, value, int(_seconds(e) * 1000), e["step"]) for e in entries for name, value in _metrics(e)]


def _near(path: Path) -> Path:
    """A path as short as it can be typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def flat(settings: Mapping[str, Any], *, prefix: str = "") -> dict[str, object]:
    """Nested settings as `lora.rank: 16`, which every tracker can show."""
    result: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, prefix=f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result

"""The log of a training run: one JSON object for every optimiser step, in `train.jsonl`.

While a run trains, its log lies in the job's folder; afterwards beside the version, in `logs/<name>@<n>/`. It is no part of the
model's artefact: a log holds times, and equal training must give equal digests. A kill may leave a last line half written,
and lines of steps beyond the last checkpoint; a run that goes on writes both anew, so every step stands there once.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from tunesmith.records import ModelVersion
from tunesmith.store import Store

if TYPE_CHECKING:
    from tunesmith.train import Step

__all__ = ["LOG", "Entry", "TrainingLog", "find_log", "keep_log", "log_of", "read_log"]

LOG = "train.jsonl"

Entry = dict[str, Any]
"""One line. Losses are in nats per supervised token; `loss` is of this step alone, `mean_loss` since the last measurement."""


class TrainingLog:
    """Writes a log, line by line; each line is with the system before the next step begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._earlier_s = 0.0

    def write(self, step: Step) -> list[Entry]:
        """Add a step. Returns what a reader has not seen yet: the new line, and before the first one what earlier runs left."""
        earlier: list[Entry] = []
        if self._file is None:
            earlier = _cut_back(self._path, to=step.step - 1)
            self._earlier_s = earlier[-1]["elapsed_s"] if earlier else 0.0
            self._file = self._path.open("ab", buffering=0)
        entry = _entry(step, earlier_s=self._earlier_s)
        self._file.write(orjson.dumps(entry) + b"\n")
        return [*earlier, entry]

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def read_log(path: Path) -> list[Entry]:
    """All whole lines of a log."""
    entries = []
    for line in path.read_bytes().splitlines():
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # half written when its process was killed
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def log_of(store: Store, ref: str) -> Path | None:
    """The log of a version such as `boutique@3`, if it is there."""
    path = store.logs / ref / LOG
    return path if path.is_file() else None


def find_log(store: Store, *, job: Path, artefact: str) -> Path | None:
    """The log of a trained model: in its job's folder, or beside a version that holds this very model."""
    if (job / LOG).is_file():
        return job / LOG
    kept = (log_of(store, version.ref) for version in store.ledger.versions() if version.artefact == artefact)
    return next(filter(None, kept), None)


def keep_log(store: Store, version: ModelVersion, *, job: Path) -> Path | None:
    """Put the log of a finished run beside its version."""
    if (kept := log_of(store, version.ref)) is not None:
        return kept
    source = find_log(store, job=job, artefact=version.artefact)
    if source is None:
        return None
    target = store.logs / version.ref / LOG
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_suffix(".half")
    shutil.copyfile(source, half)
    half.replace(target)
    return target


def _cut_back(path: Path, *, to: int) -> list[Entry]:
    """Keep the whole lines up to a step, and return them."""
    if not path.exists():
        return []
    kept = [entry for entry in read_log(path) if entry["step"] <= to]
    half = path.with_suffix(".half")
    half.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in kept))
    half.replace(path)
    return kept


def _entry(step: Step, *, earlier_s: float) -> Entry:
    return {
        "step": step.step,
        "loss": step.step_loss,
        "mean_loss": step.loss,
        "validation_loss": step.validation_loss,
        "learning_rate": step.learning_rate,
        "grad_norm": step.grad_norm,
        "tokens": step.num_tokens,
        "supervised_tokens": step.num_supervised,
        "tokens_per_s": round(step.tokens_per_s, 1),
        "memory_bytes": step.memory_bytes,
        "elapsed_s": round(earlier_s + step.elapsed_s, 3),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }

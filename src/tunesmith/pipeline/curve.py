"""The learning curve of a version: what the log and the stored facts tell, and its chart as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson

from tunesmith.pipeline.training_log import log_of, read_log
from tunesmith.pipeline.versions import MODEL_FACTS
from tunesmith.records import CurvePoint, ModelVersion
from tunesmith.store import Store, files_of

__all__ = ["Curve", "keep_chart", "read_curve", "smoothed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How a version was trained. Losses are in nats per supervised token."""

    ref: str
    points: tuple[CurvePoint, ...]
    """The measurements: the training loss is the mean since the one before."""
    steps: tuple[tuple[int, float], ...]
    """Every step's own training loss; empty when the log is gone."""
    best_step: int
    """The step whose weights were kept."""
    num_steps: int
    log: Path | None
    chart: Path | None
    warnings: tuple[str, ...]

    @property
    def best(self) -> CurvePoint | None:
        """The measurement whose weights were kept, if anything was measured on validation rows."""
        return next((p for p in self.points if p.step == self.best_step and p.validation_loss is not None), None)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "ref": self.ref,
            "num_steps": self.num_steps,
            "best_step": self.best_step,
            "points": [{"step": p.step, "loss": p.train_loss, "validation_loss": p.validation_loss} for p in self.points],
            "warnings": list(self.warnings),
            "log": str(self.log) if self.log else None,
            "chart": str(self.chart) if self.chart else None,
        }


def read_curve(ref: str, *, store: Store) -> Curve:
    """The curve of `boutique` (its champion, else the newest), `boutique@3` or `boutique@champion`.

    Raises:
        NotFound: no such version.
    """
    return _curve(store.ledger.version(ref), store=store)


def keep_chart(version: ModelVersion, *, store: Store) -> Path:
    """Draw a version's chart as SVG into the workspace's reports, if it is not there yet."""
    from tunesmith.pipeline.chart import loss_chart

    path = _chart_path(store, version.ref)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        half.write_text(loss_chart(_curve(version, store=store)), encoding="utf-8")
        half.replace(path)
    return path


def smoothed(steps: Sequence[tuple[int, float]], *, num_points: int) -> list[tuple[float, float]]:
    """Means of neighbouring steps, at most `num_points` of them: (middle step, mean loss)."""
    if not steps:
        return []
    num = min(num_points, len(steps))
    groups = (steps[a:b] for a, b in pairwise(i * len(steps) // num for i in range(num + 1)))
    return [(fmean(step for step, _ in group), fmean(loss for _, loss in group)) for group in groups]


def _curve(version: ModelVersion, *, store: Store) -> Curve:
    facts = orjson.loads((files_of(version, store=store).path / MODEL_FACTS).read_bytes())
    log = log_of(store, version.ref)
    chart = _chart_path(store, version.ref)
    return Curve(
        ref=version.ref,
        points=tuple(CurvePoint(step=s, train_loss=t, validation_loss=v) for s, t, v in facts["curve"]),
        steps=tuple((entry["step"], entry["loss"]) for entry in read_log(log)) if log else (),
        best_step=facts["best_step"],
        num_steps=facts["num_steps"],
        log=log,
        chart=chart if chart.is_file() else None,
        warnings=tuple(facts["warnings"]),
    )


def _chart_path(store: Store, ref: str) -> Path:
    return store.reports / ref / "loss.svg"

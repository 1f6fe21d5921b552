"""Would more data help, and how much? The recipe trained on a quarter, half and all of its rows, and the curve carried on.

Every point makes as many optimiser steps as the whole would, so that what differs is the data and not the time spent; the best
measured weights count, so a small part that is learned by heart does not. Each point is a stage: killed, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tunesmith.errors import UserError
from tunesmith.evaluate.power_law import fit_power_law, forecast
from tunesmith.pipeline.preparation import Prepared
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.stages import only_one, run_stage, stage_key
from tunesmith.pipeline.stopping import asked_to_stop, interruptible
from tunesmith.records import Record, Score
from tunesmith.store import digest_of

if TYPE_CHECKING:
    from tunesmith.train import Job

__all__ = ["LearningCurve", "Point", "learning_curve"]

_PARTS = ((0.25, 0), (0.25, 1), (0.5, 0), (0.5, 1), (1.0, 0))
"""Share of the rows, and the draw: what two draws differ by is the noise."""
_WORTH = 0.01
"""A loss that falls by less than this share of itself is not worth collecting as much again."""


class Point(NamedTuple):
    """One training: on how many rows, and the lowest validation loss, in nats per token."""

    num_rows: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """Measured points, and what twice the rows would give."""

    points: tuple[Point, ...]
    floor: float
    scale: float
    power: float
    num_rows_doubled: int
    loss_doubled: Score
    gain: Score
    """By how much the loss would fall."""
    verdict: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"points": [point._asdict() for point in self.points]}


def learning_curve(prepared: Prepared, *, training_key: str, num_steps: int, watcher: Watcher) -> LearningCurve:
    """Train on parts of the rows and carry the curve on.

    Args:
        prepared: the recipe's data and base.
        training_key: identity of the whole training.
        num_steps: optimiser steps of the whole.
        watcher: hears each step.

    Raises:
        UserError: there are no validation rows, or too few to train on.
        Interrupted: Ctrl-C; the points that are done are kept.
    """
    if not prepared.job.validation:
        raise UserError("a learning curve needs validation rows: set data.split.validation above 0")
    if len(prepared.job.train) < 8:
        raise UserError(f"a learning curve needs at least 8 training rows; there are {len(prepared.job.train)}")
    points = []
    with interruptible():
        for share, draw in _PARTS:
            rows = choose_part(prepared.job.train, share=share, draw=draw)
            epochs = min(prepared.job.config.epochs / share, 1000.0)
            config = prepared.job.config.model_copy(update={"epochs": epochs, "max_steps": num_steps})
            mix = prepared.job.mix.model_copy(update={"max_epochs": None})  # it would make a part's training shorter
            watcher.begin("curve", f"training on {len(rows):,} of {len(prepared.job.train):,} rows")
            inputs = {"training": training_key, "steps": num_steps, "share": share, "draw": draw}
            key = stage_key("learning point", inputs=inputs, rooms=("data", "model", "train", "pipeline"))
            job = replace(prepared.job, train=rows, config=config, mix=mix)
            points.append(_measure(job, key=key, prepared=prepared, watcher=watcher))
    return draw_conclusions(points)


def choose_part(rows: Sequence[Record], *, share: float, draw: int) -> list[Record]:
    """A share of the rows, group after group (the last may be cut), in order; of one draw a small part lies within a larger."""
    order = {name: digest_of([draw, name]) for name in {row.group or row.id for row in rows}}
    chosen = sorted(range(len(rows)), key=lambda at: order[rows[at].group or rows[at].id])
    kept = set(chosen[: max(round(share * len(rows)), 1)])
    return [row for at, row in enumerate(rows) if at in kept]


def draw_conclusions(points: Sequence[Point]) -> LearningCurve:
    """Fit the points, and say in words what twice the rows would do."""
    num_rows, losses = [point.num_rows for point in points], [point.loss for point in points]
    now = max(num_rows)
    curve = fit_power_law(num_rows, losses)
    doubled, gain = forecast(num_rows, losses, at=2.0 * now)
    figures = (
        f"twice the rows ({2 * now:,}) would bring the validation loss from {curve.at(now):.3f} to about {doubled.value:.3f} "
        f"[{doubled.low:.3f}, {doubled.high:.3f}]"
    )
    worth = _WORTH * curve.at(now)
    if gain.low is not None and gain.low > worth:
        verdict = f"More data would help: {figures}."
    elif gain.high is not None and gain.high < worth:
        verdict = f"More of the same would hardly help: {figures}."
    else:
        verdict = f"Whether more data would help cannot be told: {figures}."
    return LearningCurve(
        points=tuple(points),
        floor=curve.floor,
        scale=curve.scale,
        power=curve.power,
        num_rows_doubled=2 * now,
        loss_doubled=doubled,
        gain=gain,
        verdict=verdict,
    )


def _measure(job: Job, *, key: str, prepared: Prepared, watcher: Watcher) -> Point:
    """Train on a part, unless that was done before; only the figure is kept."""
    from tunesmith.train import train_job

    folder = prepared.store.job_folder(key)

    def build(out: Path) -> None:
        model = folder / "model"
        _empty(model)
        with asked_to_stop(watcher.stopping) as should_stop:
            outcome = train_job(job, checkpoints=folder, out=model, on_step=watcher.step, should_stop=should_stop)
        loss = min(point.validation_loss for point in outcome.curve if point.validation_loss is not None)
        (out / "point.json").write_bytes(orjson.dumps({"num_rows": len(job.train), "loss": loss}))

    with only_one(folder):
        artefact = run_stage(prepared.store, stage="learning point", key=key, build=build)
    _remove(folder)
    return Point(**orjson.loads((artefact.path / "point.json").read_bytes()))


def _empty(folder: Path) -> None:
    _remove(folder)
    folder.mkdir(parents=True)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)

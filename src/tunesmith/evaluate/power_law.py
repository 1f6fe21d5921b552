"""How a loss falls with the number of rows: loss = floor + scale * rows^-power, and what it would be with more of them.

Knows numbers only. The form is the one commonly found for language models (Hestness et al. 2017, arXiv 1712.00409). Few points fit
many curves, so a forecast is never given without its interval: the points are drawn again with the noise that repeated points show,
and fitted anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunesmith.records import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PowerLaw", "fit_power_law", "forecast"]

_POWERS = np.geomspace(0.05, 2.0, 80)
_LEAST_NOISE = 0.002
"""Share of the loss; two equal repetitions do not prove that there is none."""
_NUM_DRAWS = 500


class PowerLaw(NamedTuple):
    """A fitted curve."""

    floor: float
    """What no number of rows goes below; at least 0."""
    scale: float
    power: float

    def at(self, num_rows: float) -> float:
        return float(self.floor + self.scale * num_rows**-self.power)


def fit_power_law(num_rows: Sequence[float], losses: Sequence[float]) -> PowerLaw:
    """Least squares over points; the power is looked for on a grid, floor and scale are then exact, and neither is negative.

    Raises:
        ValueError: fewer than two different numbers of rows.
    """
    floor, scale, power = _fit(np.asarray(num_rows, float), np.asarray(losses, float)[None])
    return PowerLaw(float(floor[0]), float(scale[0]), float(power[0]))


def forecast(num_rows: Sequence[float], losses: Sequence[float], *, at: float, seed: int = 0) -> tuple[Score, Score]:
    """The loss with so many rows, and how much lower that is than with the most rows there are; each with its 95 % interval.

    Args:
        num_rows: of each point; a number that comes again tells how noisy points are.
        losses: of each point.
        at: the number of rows asked for.
        seed: of the draws.
    """
    rows, loss = np.asarray(num_rows, float), np.asarray(losses, float)
    noise = max(_noise(rows, loss), _LEAST_NOISE * float(loss.mean()))
    draws = loss + np.random.default_rng(seed).normal(0, noise, (_NUM_DRAWS, len(loss)))
    curve = fit_power_law(num_rows, losses)
    floor, scale, power = _fit(rows, draws)
    there, now = (floor + scale * n**-power for n in (at, rows.max()))
    value, gain = curve.at(at), curve.at(rows.max()) - curve.at(at)
    return _score(value, there), _score(gain, now - there)


def _score(value: float, draws: NDArray[np.float64]) -> Score:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Score(value=value, low=min(float(low), value), high=max(float(high), value))


def _noise(rows: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """Standard deviation of repeated points, pooled; 0 where none is repeated."""
    groups = [losses[rows == n] for n in np.unique(rows)]
    freedom = sum(len(group) - 1 for group in groups)
    return float(np.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom)) if freedom else 0.0


def _fit(rows: NDArray[np.float64], losses: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Fit each line of losses; floors, scales and powers, one a line."""
    if len(np.unique(rows)) < 2:
        raise ValueError("a curve needs points with at least two different numbers of rows")
    best = np.full(len(losses), np.inf)
    found = np.zeros((3, len(losses)))
    for power in _POWERS:
        x = rows**-power
        centred = x - x.mean()
        scale = np.maximum(losses @ centred / (centred @ centred), 0.0)
        floor = losses.mean(axis=1) - scale * x.mean()
        through_zero = losses @ x / (x @ x)
        scale, floor = np.where(floor < 0, through_zero, scale), np.maximum(floor, 0.0)
        error = ((losses - floor[:, None] - scale[:, None] * x) ** 2).sum(axis=1)
        better = error < best
        best = np.where(better, error, best)
        found = np.where(better, np.stack([floor, scale, np.full(len(losses), power)]), found)
    return found[0], found[1], found[2]

"""The door for metrics: a callable from what an arm did with each row to sums that can be added.

A corpus figure is a function of sums over rows (a mean is two sums; BLEU is ten). So a bootstrap resample is a sum of
rows already measured, never a second run of the metric, and every metric gets intervals and a paired difference for free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.arms import Likelihood
from tunesmith.records import Record

__all__ = ["Floats", "Metric", "Outcome", "Statistics", "mean_statistics", "ratio_statistics"]

Floats = NDArray[np.float64]


class Outcome(NamedTuple):
    """What one arm did with one test row."""

    record: Record
    reference: str = ""
    answer: str | None = None
    """None where no answer was asked for."""
    likelihood: Likelihood | None = None
    others: tuple[str, ...] = ()
    """Further references, any of which the answer may resemble."""

    @property
    def references(self) -> tuple[str, ...]:
        return (self.reference, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Sufficient statistics of one metric: a row of K numbers for each of the R outcomes."""

    rows: Floats
    """Shape (R, K), finite; zeros where the row is not counted."""
    counted: NDArray[np.bool_]
    """Shape (R,): the rows that the metric applies to."""
    figure: Callable[[Floats], Floats]
    """From sums over rows, shape (..., K), to the corpus figure, shape (...)."""
    denominator: int
    """The column that two arms must share row by row for their difference to mean anything."""
    signature: str
    """What exactly was computed, so that another tool can repeat it."""


class Metric(Protocol):
    """Measures outcomes; gives one `Statistics` for each figure, and nothing where no row can be measured."""

    def __call__(self, outcomes: Sequence[Outcome], /) -> Mapping[str, Statistics]:
        """Measure every row on its own; names are those under which the figures are reported."""
        ...


def mean_statistics(values: Sequence[float | None], *, signature: str) -> Statistics:
    """Statistics of a plain mean over rows, times 100. None marks a row that is not counted."""
    counted = np.array([value is not None for value in values], dtype=np.bool_)
    scores = np.array([0.0 if value is None else 100.0 * value for value in values])
    return Statistics(
        rows=np.stack([scores, counted.astype(np.float64)], axis=-1),
        counted=counted,
        figure=_mean,
        denominator=1,
        signature=signature,
    )


def ratio_statistics(values: Sequence[tuple[float, float] | None], *, signature: str) -> Statistics:
    """Statistics of a sum over a sum, times 100. None marks a row that is not counted."""
    rows = np.array([(0.0, 0.0, 0.0) if value is None else (100.0 * value[0], value[1], 1.0) for value in values]).reshape(-1, 3)
    counted = np.array([value is not None for value in values], dtype=np.bool_)
    return Statistics(rows=rows, counted=counted, figure=_mean, denominator=2, signature=signature)


def _mean(sums: Floats) -> Floats:
    mean: Floats = sums[..., 0] / sums[..., 1]
    return mean

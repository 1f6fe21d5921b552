"""How sure a figure is: intervals and p values by resampling whole clusters of rows.

Rows of one group (near-equal wordings, turns of one customer) are not independent; treating them so calls differences
between equal models far too often. Clusters are drawn whole, and base and tuned are drawn together.

Reference: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.metric import Floats

__all__ = [
    "MIN_CLUSTERS",
    "NUM_RESAMPLES",
    "Interval",
    "cluster_sums",
    "draw_clusters",
    "interval",
    "paired_p_values",
    "resample",
    "tail_probability",
]

NUM_RESAMPLES = 2_000
MIN_CLUSTERS = 8
"""Fewer give no interval: at 8 clusters it covers the truth 94 times in 100 in simulation, at 5 only 90 to 92."""
_MOST_UNDEFINED = 1e-3
"""A resample misses what stands in k of many clusters with a probability of e^-k: with 7 clusters once in 1,100."""
_BLOCK = 4_000_000  # draws held at once: 32 MB


class Interval(NamedTuple):
    """Bounds of a 95 % interval."""

    low: float
    high: float


def cluster_sums(rows: Floats, *, clusters: NDArray[np.int64]) -> Floats:
    """Add up the rows, shape (R, K), of each cluster 0..C-1: shape (C, K)."""
    sums = np.zeros((int(clusters.max()) + 1, rows.shape[1]))
    np.add.at(sums, clusters, rows)
    return sums


def resample(sums: Floats, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Floats:
    """Draw C clusters with replacement, again and again: sums of statistics, shape (num_resamples, K)."""
    draws = draw_clusters(sums.shape[0], seed=seed, num_resamples=num_resamples)
    return np.concatenate([counts @ sums for counts in draws])


def draw_clusters(num_clusters: int, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Iterator[NDArray[np.int64]]:
    """How often each of C clusters is in each draw: blocks of shape (draws, C), `num_resamples` draws in all."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // num_clusters)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = rng.integers(num_clusters, size=(size, num_clusters)) + np.arange(size)[:, None] * num_clusters
        yield np.bincount(drawn.ravel(), minlength=size * num_clusters).reshape(size, num_clusters)


def interval(draws: Floats, *, num_clusters: int) -> Interval | None:
    """95 % interval from resampled figures, or None where none can be given.

    Percentiles of the draws, at levels widened for few clusters: a plain percentile interval of C clusters is too
    narrow by sqrt((C - 1) / C) and by the normal quantile in place of Student's. In simulation a plain one covers
    0.90 of the time at 10 clusters, the widened one 0.95 (0.87 and 0.92 where rows are skewed); from 50 clusters on they
    hardly differ. Bounds are draws themselves, rounded outwards. Draws in which the figure is not defined (NaN) are left out; where that
    is more than 1 in 1,000 there is no interval.

    Reference: Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section 4.1.1 (expanded percentile).
    """
    undefined = np.isnan(draws)
    if num_clusters < MIN_CLUSTERS or undefined.mean() > _MOST_UNDEFINED:
        return None
    draws = draws[~undefined]
    tail = tail_probability(num_clusters)
    low = np.quantile(draws, tail, method="lower")
    high = np.quantile(draws, 1 - tail, method="higher")
    return Interval(float(low), float(high))


def tail_probability(num_clusters: int) -> float:
    """Share of the draws to leave out at each end; it nears 0.025 as clusters grow."""
    from scipy.special import ndtr, stdtrit

    student = float(stdtrit(num_clusters - 1, 0.975))
    return float(ndtr(-student * math.sqrt(num_clusters / (num_clusters - 1))))


def paired_p_values(
    base: Floats,
    *,
    tuned: Floats,
    figures: Mapping[str, Callable[[Floats], Floats]],
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, float]:
    """Two-sided p values of tuned minus base, by approximate randomisation over clusters.

    If the two were equal, swapping them in any cluster would change nothing. So clusters are swapped at random, and p is
    the share of swaps whose difference is at least as large as the one seen, which itself counts as one. It holds for
    any corpus figure, BLEU and perplexity included, and is never 0.

    Args:
        base: sums of each cluster, shape (C, K).
        tuned: the same for the tuned model.
        figures: by name, each from sums, shape (..., K), to the figure, shape (...).
        seed: of the swaps.
        num_resamples: how many swaps.

    Reference: Noreen, "Computer-Intensive Methods for Testing Hypotheses", 1989.
    """
    rng = np.random.default_rng(seed)
    change, total_base, total_tuned = tuned - base, base.sum(axis=0), tuned.sum(axis=0)
    seen = {name: _distance(figure(total_base), figure(total_tuned)) for name, figure in figures.items()}
    num_as_large = dict.fromkeys(figures, 0)
    block = max(1, _BLOCK // len(base))
    for start in range(0, num_resamples, block):
        swapped = rng.integers(2, size=(min(block, num_resamples - start), len(base))) @ change
        for name, figure in figures.items():
            distances = _distance(figure(total_base + swapped), figure(total_tuned - swapped))
            num_as_large[name] += int((distances >= seen[name] * (1 - 1e-9)).sum())
    return {name: (1 + number) / (1 + num_resamples) for name, number in num_as_large.items()}


def _distance(left: Floats, right: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        distance: Floats = np.nan_to_num(np.abs(right - left), nan=0.0, posinf=np.inf)  # inf - inf: no difference seen
    return distance

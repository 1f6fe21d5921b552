"""The win rate that an arm would have if its answers were as long as the other's.

People and models prefer long answers, so an arm may win by its length alone. The preference is regressed on the difference in length,
and read off where that difference is 0. All that goes with length is taken away, and so also the merit of an answer that is long because
it is complete: the plain win rate stands beside it. Knows numpy only.

Reference: Dubois, Galambosi, Liang and Hashimoto, "Length-Controlled AlpacaEval: A Simple Way to Debias Automatic Evaluators", 2024
(arXiv 2404.04475), without its term for how hard each question is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.bootstrap import draw_clusters, interval
from tunesmith.evaluate.metric import Floats
from tunesmith.records import Score

__all__ = ["EqualLength", "fit_logistic", "rate_at_equal_length"]

_MOST_STEPS = 100
_MOST_HALVINGS = 12
_NEAR = 1e-9
_PRECISION = 0.01
_BLOCK = 1_000_000  # judgements of draws held at once: some ten arrays of 8 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualLength:
    """Two arms, if length did not count."""

    rate: Score | None
    """Share of judgements that would prefer the first at equal length, 0 to 1; a tie counts as half. None: the answers of one arm are
    always the longer ones, so nothing is known of equal length."""
    longer_by: float
    """Characters by which the first arm's answers are longer in the mean; below 0 they are shorter."""


def rate_at_equal_length(won: Floats, *, longer_by: Floats, clusters: NDArray[np.int64], seed: int) -> EqualLength:
    """Fit logit P(the first wins) = a + b tanh(d / s), with d the difference in length and s its standard deviation; the rate is that of a.

    Args:
        won: 1 where a judgement prefers the first, 0 where the second, 0.5 of a tie; shape (N,).
        longer_by: characters by which the first answer is longer; shape (N,).
        clusters: cluster of each judgement, 0..C-1, which are drawn whole for the interval; shape (N,).
        seed: of the resampling behind the interval.
    """
    mean = float(longer_by.mean())
    if longer_by.min() > 0 or longer_by.max() < 0:
        return EqualLength(rate=None, longer_by=mean)
    spread = float(longer_by.std())
    length = np.tanh(longer_by / spread) if spread else np.zeros(len(won))
    fitted = fit_logistic(np.ones((1, len(won))), won=won, length=length)
    value = float(_logistic(fitted)[0, 0])
    num_clusters = int(clusters.max()) + 1
    draws = []
    for counts in draw_clusters(num_clusters, seed=seed):
        block = max(1, _BLOCK // len(won))
        for start in range(0, len(counts), block):
            weights = counts[start : start + block, clusters].astype(np.float64)
            draws.append(_logistic(fit_logistic(weights, won=won, length=length, start=fitted[0])[:, 0]))
    bounds = interval(np.concatenate(draws), num_clusters=num_clusters)
    if bounds is None:
        return EqualLength(rate=Score(value=value), longer_by=mean)
    return EqualLength(rate=Score(value=value, low=min(bounds.low, value), high=max(bounds.high, value)), longer_by=mean)


def fit_logistic(weights: Floats, *, won: Floats, length: Floats, start: Floats | None = None) -> Floats:
    """Logistic regression of many sets of weights at once, by Newton's method on the penalised log likelihood, which is concave.

    The penalty is that of normal priors with a standard deviation of 10. It keeps the fit finite where a judge always takes the longer
    answer. Elsewhere it hardly counts: of 60 judgements it moves the rate by some thousandth of the width of its interval.

    Args:
        weights: how often each judgement counts; shape (R, N).
        won: 0 to 1; shape (N,).
        length: what it is regressed on; shape (N,).
        start: intercept and slope to start at; shape (2,).

    Returns:
        Intercept and slope, shape (R, 2).
    """
    found = np.zeros((len(weights), 2)) if start is None else np.tile(start, (len(weights), 1))
    level = _penalised(found, weights, won=won, length=length)
    left = np.arange(len(weights))
    for _ in range(_MOST_STEPS):
        step, reached = _newton_step(found[left], weights[left], won=won, length=length), level[left]
        for _ in range(_MOST_HALVINGS):
            reached = _penalised(found[left] + step, weights[left], won=won, length=length)
            is_worse = reached < level[left] - _NEAR
            if not is_worse.any():
                break
            step[is_worse] /= 2
        found[left] += step
        level[left] = reached
        left = left[np.abs(step).max(axis=1) > _NEAR]
        if not len(left):
            break
    return found


def _newton_step(found: Floats, weights: Floats, *, won: Floats, length: Floats) -> Floats:
    chance = _logistic(found[:, :1] + found[:, 1:] * length)
    missed = weights * (won - chance)
    first, second = missed.sum(axis=1) - _PRECISION * found[:, 0], missed @ length - _PRECISION * found[:, 1]
    spread = weights * chance * (1 - chance)
    a, b, c = spread.sum(axis=1) + _PRECISION, spread @ length, spread @ length**2 + _PRECISION
    step: Floats = np.stack([c * first - b * second, a * second - b * first], axis=1) / (a * c - b**2)[:, None]
    return step


def _penalised(found: Floats, weights: Floats, *, won: Floats, length: Floats) -> Floats:
    """Log likelihood less the penalty, shape (R,)."""
    odds = found[:, :1] + found[:, 1:] * length
    likelihood: Floats = (weights * (won * odds - np.logaddexp(0, odds))).sum(axis=1) - _PRECISION / 2 * (found**2).sum(axis=1)
    return likelihood


def _logistic(odds: Floats) -> Floats:
    chance: Floats = 0.5 * (1 + np.tanh(odds / 2))
    return chance

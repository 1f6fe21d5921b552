"""Arms side by side: figures with intervals, and each arm's difference to one of them with its p value.

Clusters are drawn whole, and all arms over the same draws: that is what pairs them. P values are corrected over the metrics that were
looked at, because of twenty comparisons of equal models one is "significant" by chance.

References: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979; for the least
detectable difference Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.bootstrap import MIN_CLUSTERS, NUM_RESAMPLES, cluster_sums, interval, paired_p_values, resample
from tunesmith.evaluate.metric import Floats, Statistics
from tunesmith.records import Score

__all__ = ["RESAMPLING", "Compared", "Evidence", "compare", "holm", "rows_needed"]

RESAMPLING = f"95 % expanded percentile bootstrap|whole clusters, paired|resamples:{NUM_RESAMPLES}"
"""How intervals are made, for signatures."""
_FOUND = 1.959964 + 0.841621
"""Standard errors of a difference that is found at 5 %, two-sided, in 80 of 100 tries."""


class Evidence(NamedTuple):
    """What one metric's figures rest on."""

    num_rows: int
    num_clusters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Every arm measured and compared."""

    scores: Mapping[str, Mapping[str, Score]]
    """arm -> metric -> score."""
    differences: Mapping[str, Mapping[str, Score]]
    """arm -> metric -> that arm minus the baseline; empty without a baseline."""
    signatures: Mapping[str, str]
    evidence: Mapping[str, Evidence]


class _Family(NamedTuple):
    """Metrics with one table of sums, for which draws are made once."""

    counted: NDArray[np.bool_]
    num_clusters: int
    sums: dict[str, Floats]
    """Shape (C, K), for each arm."""
    draws: dict[str, Floats]
    """Shape (num_resamples, K)."""


def compare(
    measured: Mapping[str, Mapping[str, Statistics]],
    *,
    clusters: NDArray[np.int64],
    seed: int,
    baseline: str | None = None,
    corrects: bool = True,
) -> Compared:
    """Give every figure its interval, and every arm's difference to the baseline its interval and p value.

    An arm without some metric (an endpoint gives no likelihoods) is left out of that metric alone; all others are measured on the rows
    that count for each of them.

    Args:
        measured: arm -> metric -> statistics, of the same rows in the same order.
        clusters: shape (R,), the cluster of each row.
        seed: of resampling and swapping.
        baseline: the arm that the others are compared with.
        corrects: whether p values are corrected over the metrics (`holm`).
    """
    scores: dict[str, dict[str, Score]] = {arm: {} for arm in measured}
    differences: dict[str, dict[str, Score]] = {arm: {} for arm in measured if baseline in measured and arm != baseline}
    signatures: dict[str, str] = {}
    evidence: dict[str, Evidence] = {}
    families: dict[tuple[int, ...], _Family] = {}
    for metric in dict.fromkeys(metric for figures in measured.values() for metric in figures):
        by_arm = {arm: figures[metric] for arm, figures in measured.items() if metric in figures}
        key = tuple(id(statistics.rows) for statistics in by_arm.values())
        family = families.get(key) or _family(by_arm, clusters=clusters, seed=seed)
        if family is None:
            continue
        families[key] = family
        figure = next(iter(by_arm.values())).figure
        values = {arm: float(figure(sums.sum(axis=0))) for arm, sums in family.sums.items()}
        drawn = {arm: figure(draws) for arm, draws in family.draws.items()}
        for arm, value in values.items():
            scores[arm][metric] = _with_interval(value, drawn[arm], num_clusters=family.num_clusters)
        signatures[metric] = next(iter(by_arm.values())).signature
        evidence[metric] = Evidence(int(family.counted.sum()), family.num_clusters)
        for arm, found in differences.items():
            if arm not in by_arm or baseline not in by_arm:
                continue
            if not _share_units(by_arm[arm], by_arm[baseline or ""], family.counted):
                signatures[metric] += f"|no difference of {arm}: it counts units differently from {baseline} (another tokenizer)"
            elif not np.isinf([values[arm], values[baseline or ""]]).all():
                with np.errstate(invalid="ignore"):  # inf - inf in a draw: then there is no interval
                    change = drawn[arm] - drawn[baseline or ""]
                found[metric] = _difference(values[arm] - values[baseline or ""], change, num_clusters=family.num_clusters)
        signatures[metric] += f"|rows:{evidence[metric].num_rows}|clusters:{family.num_clusters}"
    tested = _tested(differences, measured=measured, families=families, baseline=baseline or "", seed=seed)
    if corrects:
        tested = {arm: _corrected(found) for arm, found in tested.items()}
    return Compared(scores=scores, differences=tested, signatures=signatures, evidence=evidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number: at most 5 % of all families of true hypotheses then hold one below .05.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def rows_needed(difference: Score, *, num_rows: int) -> int | None:
    """How many rows like these it takes until a difference as large as the one seen is found in 80 of 100 tries.

    None where no interval could be given, or nothing was seen. Never fewer than an interval needs.
    """
    if difference.detectable is None or not difference.value or not math.isfinite(difference.value):
        return None
    return max(MIN_CLUSTERS, math.ceil(num_rows * (difference.detectable / difference.value) ** 2))


def _family(by_arm: Mapping[str, Statistics], *, clusters: NDArray[np.int64], seed: int) -> _Family | None:
    counted = np.logical_and.reduce([statistics.counted for statistics in by_arm.values()])
    if not counted.any():
        return None
    numbers = np.unique(clusters[counted], return_inverse=True)[1].astype(np.int64)
    sums = {arm: cluster_sums(statistics.rows[counted], clusters=numbers) for arm, statistics in by_arm.items()}
    drawn = np.split(resample(np.concatenate(list(sums.values()), axis=1), seed=seed), len(sums), axis=1)
    return _Family(counted, int(numbers.max()) + 1, sums, dict(zip(sums, drawn, strict=True)))


def _share_units(one: Statistics, other: Statistics, counted: NDArray[np.bool_]) -> bool:
    return bool((one.rows[counted, one.denominator] == other.rows[counted, other.denominator]).all())


def _with_interval(value: float, draws: Floats, *, num_clusters: int) -> Score:
    bounds = interval(draws, num_clusters=num_clusters)
    return Score(value=value, low=bounds.low, high=bounds.high) if bounds else Score(value=value)


def _difference(value: float, draws: Floats, *, num_clusters: int) -> Score:
    score = _with_interval(value, draws, num_clusters=num_clusters)
    if score.low is None or not np.isfinite(draws).all():
        return score
    return replace(score, detectable=_FOUND * float(draws.std()) * math.sqrt(num_clusters / (num_clusters - 1)))


def _tested(
    differences: Mapping[str, Mapping[str, Score]],
    *,
    measured: Mapping[str, Mapping[str, Statistics]],
    families: Mapping[tuple[int, ...], _Family],
    baseline: str,
    seed: int,
) -> dict[str, dict[str, Score]]:
    """The differences with their p values; swaps are drawn once for each family and arm."""
    tested: dict[str, dict[str, Score]] = {}
    for arm, found in differences.items():
        tested[arm] = dict(found)
        for key, family in families.items():
            figures = {
                metric: measured[arm][metric].figure
                for metric in found
                if key == tuple(id(figures[metric].rows) for figures in measured.values() if metric in figures)
            }
            p_values = (
                paired_p_values(family.sums[baseline], tuned=family.sums[arm], figures=figures, seed=seed) if figures else {}
            )
            for metric, p_value in p_values.items():
                if found[metric].low is not None:
                    tested[arm][metric] = replace(found[metric], p_value=p_value)
    return tested


def _corrected(found: Mapping[str, Score]) -> dict[str, Score]:
    known = {metric: score.p_value for metric, score in found.items() if score.p_value is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return {metric: replace(score, p_adjusted=adjusted.get(metric)) for metric, score in found.items()}

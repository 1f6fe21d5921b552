"""Arms ranked by which answer of two was preferred: win rates and Bradley-Terry strengths, ties included.

A strength is the log odds with which an arm wins against the baseline when one of them does. Intervals come from drawing whole clusters
of rows, so ten people who judge one question count as one question. An arm that never lost is infinitely strong as far as anybody can
tell, and is told to be.

References: Bradley and Terry, "Rank Analysis of Incomplete Block Designs", Biometrika 39, 1952; for ties Davidson, "On Extending the
Bradley-Terry Model to Accommodate Ties in Paired Comparison Experiments", JASA 65, 1970; for when there is a finite solution Ford,
"Solution of a Ranking Problem from Binary Comparisons", American Mathematical Monthly 64, 1957.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.evaluate.bootstrap import Interval, cluster_sums, interval, resample
from tunesmith.evaluate.equal_length import EqualLength, rate_at_equal_length
from tunesmith.evaluate.metric import Floats
from tunesmith.records import Score

__all__ = ["Comparison", "Duel", "Preferred", "Ranking", "fit_davidson", "rank_arms"]

_FAR = 40.0
"""Log odds at which a strength counts as infinite: no number of judgements tells such odds from others."""
_MOST_STEPS = 100
_LONGEST_STEP = 4.0
_MOST_HALVINGS = 12
_RIDGE = 1e-10  # keeps a matrix invertible where draws say nothing of an arm; it moves no figure that they do say something of


class Preferred(StrEnum):
    """Which of two answers is better."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


class Comparison(NamedTuple):
    """One judgement of one pair of answers."""

    first: str
    """The arm of one answer."""
    second: str
    preferred: Preferred
    cluster: str
    """Judgements of one cluster are not independent."""
    longer_by: int | None = None
    """Characters by which the first answer is longer; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Two arms, compared directly."""

    first: str
    second: str
    wins: int
    """Judgements that prefer the first."""
    ties: int
    losses: int
    win_rate: Score
    """Share of judgements that prefer the first, 0 to 1; a tie counts as half."""
    equal_length: EqualLength | None
    """The same, if length did not count; None: lengths are not known."""
    num_clusters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Every arm that was judged, the strongest first."""

    baseline: str
    strengths: Mapping[str, Score]
    """Log odds against the baseline, whose own is 0. Infinite: the arm, or one that stands between, never lost, or never won. Not a number:
    chains of wins lead from neither to the other."""
    tie_weight: float
    """Davidson's nu: two equal arms tie with probability nu / (2 + nu)."""
    duels: tuple[Duel, ...]
    num_judgements: int

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`; figures that are not finite are written as text."""
        return {
            "baseline": self.baseline,
            "strengths": {arm: _plain(score) for arm, score in self.strengths.items()},
            "tie_weight": _number(self.tie_weight),
            "duels": [asdict(duel) | {"win_rate": _plain(duel.win_rate)} for duel in self.duels],
            "num_judgements": self.num_judgements,
        }


def rank_arms(comparisons: Sequence[Comparison], *, baseline: str, seed: int, subject: str | None = None) -> Ranking:
    """Rank arms by maximum likelihood.

    Args:
        comparisons: any number of judgements; of a pair of arms either may be the first.
        baseline: the arm whose strength is 0.
        seed: of the resampling behind the intervals.
        subject: the arm that stands first in every duel of its own; in others the baseline stands second.

    Raises:
        DataError: nothing was compared, or some arms were never compared with the baseline, not even through others.
    """
    arms = sorted({arm for one in comparisons for arm in (one.first, one.second)}, key=lambda arm: (arm != baseline, arm))
    if not comparisons or arms[0] != baseline:
        raise DataError(f"{baseline} was not compared with anything yet")
    duels = [(i, j) for i in range(len(arms)) for j in range(i + 1, len(arms))]
    rows, clusters = _counts(comparisons, arms=arms, duels=duels)
    sums = cluster_sums(rows, clusters=clusters)
    counts = sums.sum(axis=0).reshape(len(duels), 3)
    apart = set(range(len(arms))) - _reached(0, counts > 0, duels=duels, both_ways=True)
    if apart:
        raise DataError(f"{', '.join(arms[i] for i in sorted(apart))}: never compared with {baseline}, not even through others")
    draws = resample(sums, seed=seed).reshape(-1, len(duels), 3)
    fitted, nu = fit_davidson(counts[None], duels=duels, num_arms=len(arms))
    drawn, _ = fit_davidson(draws, duels=duels, num_arms=len(arms))
    strengths = {arms[0]: Score(value=0.0, low=0.0, high=0.0)}
    for i, value in _with_infinities(fitted[0], counts, duels=duels):
        mine = [at for at, duel in enumerate(duels) if i in duel]
        drawn[~draws[:, mine].any(axis=(1, 2)), i] = np.nan  # a draw without a judgement of this arm says nothing of it
        strengths[arms[i]] = _score(value, drawn[:, i], num_clusters=len(sums))
    ordered = dict(sorted(strengths.items(), key=lambda entry: (math.isnan(entry[1].value), -entry[1].value, entry[0])))
    return Ranking(
        baseline=baseline,
        strengths=ordered,
        tie_weight=float(nu[0]),
        duels=tuple(
            _duel(
                sums[:, at * 3 : at * 3 + 3],
                arms=(arms[j], arms[i]) if arms[i] != subject else (arms[i], arms[j]),
                comparisons=comparisons,
                is_turned=arms[i] != subject,
                seed=seed,
            )
            for at, (i, j) in enumerate(duels)
            if counts[at].any()
        ),
        num_judgements=len(comparisons),
    )


def fit_davidson(counts: Floats, *, duels: Sequence[tuple[int, int]], num_arms: int) -> tuple[Floats, Floats]:
    """Fit many tables at once by Newton's method on the concave log likelihood.

    Of arms i and j with strengths s, log P(i wins) = s_i + c, log P(j wins) = s_j + c, log P(tie) = log(nu) + (s_i + s_j) / 2 + c.

    Args:
        counts: how often the first won, they tied, the second won; shape (R, duels, 3).
        duels: the arms of each duel, by number.
        num_arms: arm 0 has strength 0.

    Returns:
        Strengths, shape (R, num_arms), cut off at -40 and 40; and nu, shape (R,).
    """
    # Each outcome's log weight is linear in the parameters (the strengths, then log nu): shape (duels, 3, K).
    design = np.zeros((len(duels), 3, num_arms + 1))
    for at, (i, j) in enumerate(duels):
        design[at, 0, i] = design[at, 2, j] = design[at, 1, -1] = 1.0
        design[at, 1, [i, j]] = 0.5
    has_ties = bool(counts[:, :, 1].any())
    free = list(range(1, num_arms)) + ([num_arms] if has_ties else [])
    allowed = np.array([0.0, 0.0 if has_ties else -np.inf, 0.0])
    design = design[:, :, free]
    values = np.zeros((len(counts), len(free)))
    moving = np.arange(len(counts))
    for _ in range(_MOST_STEPS):
        before = values[moving]
        values[moving] = _climb(before, counts[moving], design=design, allowed=allowed)
        moving = moving[np.abs(values[moving] - before).max(axis=1) > 1e-9]
        if not len(moving):
            break
    strengths = np.concatenate([np.zeros((len(counts), 1)), values[:, : num_arms - 1]], axis=1)
    return strengths, np.exp(values[:, -1]) if has_ties else np.zeros(len(counts))


def _climb(values: Floats, counts: Floats, *, design: Floats, allowed: Floats) -> Floats:
    """One step of Newton's method for each table, halved until the likelihood does not fall."""
    likelihood, shares = _likelihood(values, counts, design=design, allowed=allowed)
    judged = counts.sum(axis=2)
    slope = np.einsum("rdo,dok->rk", counts - judged[:, :, None] * shares, design)
    mean = np.einsum("rdo,dok->rdk", shares, design)
    curve = np.einsum("rdo,dokl->rkl", judged[:, :, None] * shares, design[:, :, :, None] * design[:, :, None, :])
    curve -= np.einsum("rdk,rdl->rkl", judged[:, :, None] * mean, mean)
    step = np.linalg.solve(curve + _RIDGE * np.eye(values.shape[1]), slope[:, :, None])[:, :, 0]
    step *= np.minimum(1.0, _LONGEST_STEP / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
    lowest = likelihood - 1e-12 * (1 + np.abs(likelihood))
    moved, is_lower = values, np.zeros(len(values), dtype=np.bool_)
    for _ in range(_MOST_HALVINGS):
        moved = np.clip(values + step, -_FAR, _FAR)
        is_lower = _likelihood(moved, counts, design=design, allowed=allowed)[0] < lowest
        if not is_lower.any():
            return moved
        step[is_lower] /= 2
    return np.where(is_lower[:, None], values, moved)


def _likelihood(values: Floats, counts: Floats, *, design: Floats, allowed: Floats) -> tuple[Floats, Floats]:
    """Log likelihood of each table, shape (R,), and the share expected of each outcome, shape (R, duels, 3)."""
    weights = np.einsum("dok,rk->rdo", design, values) + allowed
    weights -= weights.max(axis=2, keepdims=True)
    shares = np.exp(weights)
    totals = shares.sum(axis=2, keepdims=True)
    logs = np.where(counts > 0, weights - np.log(totals), 0.0)
    likelihood: Floats = (counts * logs).sum(axis=(1, 2))
    return likelihood, shares / totals


def _counts(
    comparisons: Sequence[Comparison], *, arms: Sequence[str], duels: Sequence[tuple[int, int]]
) -> tuple[Floats, NDArray[np.int64]]:
    """A row for each judgement, with a 1 where its duel's outcome stands, shape (R, duels * 3); and its cluster."""
    place, number = {arm: i for i, arm in enumerate(arms)}, {duel: at for at, duel in enumerate(duels)}
    rows = np.zeros((len(comparisons), len(duels) * 3))
    names: dict[str, int] = {}
    clusters = np.array([names.setdefault(one.cluster, len(names)) for one in comparisons], dtype=np.int64)
    outcomes = {Preferred.FIRST: 0, Preferred.TIE: 1, Preferred.SECOND: 2}
    for row, one in zip(rows, comparisons, strict=True):
        i, j = place[one.first], place[one.second]
        if i == j:
            raise DataError(f"{one.first} was compared with itself")
        outcome = outcomes[one.preferred] if i < j else 2 - outcomes[one.preferred]
        row[number[min(i, j), max(i, j)] * 3 + outcome] = 1.0
    return rows, clusters


def _reached(start: int, seen: NDArray[np.bool_], *, duels: Sequence[tuple[int, int]], both_ways: bool) -> set[int]:
    """Arms to which a chain of wins or ties leads from `start`; or of any comparisons, where both ways count."""
    found, left = {start}, [start]
    while left:
        arm = left.pop()
        for (i, j), (won, tied, lost) in zip(duels, seen, strict=True):
            if i == arm and (won or tied or (both_ways and lost)):
                other = j
            elif j == arm and (lost or tied or (both_ways and won)):
                other = i
            else:
                continue
            if other not in found:
                found.add(other)
                left.append(other)
    return found


def _with_infinities(fitted: Floats, counts: Floats, *, duels: Sequence[tuple[int, int]]) -> list[tuple[int, float]]:
    """Each arm's strength; infinite where no chain of wins or ties leads from the baseline to it or back, unknown where neither does."""
    beaten = _reached(0, counts > 0, duels=duels, both_ways=False)
    found = []
    for i in range(1, len(fitted)):
        beats = 0 in _reached(i, counts > 0, duels=duels, both_ways=False)
        if beats and i in beaten:
            found.append((i, float(fitted[i])))
        else:
            found.append((i, math.inf if beats else -math.inf if i in beaten else math.nan))
    return found


def _score(value: float, draws: Floats, *, num_clusters: int) -> Score:
    bounds = interval(draws, num_clusters=num_clusters)
    if bounds is None or math.isnan(value):
        return Score(value=value)
    low, high = (math.copysign(math.inf, bound) if abs(bound) >= _FAR - 1 else bound for bound in bounds)
    return Score(value=value, low=min(low, value), high=max(high, value))


def _duel(counts: Floats, *, arms: tuple[str, str], comparisons: Sequence[Comparison], is_turned: bool, seed: int) -> Duel:
    """Two arms, from each cluster's counts of won, tied, lost, shape (C, 3), turned round or not."""
    mine = counts[counts.any(axis=1)]
    if is_turned:
        mine = mine[:, ::-1]
    wins, ties, losses = (int(number) for number in mine.sum(axis=0))

    def rate(counts: Floats) -> Floats:
        share: Floats = (counts[..., 0] + counts[..., 1] / 2) / counts.sum(axis=-1)
        return share

    bounds: Interval | None = interval(rate(resample(mine, seed=seed)), num_clusters=len(mine))
    value = float(rate(mine.sum(axis=0)))
    return Duel(
        first=arms[0],
        second=arms[1],
        wins=wins,
        ties=ties,
        losses=losses,
        win_rate=Score(value=value, low=bounds.low, high=bounds.high) if bounds else Score(value=value),
        equal_length=_at_equal_length(comparisons, arms=arms, seed=seed),
        num_clusters=len(mine),
    )


def _at_equal_length(comparisons: Sequence[Comparison], *, arms: tuple[str, str], seed: int) -> EqualLength | None:
    """The rate of the first of two arms, from those of their judgements of which lengths are known."""
    worth = {Preferred.FIRST: 1.0, Preferred.TIE: 0.5, Preferred.SECOND: 0.0}
    names: dict[str, int] = {}
    rows = []
    for one in comparisons:
        if one.longer_by is None or {one.first, one.second} != set(arms):
            continue
        won, longer_by = worth[one.preferred], one.longer_by
        if one.first != arms[0]:
            won, longer_by = 1 - won, -longer_by
        rows.append((won, longer_by, names.setdefault(one.cluster, len(names))))
    if not rows:
        return None
    table = np.array(rows, dtype=np.float64)
    return rate_at_equal_length(table[:, 0], longer_by=table[:, 1], clusters=table[:, 2].astype(np.int64), seed=seed)


def _plain(score: Score) -> dict[str, float | str | None]:
    return {"value": _number(score.value), "low": _number(score.low), "high": _number(score.high)}


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)

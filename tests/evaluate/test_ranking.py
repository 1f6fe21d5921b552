"""Strengths against independent fits, and orders that are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from tunesmith.errors import DataError
from tunesmith.evaluate.ranking import Comparison, Preferred, Ranking, fit_davidson, rank_arms

WORD = {"w": Preferred.FIRST, "t": Preferred.TIE, "l": Preferred.SECOND}


def judged(*duels: tuple[str, str, str]) -> list[Comparison]:
    """Each duel with a letter for each judgement: won, tied, lost by the first. Every judgement is its own cluster."""
    every = [(first, second, letter) for first, second, letters in duels for letter in letters]
    return [Comparison(first, second, WORD[letter], f"c{i}") for i, (first, second, letter) in enumerate(every)]


def strengths(found: Ranking) -> dict[str, float]:
    return {arm: score.value for arm, score in found.strengths.items()}


def test_of_two_arms_the_strength_is_the_log_odds_of_wins_whatever_the_ties():
    for ties in (0, 7):
        found = rank_arms(judged(("tuned", "base", "w" * 30 + "t" * ties + "l" * 12)), baseline="base", seed=0)
        assert found.strengths["tuned"].value == pytest.approx(math.log(30 / 12), abs=1e-9)
        assert found.strengths["base"].value == 0
        (duel,) = found.duels
        assert (duel.first, duel.wins, duel.ties, duel.losses) == ("tuned", 30, ties, 12)
        assert duel.win_rate.value == pytest.approx((30 + ties / 2) / (42 + ties))


def test_of_two_arms_the_share_of_ties_gives_davidsons_nu():
    # P(tie) / sqrt(P(win) P(loss)) = nu, and all three are met exactly.
    found = rank_arms(judged(("tuned", "base", "w" * 30 + "t" * 10 + "l" * 12)), baseline="base", seed=0)
    assert found.tie_weight == pytest.approx(10 / math.sqrt(30 * 12), abs=1e-9)


def test_without_ties_strengths_are_those_of_logistic_regression():
    comparisons = judged(("a", "b", "w" * 14 + "l" * 9), ("b", "c", "w" * 11 + "l" * 13), ("c", "a", "w" * 8 + "l" * 17))
    place = {"a": 0, "b": 1}  # c is the baseline
    design = np.zeros((len(comparisons), 2))
    for row, one in zip(design, comparisons, strict=True):
        if one.first in place:
            row[place[one.first]] += 1
        if one.second in place:
            row[place[one.second]] -= 1
    won = [one.preferred is Preferred.FIRST for one in comparisons]
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=1000).fit(design, won)
    found = strengths(rank_arms(comparisons, baseline="c", seed=0))
    assert [found["a"], found["b"]] == pytest.approx(model.coef_[0], abs=1e-6)


def test_with_ties_the_likelihood_of_davidson_has_its_maximum_there():
    comparisons = judged(
        ("a", "b", "w" * 10 + "t" * 8 + "l" * 6),
        ("c", "b", "w" * 3 + "t" * 5 + "l" * 12),
        ("c", "a", "w" * 2 + "t" * 4 + "l" * 9),
    )

    def loss(values: Sequence[float]) -> float:
        worth = {"b": 1.0, "a": math.exp(values[0]), "c": math.exp(values[1])}
        total = 0.0
        for one in comparisons:
            x, y = worth[one.first], worth[one.second]
            tie = math.exp(values[2]) * math.sqrt(x * y)
            shares = {Preferred.FIRST: x, Preferred.SECOND: y, Preferred.TIE: tie}
            total -= math.log(shares[one.preferred] / (x + y + tie))
        return total

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    found = rank_arms(comparisons, baseline="b", seed=0)
    assert [found.strengths["a"].value, found.strengths["c"].value, math.log(found.tie_weight)] == pytest.approx(best, abs=1e-5)


def test_the_fit_meets_the_likelihood_equations_on_random_tables():
    # At the maximum every arm wins, ties counted as half, as often as is expected, and there are as many ties as expected.
    rng = np.random.default_rng(11)
    duels = [(0, 1), (0, 2), (1, 2), (2, 3), (1, 3)]
    counts = rng.integers(1, 400, size=(300, len(duels), 3)) ** rng.choice([0.3, 1.0, 1.5], size=(300, len(duels), 3))
    fitted, nu = fit_davidson(counts, duels=duels, num_arms=4)
    for table, strength, weight in zip(counts, fitted, nu, strict=True):
        too_many, worth = np.zeros(5), np.exp(strength)
        for (i, j), (won, tied, lost) in zip(duels, table, strict=True):
            expected = np.array([worth[i], weight * math.sqrt(worth[i] * worth[j]), worth[j]])
            expected *= (won + tied + lost) / expected.sum()
            too_many[i] += won + tied / 2 - expected[0] - expected[1] / 2
            too_many[j] += lost + tied / 2 - expected[2] - expected[1] / 2
            too_many[4] += tied - expected[1]
        assert np.abs(too_many).max() < 1e-7 * table.sum()


def test_the_true_order_is_recovered_and_intervals_cover_the_truth():
    rng = np.random.default_rng(7)
    truth = {"base": 0.0, "shots": 0.6, "tuned": 1.4, "large": 2.2}
    num_covered = num_intervals = 0
    for _ in range(40):
        comparisons = []
        for i in range(150):
            first, second = rng.permutation(list(truth))[:2]
            worth = np.exp([truth[first], truth[second]])
            weights = np.array([worth[0], 0.8 * math.sqrt(worth[0] * worth[1]), worth[1]])
            outcome = rng.choice(["w", "t", "l"], p=weights / weights.sum())
            # Two people who say the same of one question are no two witnesses.
            comparisons += [Comparison(first, second, WORD[outcome], f"q{i}")] * 2
        found = rank_arms(comparisons, baseline="base", seed=1)
        for arm in ("shots", "tuned", "large"):
            score = found.strengths[arm]
            assert score.low is not None
            assert score.high is not None
            num_covered += score.low <= truth[arm] <= score.high
            num_intervals += 1
    assert list(found.strengths) == ["large", "tuned", "shots", "base"]
    assert 0.90 <= num_covered / num_intervals <= 0.99


def test_an_arm_that_never_lost_is_infinitely_strong_and_the_others_are_as_they_are():
    comparisons = judged(("best", "base", "w" * 10), ("best", "mid", "w" * 10), ("mid", "base", "w" * 9 + "l" * 3))
    found = rank_arms(comparisons, baseline="base", seed=0)
    assert strengths(found) == {"best": math.inf, "mid": pytest.approx(math.log(3), abs=1e-6), "base": 0.0}
    assert found.strengths["best"].high == math.inf
    assert found.as_json()["strengths"]["best"]["value"] == "inf"
    against_best = strengths(rank_arms(comparisons, baseline="best", seed=0))
    assert against_best == {"best": 0.0, "base": -math.inf, "mid": -math.inf}


def test_two_arms_that_both_beat_one_between_them_cannot_be_told_apart():
    found = rank_arms(judged(("a", "low", "w" * 10), ("base", "low", "w" * 10)), baseline="base", seed=0)
    assert math.isnan(found.strengths["a"].value)
    assert found.strengths["a"].low is None
    assert list(found.strengths)[-1] == "a"


def test_the_order_in_which_a_pair_is_written_does_not_matter():
    one = judged(("a", "b", "wwwwwttl"), ("b", "c", "wwltw"))
    other = [Comparison(second, first, turned(how), cluster) for first, second, how, cluster, _ in one]
    assert rank_arms(one, baseline="b", seed=3) == rank_arms(other, baseline="b", seed=3)


def turned(how: Preferred) -> Preferred:
    return {Preferred.FIRST: Preferred.SECOND, Preferred.SECOND: Preferred.FIRST}.get(how, Preferred.TIE)


def test_the_subject_stands_first_in_its_duels():
    comparisons = judged(("a", "b", "wwwt"), ("b", "c", "ll"), ("c", "a", "wl"))
    duels = {
        subject: {(duel.first, duel.second): (duel.wins, duel.ties, duel.losses) for duel in found.duels}
        for subject in (None, "b")
        if (found := rank_arms(comparisons, baseline="a", seed=0, subject=subject))
    }
    assert duels[None] == {("b", "a"): (0, 1, 3), ("c", "a"): (1, 0, 1), ("c", "b"): (2, 0, 0)}
    assert duels["b"] == {("b", "a"): (0, 1, 3), ("c", "a"): (1, 0, 1), ("b", "c"): (0, 0, 2)}


def test_few_clusters_give_no_interval():
    comparisons = [one._replace(cluster=f"c{i % 7}") for i, one in enumerate(judged(("a", "b", "wwltl" * 10)))]
    found = rank_arms(comparisons, baseline="b", seed=0)
    assert found.strengths["a"].low is None
    assert found.duels[0].win_rate.low is None


def test_only_ties_say_that_arms_are_equal():
    found = rank_arms(judged(("a", "b", "t" * 10)), baseline="b", seed=0)
    assert found.strengths["a"].value == pytest.approx(0, abs=1e-3)
    assert found.duels[0].win_rate.value == 0.5


def test_arms_that_were_never_compared_are_named():
    with pytest.raises(DataError, match="c, d: never compared with base"):
        rank_arms(judged(("a", "base", "wl"), ("c", "d", "wl")), baseline="base", seed=0)
    with pytest.raises(DataError, match="base was not compared with anything yet"):
        rank_arms([], baseline="base", seed=0)

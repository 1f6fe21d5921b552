"""The win rate at equal length against a likelihood maximised by brute force, and judges whose taste is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import norm

from tunesmith.evaluate.equal_length import EqualLength, fit_logistic, rate_at_equal_length
from tunesmith.evaluate.ranking import Comparison, Preferred, rank_arms

Floats = np.ndarray


def measured(won: Floats, longer_by: Floats, clusters: Floats | None = None) -> EqualLength:
    return rate_at_equal_length(won, longer_by=longer_by, clusters=np.arange(len(won)) if clusters is None else clusters, seed=0)


def rate(found: EqualLength) -> tuple[float, float, float]:
    assert found.rate is not None
    assert found.rate.low is not None
    assert found.rate.high is not None
    return found.rate.value, found.rate.low, found.rate.high


def by_brute_force(won: Floats, length: Floats, weights: Floats) -> Floats:
    """The maximum of the log likelihood and of two normal log priors, written out, by a search that knows no derivatives."""

    def loss(beta: Floats) -> float:
        total = -sum(norm.logpdf(value, scale=10) for value in beta)
        for outcome, at, weight in zip(won, length, weights, strict=True):
            odds = beta[0] + beta[1] * at
            total -= weight * (outcome * log_expit(odds) + (1 - outcome) * log_expit(-odds))
        return float(total)

    return minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-11}).x


@pytest.mark.parametrize("seed", range(8))
def test_the_fit_is_the_maximum_of_the_penalised_likelihood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number = int(rng.integers(12, 60))
    length = np.tanh(rng.normal(rng.normal(), 1, number))
    won = rng.choice([0.0, 0.5, 1.0], number)
    if seed % 4 == 3:
        won = (length > np.median(length)) * 1.0  # length alone tells who wins: no finite maximum without the priors
    weights = rng.integers(0, 4, (2, number)).astype(float)
    found = fit_logistic(weights, won=won, length=length)
    for ours, weight in zip(found, weights, strict=True):
        assert ours == pytest.approx(by_brute_force(won, length, weight), abs=1e-5)


def test_a_judge_who_looks_at_length_alone_has_no_preference_at_equal_length() -> None:
    rng = np.random.default_rng(1)
    longer_by = rng.normal(80, 100, 400)  # the first is longer in four pairs of five
    noisy = rng.random(400) < expit(2 * np.tanh(longer_by / 100))
    for won in ((longer_by > 0) * 1.0, noisy * 1.0):
        assert won.mean() > 0.6
        value, low, high = rate(measured(won, longer_by))
        assert low < 0.5 < high
        assert value == pytest.approx(0.5, abs=0.1)


def test_a_judge_who_looks_at_quality_keeps_the_rate() -> None:
    rng = np.random.default_rng(2)
    longer_by = rng.normal(80, 100, 400)
    won = rng.choice([0.0, 0.5, 1.0], 400, p=[0.2, 0.1, 0.7])
    value, low, high = rate(measured(won, longer_by))
    assert value == pytest.approx(won.mean(), abs=0.05)
    assert 0.5 < low < won.mean() < high


def test_the_interval_covers_the_truth_where_two_say_the_same_of_one_question() -> None:
    rng = np.random.default_rng(3)
    num_covered = 0
    for _ in range(100):
        longer_by = rng.normal(50, 100, 60)
        won = (rng.random(60) < expit(0.6 + 1.2 * np.tanh(longer_by / longer_by.std()))) * 1.0
        _, low, high = rate(measured(np.tile(won, 2), np.tile(longer_by, 2), np.tile(np.arange(60), 2)))
        num_covered += low <= expit(0.6) <= high
    assert 89 <= num_covered <= 99


def test_turned_round_the_rates_add_to_one() -> None:
    rng = np.random.default_rng(4)
    longer_by, won = rng.normal(30, 50, 90), rng.choice([0.0, 0.5, 1.0], 90)
    one, other = rate(measured(won, longer_by)), rate(measured(1 - won, -longer_by))
    assert one[0] + other[0] == pytest.approx(1)
    assert one[1] + other[2] == pytest.approx(1, abs=1e-6)


def test_where_one_arm_is_always_longer_nothing_is_said_of_equal_length() -> None:
    won, longer_by = np.array([1.0, 0.0, 0.5] * 10), np.arange(1.0, 31.0)
    assert measured(won, longer_by) == EqualLength(rate=None, longer_by=15.5)
    assert measured(won, -longer_by).rate is None
    assert measured(won, longer_by - 1).rate is not None


def test_equal_lengths_leave_the_rate_as_it_is() -> None:
    won = np.array([1.0] * 30 + [0.5] * 4 + [0.0] * 6)
    value, low, high = rate(measured(won, np.zeros(40)))
    assert value == pytest.approx(won.mean(), abs=1e-3)
    assert low < value < high


def test_few_clusters_give_no_interval() -> None:
    found = measured(np.array([1.0, 0.0] * 7), np.arange(-7.0, 7.0), np.arange(14) // 2)
    assert found.rate is not None
    assert found.rate.low is None


def test_a_ranking_tells_the_rate_of_the_arm_that_stands_first_whichever_way_pairs_are_written() -> None:
    rng = np.random.default_rng(5)
    lengths, won = rng.integers(-50, 90, 60), rng.random(60) < 0.8
    words = {True: Preferred.FIRST, False: Preferred.SECOND}
    straight = [Comparison("t", "b", words[bool(w)], f"c{i}", int(d)) for i, (w, d) in enumerate(zip(won, lengths, strict=True))]
    turned = [Comparison("b", "t", words[not w], f"c{i}", -int(d)) for i, (w, d) in enumerate(zip(won, lengths, strict=True))]
    expected = measured(won * 1.0, lengths.astype(float))
    assert lengths.mean() == expected.longer_by > 0
    for some in (straight, turned, straight[:30] + turned[30:]):
        (duel,) = rank_arms(some, baseline="b", seed=0).duels
        assert duel.equal_length is not None
        assert rate(duel.equal_length) == pytest.approx(rate(expected))
        assert duel.equal_length.longer_by == expected.longer_by
    (unknown,) = rank_arms([one._replace(longer_by=None) for one in straight], baseline="b", seed=0).duels
    assert unknown.equal_length is None

"""Intervals and p values against scipy, exact enumeration, and simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from tunesmith.evaluate.bootstrap import MIN_CLUSTERS, cluster_sums, interval, paired_p_values, resample, tail_probability

Floats = NDArray[np.float64]


def mean(sums: Floats) -> Floats:
    figure: Floats = sums[..., 0] / sums[..., 1]
    return figure


def columns(values: Floats) -> Floats:
    return np.stack([values, np.ones_like(values)], axis=-1)


def test_rows_of_a_cluster_are_added_up() -> None:
    sums = cluster_sums(np.array([[1.0, 1], [2, 1], [4, 1]]), clusters=np.array([1, 0, 1]))
    assert sums.tolist() == [[2, 1], [5, 2]]


def test_draws_are_reproducible_and_cover_whole_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = columns(np.arange(30.0))
    draws = resample(sums, seed=3)
    assert draws.shape == (2000, 2)
    assert (draws[:, 1] == 30).all()
    assert np.array_equal(draws, resample(sums, seed=3))
    assert not np.array_equal(draws, resample(sums, seed=4))
    monkeypatch.setattr("tunesmith.evaluate.bootstrap._BLOCK", 30 * 7)  # 2,000 is not a multiple of 7
    in_blocks = resample(sums, seed=3)
    assert in_blocks.shape == (2000, 2)
    assert mean(in_blocks).std() == pytest.approx(mean(draws).std(), rel=0.1)


@pytest.mark.parametrize("seed", [0, 1])
def test_without_clusters_the_interval_is_scipys_percentile_interval(seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=120)
    ours = interval(mean(resample(columns(values), seed=seed, num_resamples=20_000)), num_clusters=120)
    level = 1 - 2 * tail_probability(120)  # scipy is asked for the same widened level
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=level, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    # A 2.5 % quantile of 20,000 draws has a standard error of about 0.02 of their deviation; allow 4 of both sides'.
    allowed = 4 * np.sqrt(2) * 0.02 * values.std() / np.sqrt(120)
    assert ours is not None
    assert ours == pytest.approx(tuple(theirs), abs=allowed)


def test_the_widened_level_nears_the_plain_one_as_clusters_grow() -> None:
    # Hesterberg 2015: a t interval of n rows is the percentile interval at Phi(-sqrt(n / (n - 1)) t).
    expected = scipy.stats.norm.cdf(-np.sqrt(10 / 9) * scipy.stats.t.ppf(0.975, 9))
    assert tail_probability(10) == pytest.approx(expected)
    assert tail_probability(100_000) == pytest.approx(0.025, rel=1e-3)


def test_paired_intervals_cover_the_true_difference_where_rows_cluster() -> None:
    rng = np.random.default_rng(0)
    num_trials, covered_by_clusters, covered_by_rows = 300, 0, 0
    for _ in range(num_trials):
        clusters = np.repeat(np.arange(30), 6)
        base = rng.normal(size=180)
        tuned = base + 0.3 + rng.normal(size=30)[clusters] + rng.normal(size=180)
        for ids, num_clusters in ((clusters, 30), (np.arange(180), 180)):
            sums = cluster_sums(np.concatenate([columns(base), columns(tuned)], axis=1), clusters=ids)
            draws = resample(sums, seed=int(rng.integers(2**31)), num_resamples=500)
            bounds = interval(mean(draws[:, 2:]) - mean(draws[:, :2]), num_clusters=num_clusters)
            assert bounds is not None
            covered = bounds.low <= 0.3 <= bounds.high
            covered_by_clusters += covered and num_clusters == 30
            covered_by_rows += covered and num_clusters == 180
    # Binomial standard error at 0.95 is 0.013 in 300 trials. Taking rows for independent covers far too rarely.
    assert 0.91 <= covered_by_clusters / num_trials <= 0.985
    assert covered_by_rows / num_trials < 0.75


def test_too_few_clusters_or_undefined_draws_give_no_interval() -> None:
    draws = np.linspace(0, 1, 2000)
    assert interval(draws, num_clusters=MIN_CLUSTERS) is not None
    assert interval(draws, num_clusters=MIN_CLUSTERS - 1) is None
    draws[:2] = np.nan  # 1 in 1,000: they are left out
    assert interval(draws, num_clusters=100) == interval(draws[2:], num_clusters=100)
    draws[2] = np.nan
    assert interval(draws, num_clusters=100) is None


def test_infinite_draws_give_an_infinite_bound() -> None:
    draws = np.concatenate([np.linspace(0, 1, 1000), np.full(1000, np.inf)])
    bounds = interval(draws, num_clusters=100)
    assert bounds is not None
    assert bounds.high == np.inf
    assert 0 <= bounds.low < 0.1


def test_the_p_value_nears_that_of_every_possible_swap() -> None:
    rng = np.random.default_rng(5)
    base, gains = rng.normal(size=12), rng.normal(0.5, 1, size=12)
    seen = abs(gains.mean())
    swaps = np.array(list(itertools.product([-1, 1], repeat=12)))
    exact = (np.abs(swaps @ gains / 12) >= seen * (1 - 1e-9)).mean()
    ours = paired_p_values(columns(base), tuned=columns(base + gains), figures={"m": mean}, seed=0, num_resamples=20_000)["m"]
    assert ours == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_p_values_of_equal_models_are_uniform() -> None:
    rng = np.random.default_rng(1)
    p_values = []
    for trial in range(200):
        base, tuned = rng.exponential(size=(2, 25))
        p_values.append(
            paired_p_values(columns(base), tuned=columns(tuned), figures={"m": mean}, seed=trial, num_resamples=400)["m"]
        )
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) < 0.05) < 0.1


def test_p_is_one_for_the_same_answers_and_small_for_a_steady_gain() -> None:
    base = columns(np.arange(20.0))
    assert paired_p_values(base, tuned=base, figures={"m": mean}, seed=0)["m"] == 1.0
    assert paired_p_values(base, tuned=columns(np.arange(20.0) + 1), figures={"m": mean}, seed=0)["m"] == pytest.approx(1 / 2001)

"""Corrected p values by the procedure that defines them, and what a test set can show by the formula of two means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from tunesmith.evaluate.comparison import compare, holm, rows_needed
from tunesmith.evaluate.metric import mean_statistics
from tunesmith.evaluate.slices import slices_of


def rejected(p_values: list[float], *, level: float) -> set[int]:
    """Holm's step-down procedure as he wrote it: the smallest first, until one is not below the level over those that are left."""
    found: set[int] = set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        found.add(place)
    return found


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8))
def test_an_adjusted_p_value_is_the_least_level_at_which_holm_rejects(p_values: list[float]) -> None:
    for place, adjusted in enumerate(holm(p_values)):
        assert p_values[place] <= adjusted <= 1
        if adjusted < 1:
            assert place in rejected(p_values, level=adjusted * (1 + 1e-9))
            assert place not in rejected(p_values, level=adjusted * (1 - 1e-9))


def test_of_many_metrics_of_equal_models_none_is_called_different_because_there_are_many() -> None:
    """Twelve metrics that have nothing to do with each other: without a correction 46 of 100 tries would find something."""
    plain = corrected = 0
    for number in range(60):
        rng = np.random.default_rng(number)
        arms = {
            arm: {f"m{i}": mean_statistics(list(rng.random(80)), signature="") for i in range(12)} for arm in ("base", "tuned")
        }
        found = compare(arms, clusters=np.arange(80), seed=number, baseline="base").differences["tuned"]
        plain += any((score.p_value or 1) < 0.05 for score in found.values())
        corrected += any((score.p_adjusted or 1) < 0.05 for score in found.values())
    assert plain > 15
    assert corrected <= 8  # 5 % of 60 is 3; more than 8 come about four times in a thousand


def test_slices_are_corrected_together() -> None:
    rng = np.random.default_rng(0)
    base, tuned = rng.random(120), rng.random(120)
    tuned[:40] = np.minimum(1, base[:40] + 0.2)
    measured = {
        arm: {"rougeL": mean_statistics(list(values), signature="")} for arm, values in (("base", base), ("tuned", tuned))
    }
    labels = {"kind": ["a"] * 40 + ["b"] * 40 + ["c"] * 40}
    found = slices_of(measured, labels=labels, clusters=np.arange(120), seed=0, baseline="base")
    scores = [one.differences["tuned"]["rougeL"] for one in found]
    plain = [score.p_value for score in scores if score.p_value is not None]
    assert [score.p_adjusted for score in scores] == holm(plain)
    assert len(plain) == 3
    assert [(score.p_adjusted or 1) < 0.05 for score in scores] == [True, False, False]


def test_what_can_be_detected_is_what_the_formula_of_paired_means_says() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(0.5, 0.1, 400)
    change = rng.normal(0.02, 0.1, 400)
    measured = {
        "base": {"m": mean_statistics(list(base), signature="")},
        "tuned": {"m": mean_statistics(list(base + change), signature="")},
    }
    score = compare(measured, clusters=np.arange(400), seed=0, baseline="base").differences["tuned"]["m"]
    spread = 100 * change.std(ddof=1) / math.sqrt(400)
    assert score.detectable == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * spread, rel=0.05)
    needed = rows_needed(score, num_rows=400)
    assert needed == pytest.approx(400 * (score.detectable / score.value) ** 2, abs=1)

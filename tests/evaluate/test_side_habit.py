"""Habits of sides against scipy's exact test of a binomial share, and people who have none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from tunesmith.evaluate.side_habit import measure_sides


@pytest.mark.parametrize(("num_left", "number"), [(0, 5), (5, 5), (13, 40), (31, 40), (20, 40), (1, 1)])
def test_the_interval_is_the_exact_one(num_left: int, number: int) -> None:
    (found,) = measure_sides([("anna", place < num_left) for place in range(number)])
    test = binomtest(num_left, number)
    expected = test.proportion_ci(0.95, method="exact")
    assert (found.by, found.num_left, found.num_decided, found.share.value) == ("anna", num_left, number, num_left / number)
    assert (found.share.low, found.share.high) == pytest.approx((expected.low, expected.high))
    assert found.is_clear == (test.pvalue < 0.05)


def test_habits_that_cancel_out_are_told_of_each_person() -> None:
    everybody, anna, ben = measure_sides([("ben", False)] * 30 + [("anna", True)] * 30)
    assert (everybody.by, everybody.share.value, everybody.is_clear) == ("everybody", 0.5, False)
    assert (anna.by, anna.share.value, anna.is_clear) == ("anna", 1.0, True)
    assert (ben.by, ben.share.value, ben.is_clear) == ("ben", 0.0, True)
    assert anna.share.low == pytest.approx(binomtest(30, 30).proportion_ci(0.975, method="exact").low)


def test_of_many_without_a_habit_one_is_seldom_suspected() -> None:
    rng = np.random.default_rng(0)
    num_alarms = 0
    for _ in range(200):
        chosen = [(f"p{person}", bool(left)) for person in range(10) for left in rng.integers(0, 2, 30)]
        num_alarms += any(one.is_clear for one in measure_sides(chosen)[1:])
    assert num_alarms / 200 <= 0.07


def test_nobody_has_no_habit() -> None:
    assert measure_sides([]) == ()

"""Expected values: the worked examples of the papers named, and scikit-learn."""

from __future__ import annotations

import math
import random

import pytest
from sklearn.metrics import cohen_kappa_score

from tunesmith.data.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, measure_agreement

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units, some missing.
_ = None
RELIABILITY_DATA = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example_with_missing_ratings(level, expected):
    assert krippendorff_alpha(RELIABILITY_DATA, level=level) == pytest.approx(expected, abs=5e-4)


def test_krippendorffs_two_observers_without_missing_ratings():
    """Examples A (binary) and B (nominal) of the same paper."""
    meg = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    owen = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha([meg, owen]) == pytest.approx(0.095, abs=5e-4)
    ben = ["a", "a", "b", "b", "d", "c", "c", "c", "e", "d", "d", "a"]
    gerry = ["b", "a", "b", "b", "b", "c", "c", "c", "e", "d", "d", "d"]
    assert krippendorff_alpha([ben, gerry]) == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_one_minus_the_mean_squared_differences_spelled_out(level):
    """An independent formula: over all pairs within items and over all pairs there are, without any matrix."""
    rng = random.Random(0)
    ratings = [[rng.choice([1.0, 2.0, 4.0, 7.0, None]) for _ in range(30)] for _ in range(3)]
    items = [[row[i] for row in ratings if row[i] is not None] for i in range(30)]
    items = [values for values in items if len(values) > 1]
    everything = [value for values in items for value in values]

    def difference(a, b):
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return (a - b) ** 2
        low, high = min(a, b), max(a, b)
        between = sum(low <= value <= high for value in everything)
        return 0.0 if a == b else (between - (everything.count(a) + everything.count(b)) / 2) ** 2

    within = sum(difference(a, b) / (len(v) - 1) for v in items for i, a in enumerate(v) for j, b in enumerate(v) if i != j)
    over_all = sum(difference(a, b) for i, a in enumerate(everything) for j, b in enumerate(everything) if i != j)
    expected = 1 - (within / len(everything)) / (over_all / (len(everything) * (len(everything) - 1)))
    assert krippendorff_alpha(ratings, level=level) == pytest.approx(expected)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohens_kappa_is_that_of_scikit_learn(weights):
    rng = random.Random(1)
    for size in (5, 50, 500):
        first = [rng.randrange(5) for _ in range(size)]
        second = [value if rng.random() < 0.6 else rng.randrange(5) for value in first]
        expected = cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
        assert cohen_kappa(first, second, weights=weights) == pytest.approx(expected)


def test_cohens_kappa_of_fifty_grant_proposals():
    """20 accepted and 15 refused by both, 5 and 10 by one alone: kappa 0.4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_fleiss_kappa_of_fourteen_raters_and_ten_subjects():
    """The worked example of the encyclopaedias: kappa 0.210."""
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)


def test_where_all_say_the_same_nothing_is_beyond_chance():
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None
    assert fleiss_kappa([[2, 0], [2, 0]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a", None], [None, "b"]]) is None
    assert krippendorff_alpha([]) is None
    assert cohen_kappa([], []) is None


def test_full_agreement_on_several_labels_is_one():
    assert cohen_kappa(["a", "b"], ["a", "b"]) == fleiss_kappa([[2, 0], [0, 2]]) == 1
    assert krippendorff_alpha([["a", "b"], ["a", "b"]]) == 1


def test_unequal_lengths_and_unequal_numbers_of_ratings_are_refused():
    with pytest.raises(ValueError, match="same items"):
        cohen_kappa(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="same number of ratings"):
        fleiss_kappa([[2, 0], [1, 0]])


def test_a_summary_compares_only_what_two_people_have_rated():
    found = measure_agreement(
        {
            "anna": {"1": "good", "2": "bad", "3": "good"},
            "ben": {"1": "good", "2": "good", "4": "bad"},
            "carl": {"5": "bad"},
        }
    )
    assert (found.num_items, found.num_ratings, found.observed) == (2, 4, 0.5)
    assert list(found.labels.items()) == [("good", 4), ("bad", 3)]
    assert found.cohen == {"anna, ben": pytest.approx(cohen_kappa_score(["good", "bad"], ["good", "good"]))}
    assert found.alpha == {"nominal": pytest.approx(krippendorff_alpha([["good", "bad"], ["good", "good"]]))}
    assert found.num_fleiss_items == 2


def test_labels_that_are_numbers_are_compared_as_numbers_too():
    """As words "10" would stand before "2"."""
    found = measure_agreement({"a": {"1": "2", "2": "10", "3": "1"}, "b": {"1": "3", "2": "9", "3": "1"}})
    assert found.alpha["interval"] == pytest.approx(krippendorff_alpha([[2.0, 10.0, 1.0], [3.0, 9.0, 1.0]], level="interval"))
    assert found.alpha["ordinal"] > found.alpha["nominal"]
    assert "ordinal" not in measure_agreement({"a": {"1": "nan"}, "b": {"1": "inf"}}).alpha
    assert math.isclose(found.observed or 0, 1 / 3)


def test_nobody_and_nothing_give_a_summary_without_figures():
    found = measure_agreement({})
    assert (found.num_items, found.observed, found.fleiss, found.cohen) == (0, None, None, {})

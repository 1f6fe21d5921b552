"""How far annotators agree beyond chance: Cohen's kappa, Fleiss' kappa and Krippendorff's alpha. Knows no files.

1 is full agreement, 0 what chance alone would give, below 0 less than that. None: not defined, because there is too little to
compare or because everybody always said the same, so that chance explains all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "Level", "cohen_kappa", "fleiss_kappa", "krippendorff_alpha", "measure_agreement"]

Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["none", "linear", "quadratic"]
Rating = str | float
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What several people said of the same items, compared."""

    num_items: int
    """Items with at least two ratings; only these can be compared."""
    num_ratings: int
    """Ratings of these items."""
    annotators: tuple[str, ...]
    labels: Mapping[str, int]
    """How often each label was given, over all items."""
    observed: float | None
    """Share of pairs of ratings of one item that are equal."""
    cohen: Mapping[str, float | None]
    """For each pair of annotators with common items, written `a, b`."""
    fleiss: float | None
    num_fleiss_items: int
    """Fleiss' kappa wants equally many ratings for every item: those with the most frequent number of them."""
    alpha: Mapping[str, float | None]
    """Krippendorff's, by level: `nominal`, and for numbers `ordinal` and `interval` too."""

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "num_items": self.num_items,
            "num_ratings": self.num_ratings,
            "annotators": list(self.annotators),
            "labels": dict(self.labels),
            "observed": self.observed,
            "cohen_kappa": dict(self.cohen),
            "fleiss_kappa": self.fleiss,
            "num_fleiss_items": self.num_fleiss_items,
            "krippendorff_alpha": dict(self.alpha),
        }


def measure_agreement(ratings: Mapping[str, Mapping[str, str]]) -> Agreement:
    """Compare annotators.

    Args:
        ratings: annotator -> item -> label. Not everybody need have rated everything.
    """
    annotators = sorted(ratings)
    items = sorted({item for rated in ratings.values() for item in rated})
    table = [[ratings[who].get(item) for item in items] for who in annotators]
    given = [[row[i] for row in table if row[i] is not None] for i in range(len(items))]
    shared = [labels for labels in given if len(labels) > 1]
    counts = Counter(label for labels in given for label in labels if label is not None)
    usual = Counter(map(len, shared)).most_common(1)[0][0] if shared else 0
    names = sorted(counts)
    matrix = [[labels.count(name) for name in names] for labels in shared if len(labels) == usual]
    pairs = [a == b for labels in shared for a, b in combinations(labels, 2)]
    numbers = _numbers(table)
    alpha = {"nominal": krippendorff_alpha(table)}
    if numbers is not None:
        alpha |= {"ordinal": krippendorff_alpha(numbers, level="ordinal")}
        alpha |= {"interval": krippendorff_alpha(numbers, level="interval")}
    return Agreement(
        num_items=len(shared),
        num_ratings=sum(map(len, shared)),
        annotators=tuple(annotators),
        labels=dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))),
        observed=sum(pairs) / len(pairs) if pairs else None,
        cohen=_each_pair(annotators, table),
        fleiss=fleiss_kappa(matrix) if matrix else None,
        num_fleiss_items=len(matrix),
        alpha=alpha,
    )


def cohen_kappa(first: Sequence[Rating], second: Sequence[Rating], *, weights: Weights = "none") -> float | None:
    """Agreement of two annotators on the same items (Cohen 1960; weighted, Cohen 1968).

    Args:
        first: labels by one of them.
        second: labels by the other, in the same order.
        weights: how far apart two labels are, by their ranks in sorted order: all alike, by distance, or by squared distance.

    >>> cohen_kappa(["yes", "yes", "no", "no"], ["yes", "no", "no", "no"])
    0.5
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} labels; both annotators must have rated the same items")
    names = sorted({*first, *second}, key=_order)
    at = {name: i for i, name in enumerate(names)}
    seen = np.zeros((len(names), len(names)))
    for a, b in zip(first, second, strict=True):
        seen[at[a], at[b]] += 1
    far = np.abs(np.subtract.outer(np.arange(len(names)), np.arange(len(names)))).astype(np.float64)
    far = {"none": (far > 0).astype(np.float64), "linear": far, "quadratic": far**2}[weights]
    expected = np.outer(seen.sum(1), seen.sum(0)) / max(len(first), 1)
    return _beyond_chance(float((far * seen).sum()), float((far * expected).sum()))


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float | None:
    """Agreement of any number of annotators, equally many for every item (Fleiss 1971).

    Args:
        counts: for each item, how many annotators gave each label; shape (items, labels).
    """
    table = np.asarray(counts, dtype=np.float64)
    num = table.sum(1)
    if not len(table) or (num != num[0]).any() or num[0] < 2:
        raise ValueError("every item needs the same number of ratings, at least two; krippendorff_alpha takes any number")
    share = table.sum(0) / table.sum()
    agreeing = (table * (table - 1)).sum(1) / (num * (num - 1))
    return _beyond_chance(1 - float(agreeing.mean()), 1 - float((share**2).sum()))


def krippendorff_alpha(ratings: Sequence[Sequence[Rating | None]], *, level: Level = "nominal") -> float | None:
    """Agreement of any number of annotators with missing ratings (Krippendorff 2011, "Computing Krippendorff's Alpha").

    Args:
        ratings: for each annotator one rating for each item, None where there is none; shape (annotators, items).
        level: what the difference of two labels means: none but being different, that of their ranks, or that of numbers.
    """
    names = sorted({value for row in ratings for value in row if value is not None}, key=_order)
    at = {name: i for i, name in enumerate(names)}
    items = max(map(len, ratings), default=0)
    counts = np.zeros((items, len(names)))
    for row in ratings:
        for i, value in enumerate(row):
            if value is not None:
                counts[i, at[value]] += 1
    counts = counts[counts.sum(1) > 1]
    if not len(counts):
        return None
    # Each item's pairs of ratings, weighted so that an item counts by its number of ratings and not of pairs.
    weights = 1 / (counts.sum(1) - 1)
    together = (counts * weights[:, None]).T @ counts - np.diag((counts * weights[:, None]).sum(0))
    totals = counts.sum(0)
    far = _distances(totals, names, level=level)
    expected = (np.outer(totals, totals) * far).sum() / (totals.sum() - 1)
    return _beyond_chance(float((together * far).sum()), float(expected))


def _distances(totals: Floats, names: Sequence[Rating], *, level: Level) -> Floats:
    """Squared difference of each two labels."""
    if level == "nominal":
        return 1 - np.eye(len(names))
    # The rank of a label is the middle of the ratings that have it: between two labels lie half of each and all in between.
    ranks = np.cumsum(totals) - totals / 2
    place = ranks if level == "ordinal" else np.array([float(name) for name in names])
    difference: Floats = np.subtract.outer(place, place) ** 2
    return difference


def _beyond_chance(observed: float, expected: float) -> float | None:
    """1 minus disagreement seen over disagreement expected; None where chance expects none."""
    return 1 - observed / expected if expected > 0 else None


def _each_pair(annotators: Sequence[str], table: Sequence[Sequence[str | None]]) -> dict[str, float | None]:
    found = {}
    for (a, left), (b, right) in combinations(zip(annotators, table, strict=True), 2):
        common = [(x, y) for x, y in zip(left, right, strict=True) if x is not None and y is not None]
        if common:
            found[f"{a}, {b}"] = cohen_kappa([x for x, _ in common], [y for _, y in common])
    return found


def _numbers(table: Sequence[Sequence[str | None]]) -> list[list[float | None]] | None:
    """The same ratings as numbers, if every label is one."""
    try:
        numbers = [[None if value is None else float(value) for value in row] for row in table]
    except ValueError:
        return None
    return numbers if all(value is None or np.isfinite(value) for row in numbers for value in row) else None


def _order(value: Rating) -> tuple[bool, float, str]:
    """Numbers by size, then words by alphabet."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")

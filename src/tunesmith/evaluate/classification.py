"""Accuracy, precision, recall and F1 of labels, the table of confusions, and how far stated probabilities can be trusted.

Figures equal scikit-learn's with `zero_division=0`, over the labels that stand in references or answers. An answer is compared as a
whole, white space at its ends aside: what names no label of the references is a wrong answer of a class of its own.

References: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (expected calibration error); Brier, "Verification
of forecasts expressed in terms of probability", 1950; Hanley and McNeil, "The meaning and use of the area under a ROC curve", 1982.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.metric import Floats, Metric, Outcome, Statistics, mean_statistics

__all__ = [
    "NUM_BINS",
    "Confusion",
    "auc",
    "calibration_statistics",
    "classification_over",
    "classification_statistics",
    "confusion",
    "reliability",
]

NUM_BINS = 10
_MAX_CLASSES = 500
"""Of more only what needs no table of classes is measured."""

Figure = Callable[[Floats], Floats]


class Confusion(NamedTuple):
    """How often each label was given for each label that is right."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    """Shape (K, K): rows are references, columns answers."""


def classification_over(arms: Iterable[Sequence[Outcome]]) -> Metric:
    """The metric for several arms on the same rows: one table of classes for all, so that their sums can be compared.

    A class that an arm neither met nor gave counts nothing for it, so each arm's figures are those it has alone.
    """
    classes = frozenset(label for outcomes in arms for pair in _pairs(outcomes) if pair is not None for label in pair)
    return partial(classification_statistics, classes=classes)


def classification_statistics(outcomes: Sequence[Outcome], *, classes: frozenset[str] = frozenset()) -> Mapping[str, Statistics]:
    """Accuracy; precision, recall and F1 as macro, micro and weighted means; and F1 of each class, in percent.

    Args:
        outcomes: of one arm.
        classes: further ones that its table has columns for.
    """
    counted = np.array([row.answer is not None for row in outcomes], dtype=np.bool_)
    if not counted.any():
        return {}
    pairs = _pairs(outcomes)
    own = {label for pair in pairs if pair is not None for label in pair}
    labels = sorted(own | classes)
    hits = [None if pair is None else float(pair[0] == pair[1]) for pair in pairs]
    rule = "labels compared as a whole, blanks at the ends aside|x 100|as scikit-learn, zero_division=0"
    found = {"accuracy": mean_statistics(hits, signature=f"accuracy|{rule}")}
    if len(labels) > _MAX_CLASSES:
        return found
    numbers = {label: number for number, label in enumerate(labels)}
    # Columns: hits, answers and references of each class; then one that counts rows.
    rows = np.zeros((len(outcomes), 3 * len(labels) + 1))
    for place, pair in enumerate(pairs):
        if pair is None:
            continue
        wanted, said = (numbers[label] for label in pair)
        rows[place, 3 * said + 1] += 1
        rows[place, 3 * wanted + 2] += 1
        rows[place, 3 * wanted] += wanted == said
        rows[place, -1] = 1

    def add(name: str, figure: Figure) -> None:
        found[name] = Statistics(
            rows=rows, counted=counted, figure=figure, denominator=rows.shape[1] - 1, signature=f"{name}|{rule}"
        )

    for mean in ("macro", "micro", "weighted"):
        for place, name in enumerate(("precision", "recall", "f1")):
            add(f"{name}_{mean}", partial(_averaged, which=place, mean=mean))
    for number, label in enumerate(labels):
        if label in own:
            add(f"f1:{label}", partial(_of_class, number=number))
    return found


def _pairs(outcomes: Sequence[Outcome]) -> list[tuple[str, str] | None]:
    """Right label and answer of each row; None where no answer was asked for."""
    return [None if row.answer is None else (row.reference.strip(), row.answer.strip()) for row in outcomes]


def confusion(references: Sequence[str], *, answers: Sequence[str]) -> Confusion:
    """The table of confusions."""
    labels = tuple(sorted({*references, *answers}))
    numbers = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, ([numbers[label] for label in references], [numbers[label] for label in answers]), 1)
    return Confusion(labels, counts)


def calibration_statistics(
    probabilities: Sequence[Mapping[str, float] | None], *, references: Sequence[str]
) -> Mapping[str, Statistics]:
    """Expected calibration error (10 bins of equal width) and Brier score of stated probabilities, times 100; lower is better.

    Args:
        probabilities: for each row the probability of each label; None leaves a row out.
        references: the right label of each row.
    """
    counted = np.array([bool(row) for row in probabilities], dtype=np.bool_)
    if not counted.any():
        return {}
    bins = np.zeros((len(references), 3 * NUM_BINS + 1))
    brier: list[float | None] = [None] * len(references)
    for place in np.flatnonzero(counted).tolist():
        row = probabilities[place] or {}
        label, confidence = max(row.items(), key=lambda pair: pair[1])
        column = 3 * _bin(confidence)
        bins[place, column : column + 3] = (1, confidence, label == references[place])
        bins[place, -1] = 1
        brier[place] = sum((p - (name == references[place])) ** 2 for name, p in row.items()) + (references[place] not in row)
    return {
        "ece": Statistics(
            rows=bins,
            counted=counted,
            figure=_ece,
            denominator=bins.shape[1] - 1,
            signature=f"ece|{NUM_BINS} bins of equal width, weighted by their rows|the likeliest label|x 100",
        ),
        "brier": mean_statistics(brier, signature="brier|sum over labels of (p - truth)^2, mean over rows|x 100"),
    }


def reliability(confidences: Sequence[float], *, hits: Sequence[bool]) -> list[tuple[float, float, int]]:
    """For each bin that is not empty: mean confidence, accuracy (both 0 to 1) and how many rows it has."""
    table = np.zeros((NUM_BINS, 3))
    for confidence, hit in zip(confidences, hits, strict=True):
        table[_bin(confidence)] += (confidence, hit, 1)
    return [(float(row[0] / row[2]), float(row[1] / row[2]), int(row[2])) for row in table if row[2]]


def auc(scores: Sequence[float], *, positives: Sequence[bool], weights: Floats | None = None) -> Floats:
    """Area under the ROC curve: how likely a positive row scores above a negative one, ties half; NaN without one of each.

    Args:
        scores: of each of R rows.
        positives: which rows are positive.
        weights: shape (..., R), how often each row counts; a bootstrap gives one row of weights for each draw.

    Returns:
        Shape (...), from 0 to 1.
    """
    values, at = np.unique(np.asarray(scores, float), return_inverse=True)
    held = np.ones((1, len(at))) if weights is None else weights.reshape(-1, len(at))
    sides = []
    for side in (np.asarray(positives, bool), ~np.asarray(positives, bool)):
        sums = np.zeros((len(held), len(values)))
        np.add.at(sums.T, at[side], held[:, side].T)
        sides.append(sums)
    above, below = sides
    earlier = np.cumsum(below, axis=1) - below
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = (above * (earlier + below / 2)).sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))
    return area[0] if weights is None else area.reshape(weights.shape[:-1])


def _bin(confidence: float) -> int:
    return min(int(confidence * NUM_BINS), NUM_BINS - 1)


def _by_class(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Hits, answers and references of each class, shape (..., K)."""
    return sums[..., 0:-1:3], sums[..., 1:-1:3], sums[..., 2:-1:3]


def _ratio(above: Floats, below: Floats) -> Floats:
    ratio: Floats = np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)
    return ratio


def _figures(hits: Floats, answers: Floats, references: Floats) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1."""
    return _ratio(hits, answers), _ratio(hits, references), _ratio(2 * hits, answers + references)


def _averaged(sums: Floats, *, which: int, mean: str) -> Floats:
    hits, answers, references = _by_class(sums)
    if mean == "micro":
        return 100 * _figures(hits.sum(axis=-1), answers.sum(axis=-1), references.sum(axis=-1))[which]
    figures = _figures(hits, answers, references)[which]
    # A class that a resample has on neither side is no class of it.
    weights = references if mean == "weighted" else ((answers + references) > 0).astype(float)
    return 100 * _ratio((figures * weights).sum(axis=-1), weights.sum(axis=-1))


def _of_class(sums: Floats, *, number: int) -> Floats:
    """NaN where nobody named the class: a resample without it says nothing of it, and is no F1 of 0."""
    hits, answers, references = (column[..., number] for column in _by_class(sums))
    f1: Floats = np.where(answers + references > 0, 100 * _figures(hits, answers, references)[2], np.nan)
    return f1


def _ece(sums: Floats) -> Floats:
    counts, confidences, hits = (sums[..., start:-1:3] for start in range(3))
    ece: Floats = 100 * np.abs(hits - confidences).sum(axis=-1) / counts.sum(axis=-1)
    return ece

"""Slices: the test rows by what they have in common, so that a mean does not hide where a model got worse.

P values are corrected over all slices and metrics together (`comparison.holm`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.bootstrap import MIN_CLUSTERS
from tunesmith.evaluate.comparison import compare, holm
from tunesmith.evaluate.metric import Statistics
from tunesmith.evaluate.questions import Question
from tunesmith.evaluate.reading import headlines
from tunesmith.records import Record, Score, Slice

__all__ = ["own_labels", "slices_of"]

_MOST_VALUES = 12
"""Of what the rows go by; of more the smallest are left out."""


def own_labels(records: Sequence[Record], *, questions: Mapping[int, Question]) -> dict[str, list[str]]:
    """What every test row can be sorted by: its domain, its label, and how long its reference is (thirds)."""
    lengths = np.array([len(questions[place].reference) if place in questions else -1 for place in range(len(records))])
    asked = lengths[lengths >= 0]
    borders = np.quantile(asked, (1 / 3, 2 / 3)) if len(asked) >= 3 * MIN_CLUSTERS else None
    names = ("short", "medium", "long")
    return {
        "domain": [record.domain for record in records],
        "label": [record.label or "" for record in records],
        "reference": [
            "" if borders is None or length < 0 else names[int(np.searchsorted(borders, length))] for length in lengths
        ],
    }


def slices_of(
    measured: Mapping[str, Mapping[str, Statistics]],
    *,
    labels: Mapping[str, Sequence[str]],
    clusters: NDArray[np.int64],
    seed: int,
    baseline: str,
) -> tuple[Slice, ...]:
    """Measure slices of at least 8 clusters in the metrics that lead the report.

    Args:
        measured: arm -> metric -> statistics.
        labels: what rows go by, and for each row its value; rows with an empty one are in no slice.
        clusters: the cluster of each row.
        seed: of resampling.
        baseline: the arm that the others are compared with.
    """
    first = next(iter(measured.values()), {})
    metrics = headlines(first)
    found: list[Slice] = []
    for kind, values in labels.items():
        names, counts = np.unique([value for value in values if value], return_counts=True)
        if len(names) < 2:
            continue
        largest = names[np.argsort(-counts, kind="stable")][:_MOST_VALUES]
        for name in sorted(largest):
            is_inside = np.array([value == name for value in values])
            num_clusters = len(np.unique(clusters[is_inside]))
            if num_clusters < MIN_CLUSTERS:
                continue
            inside = {
                arm: {metric: _only(figures[metric], is_inside) for metric in metrics if metric in figures}
                for arm, figures in measured.items()
            }
            compared = compare(inside, clusters=clusters, seed=seed, baseline=baseline, corrects=False)
            found.append(
                Slice(
                    name=f"{kind}: {name}",
                    num_rows=int(is_inside.sum()),
                    num_clusters=num_clusters,
                    scores=compared.scores,
                    differences=compared.differences,
                )
            )
    return _corrected(found)


def _only(statistics: Statistics, is_inside: NDArray[np.bool_]) -> Statistics:
    return replace(statistics, counted=statistics.counted & is_inside)


def _corrected(found: Sequence[Slice]) -> tuple[Slice, ...]:
    known = [
        (at, arm, metric, score.p_value)
        for at, one in enumerate(found)
        for arm, figures in one.differences.items()
        for metric, score in figures.items()
        if score.p_value is not None
    ]
    adjusted = {(at, arm, metric): p for (at, arm, metric, _), p in zip(known, holm([row[3] for row in known]), strict=True)}

    def corrected(at: int, arm: str, figures: Mapping[str, Score]) -> dict[str, Score]:
        return {metric: replace(score, p_adjusted=adjusted.get((at, arm, metric))) for metric, score in figures.items()}

    return tuple(
        replace(one, differences={arm: corrected(at, arm, figures) for arm, figures in one.differences.items()})
        for at, one in enumerate(found)
    )

"""How figures are read and shown: labels, which way is good, how many decimals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from tunesmith.records import Report, Score

__all__ = ["READINGS", "Reading", "direction", "format_difference", "format_figure", "reading_of", "table"]


class Reading(NamedTuple):
    """How one metric is read."""

    label: str
    lower_is_better: bool = False
    decimals: int = 1
    needs_answers: bool = True
    """Measured on generated answers; otherwise on likelihoods."""


READINGS: Mapping[str, Reading] = {
    "perplexity": Reading("perplexity", lower_is_better=True, decimals=2, needs_answers=False),
    "bits_per_byte": Reading("bits per byte", lower_is_better=True, decimals=3, needs_answers=False),
    "rouge1": Reading("ROUGE-1"),
    "rouge2": Reading("ROUGE-2"),
    "rougeL": Reading("ROUGE-L"),
    "bleu": Reading("BLEU"),
    "facts": Reading("facts right (%)"),
}
"""In the order in which they are shown."""

_FIRST, _LAST = ("base", "tuned"), "difference"


def reading_of(metric: str) -> Reading:
    """How to read a metric; one we do not know is taken to be a score of answers, the higher the better."""
    return READINGS.get(metric, Reading(metric))


def direction(score: Score, *, metric: str) -> str:
    """What a difference says: `better`, `worse`, `no clear difference`, or nothing where it has no interval."""
    if score.low is None or score.high is None:
        return ""
    if score.low <= 0 <= score.high:
        return "no clear difference"
    return "better" if (score.high < 0) == reading_of(metric).lower_is_better else "worse"


def format_figure(score: Score, *, metric: str) -> str:
    """A figure with its metric's decimals; fewer for large ones."""
    decimals = reading_of(metric).decimals
    if abs(score.value) >= 1000:
        decimals = 0
    elif abs(score.value) >= 10:
        decimals = min(decimals, 1)
    return f"{score.value:,.{decimals}f}"


def format_difference(score: Score, *, metric: str) -> str:
    """A difference with sign and interval, with decimals enough that nothing but 0 reads as 0."""
    numbers = [number for number in (score.value, score.low, score.high) if number is not None]
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    decimals = 0 if largest >= 1000 else reading_of(metric).decimals
    while decimals < 4 and any(number and not round(number, decimals) for number in numbers if math.isfinite(number)):
        decimals += 1
    text = f"{score.value:+,.{decimals}f}"
    if score.low is None or score.high is None:
        return text
    return f"{text} [{score.low:,.{decimals}f}, {score.high:,.{decimals}f}]"


def table(report: Report) -> list[list[str]]:
    """The figures of every arm as plain text, header first: a row for each metric, and how its difference reads."""
    arms = sorted(
        (arm for arm in report.scores if arm != _LAST),
        key=lambda arm: (arm not in _FIRST, _FIRST.index(arm) if arm in _FIRST else 0),
    )
    difference = report.scores.get(_LAST)
    measured = {metric for arm in arms for metric in report.scores[arm]}
    metrics = [metric for metric in READINGS if metric in measured] + sorted(measured - READINGS.keys())
    header = ["metric", *arms] + ([f"{_LAST} [95 %]", "reading"] if difference is not None else [])
    rows = [header]
    for metric in metrics:
        row = [reading_of(metric).label]
        row += [format_figure(score, metric=metric) if (score := report.scores[arm].get(metric)) else "" for arm in arms]
        if difference is not None:
            score = difference.get(metric)
            row += (
                [format_difference(score, metric=metric), direction(score, metric=metric)]
                if score
                else ["", "cannot be compared"]
            )
        rows.append(row)
    return rows

"""How figures are read and shown: labels, which way is good, how many decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tunesmith.records import Report, Score

__all__ = [
    "READINGS",
    "Reading",
    "direction",
    "format_difference",
    "format_figure",
    "headlines",
    "ordered_arms",
    "ordered_metrics",
    "reading_of",
    "table",
]


class Reading(NamedTuple):
    """How one metric is read."""

    label: str
    lower_is_better: bool = False
    decimals: int = 1
    needs_answers: bool = True
    """Measured on generated answers; otherwise on likelihoods."""
    is_per_row: bool = True
    """Whether one row's own figure says anything."""
    is_judged: bool = True
    """Whether more, or less, is better at all; otherwise it only describes."""
    rank: int = 9
    """Place among the figures that lead a report, the lowest first; 9 leads none."""


READINGS: Mapping[str, Reading] = {
    "perplexity": Reading("perplexity", lower_is_better=True, decimals=2, needs_answers=False, rank=0),
    "bits_per_byte": Reading("bits per byte", lower_is_better=True, decimals=3, needs_answers=False),
    "rouge1": Reading("ROUGE-1"),
    "rouge2": Reading("ROUGE-2"),
    "rougeL": Reading("ROUGE-L", rank=1),
    "rougeLsum": Reading("ROUGE-Lsum"),
    "bleu": Reading("BLEU", is_per_row=False),
    "chrf": Reading("chrF", rank=2),
    "ter": Reading("TER", lower_is_better=True),
    "exact_match": Reading("exact match (%)", rank=2),
    "f1": Reading("token F1", rank=2),
    "accuracy": Reading("accuracy (%)", rank=1),
    **{
        f"{name}_{mean}": Reading(f"{label}, {mean}", is_per_row=False)
        for mean in ("macro", "micro", "weighted")
        for name, label in (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
    },
    "auc": Reading("area under ROC", is_per_row=False),
    "ece": Reading("calibration error", lower_is_better=True, is_per_row=False),
    "brier": Reading("Brier score", lower_is_better=True),
    "facts": Reading("facts right (%)", rank=1),
    "grounding": Reading("statements grounded (%)", rank=2),
    "nothing_invented": Reading("answers that invent nothing (%)"),
    "distinct1": Reading("distinct-1", is_judged=False),
    "distinct2": Reading("distinct-2", is_judged=False),
    "repetition": Reading("repeated 4-grams (%)", is_judged=False),
    "length_ratio": Reading("length beside reference (%)", is_judged=False),
}
"""In the order in which they are shown."""
_NUM_HEADLINES = 3
_LEADS_NONE = 9
_SIGNIFICANT = 0.05


def reading_of(metric: str) -> Reading:
    """How to read a metric; one we do not know is taken to be a score of answers, the higher the better."""
    if metric.startswith("f1:"):
        return Reading(f"F1 of {metric.removeprefix('f1:')}", is_per_row=False)
    return READINGS.get(metric, Reading(metric, rank=1))


def headlines(metrics: Iterable[str]) -> list[str]:
    """The few metrics that lead a report, in order: the likelihood, and what people ask of answers."""
    ranked = sorted((reading_of(metric).rank, place, metric) for place, metric in enumerate(metrics))
    return [metric for rank, _, metric in ranked if rank < _LEADS_NONE][:_NUM_HEADLINES]


def direction(score: Score, *, metric: str) -> str:
    """What a difference says: `better`, `worse`, `no clear difference`, or nothing where it has no interval.

    Looking at many metrics finds something by chance, so a p value corrected for that must be below .05 as well.
    """
    if score.low is None or score.high is None or not reading_of(metric).is_judged:
        return ""
    if score.low <= 0 <= score.high or (score.p_adjusted is not None and score.p_adjusted >= _SIGNIFICANT):
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


def ordered_arms(report: Report) -> list[str]:
    """Names of the arms: the baseline, the subject, then the others as they were given."""
    first = (report.baseline, report.subject)
    return [arm for arm in first if arm in report.scores] + [arm for arm in report.scores if arm not in first]


def ordered_metrics(report: Report) -> list[str]:
    """Names of all figures, in the order in which they are shown; those of single classes last."""
    measured = {metric for figures in report.scores.values() for metric in figures}
    return [metric for metric in READINGS if metric in measured] + sorted(measured - READINGS.keys())


def table(report: Report) -> list[list[str]]:
    """The figures of every arm as plain text, header first: a row for each metric, and how the subject's difference reads."""
    arms = ordered_arms(report)
    difference = report.differences.get(report.subject)
    header = ["metric", *arms] + (["difference [95 %]", "reading"] if difference is not None else [])
    rows = [header]
    for metric in ordered_metrics(report):
        if metric.startswith("f1:"):
            continue
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

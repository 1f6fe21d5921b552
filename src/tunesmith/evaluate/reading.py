"""How figures are read and shown: labels, which way is good, how many decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tunesmith.records import Report, Score

__all__ = [
    "READINGS",
    "Reading",
    "arms_table",
    "direction",
    "format_difference",
    "format_figure",
    "headlines",
    "leading",
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
_LEADING = ("facts", "accuracy", "exact_match", "f1", "rougeL", "chrf", "grounding", "bleu")
_LEADS_NONE = 9
_MOST_COLUMNS = 3
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


def leading(metrics: Iterable[str]) -> str | None:
    """The one metric by which prompts are chosen and compared: what the answers get right, else how they read, else the likelihood.

    >>> leading(["perplexity", "rouge1", "rougeL", "facts"])
    'facts'
    """
    given = list(metrics)
    answers = [metric for metric in given if (reading := reading_of(metric)).needs_answers and reading.is_judged]
    return next((metric for metric in (*_LEADING, *answers, "perplexity", "bits_per_byte") if metric in given), None)


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
    """The figures as plain text, header first: a row for each metric, and how the subject's difference reads.

    Of more than three arms only the baseline, the champion and the subject are shown; `arms_table` has them all.
    """
    arms = ordered_arms(report)
    if len(arms) > _MOST_COLUMNS:
        arms = [arm for arm in arms if arm in {report.baseline, report.subject, "champion"}]
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


def arms_table(report: Report) -> list[list[str]]:
    """Every arm with the figures that lead and with what a request takes, as plain text, header first; empty without `Meter`'s figures.

    The last column says after how many requests the subject's training has paid for itself against that arm.
    """
    took = report.details.get("arms")
    if not took:
        return []
    metrics = headlines(ordered_metrics(report))
    has_cost = any(row.get("cost") is not None for row in took.values())
    pays = any("break_even_requests" in row for row in took.values())
    costs = ["cost of 1,000"] if has_cost else []
    rows = [
        ["arm", *(reading_of(m).label for m in metrics), "tokens", "seconds", *costs, *(["training pays off"] if pays else [])]
    ]
    for arm in ordered_arms(report):
        figures = [format_figure(score, metric=m) if (score := report.scores[arm].get(m)) else "" for m in metrics]
        row = took.get(arm, {})
        is_counted = row.get("prompt_tokens") is not None
        figures.append(f"{row['prompt_tokens']:,.0f} + {row['answer_tokens']:,.0f}" if is_counted else "")
        figures.append(f"{row['seconds']:.3g}" if row.get("seconds") is not None else "")
        if has_cost:
            figures.append(f"{1000 * row['cost']:,.3g}" if row.get("cost") is not None else "")
        if pays:
            number = row.get("break_even_requests")
            never = "never" if "break_even_requests" in row else ""
            figures.append(never if number is None else f"after {number:,}")
        rows.append([arm, *figures])
    return rows

"""Better than the base, or not: one rule for the gate, one honest sentence for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tunesmith.evaluate.bootstrap import MIN_CLUSTERS
from tunesmith.evaluate.reading import direction, format_difference, format_figure, reading_of
from tunesmith.records import Report, Score

__all__ = ["BASE", "DIFFERENCE", "TUNED", "Evidence", "is_better", "write_verdict"]

BASE, TUNED, DIFFERENCE = "base", "tuned", "difference"
_LIKELIHOODS = ("perplexity", "bits_per_byte")  # the first that can be compared leads
_HEADLINES = ("rougeL", "facts")


class Evidence(NamedTuple):
    """What one metric's figures rest on."""

    num_rows: int
    num_clusters: int
    p_value: float | None
    """Of tuned minus base, two-sided."""


def is_better(report: Report) -> bool:
    """Whether the tuned model is better than the base, for certain enough to promote it.

    The interval of the difference in perplexity (in bits per byte where the tokenizers differ) must lie wholly on the
    good side of 0, and no metric of answers may be worse with its interval wholly on the bad side. Where likelihoods
    were not measured, at least one metric of answers must be better instead. No interval (too few clusters) is no proof.
    """
    difference = report.scores.get(DIFFERENCE, {})
    answers = {direction(score, metric=metric) for metric, score in difference.items() if reading_of(metric).needs_answers}
    if "worse" in answers:
        return False
    lead = _lead(report)
    if lead is not None:
        return direction(difference[lead], metric=lead) == "better"
    return "better" in answers and not _measured_likelihood(report)


def write_verdict(report: Report, *, evidence: Mapping[str, Evidence], num_clusters: int) -> str:
    """The report in one sentence: whether better, by how much, on how many rows."""
    where = f"on {_count(report.num_rows, 'test row')} in {_count(num_clusters, 'cluster')}"
    num_answered = len(report.samples)
    if 0 < num_answered < report.num_rows:
        where += f" ({num_answered:,} of them answered)"
    difference = report.scores.get(DIFFERENCE)
    if difference is None:
        return f"{_measured_only(report)}, {where}."
    lead = _lead(report)
    figures = ", ".join(_figures(report, lead=lead, evidence=evidence)) or "nothing could be measured"
    if is_better(report):
        return f"Better than the base: {figures}, {where}."
    if lead is None and _measured_likelihood(report):
        return f"Cannot be compared with the base, whose likelihoods are infinite too or count other units: {figures}, {where}."
    worse = [metric for metric, score in difference.items() if direction(score, metric=metric) == "worse"]
    if worse:
        labels = " and ".join(reading_of(metric).label for metric in worse)
        return f"Not better than the base, worse in {labels}: {figures}, {where}."
    if all(score.low is None for metric, score in difference.items() if lead in (None, metric)):
        return f"Too few rows to tell: {figures}, {where}; intervals need {MIN_CLUSTERS} clusters."
    return f"Not better than the base as far as these rows can tell: {figures}, {where}."


def _lead(report: Report) -> str | None:
    difference = report.scores.get(DIFFERENCE, {})
    return next((metric for metric in _LIKELIHOODS if metric in difference), None)


def _measured_likelihood(report: Report) -> bool:
    return any(metric in report.scores.get(TUNED, {}) for metric in _LIKELIHOODS)


def _figures(report: Report, *, lead: str | None, evidence: Mapping[str, Evidence]) -> Iterator[str]:
    """Answers first, what is worse among them included; then the metric that decides, with its p value."""
    difference = report.scores[DIFFERENCE]
    answers = [metric for metric in difference if reading_of(metric).needs_answers]
    shown = [metric for metric in answers if metric in _HEADLINES or direction(difference[metric], metric=metric) == "worse"]
    for metric in shown or answers[:1]:
        yield f"{reading_of(metric).label} {format_difference(difference[metric], metric=metric)}"
    if lead is not None:
        base, tuned = (format_figure(report.scores[arm][lead], metric=lead) for arm in (BASE, TUNED))
        p_value = evidence[lead].p_value if lead in evidence and difference[lead].low is not None else None
        yield f"{reading_of(lead).label} {base} -> {tuned}" + (f" ({_format_p(p_value)})" if p_value is not None else "")


def _measured_only(report: Report) -> str:
    arms = []
    for arm, scores in report.scores.items():
        shown = [metric for metric in scores if metric in (*_LIKELIHOODS[:1], *_HEADLINES)] or list(scores)
        arms.append(f"{arm} " + ", ".join(_with_interval(scores[metric], metric=metric) for metric in shown))
    return "Measured without a comparison: " + "; ".join(arms)


def _with_interval(score: Score, *, metric: str) -> str:
    bounds: Sequence[float | None] = (score.low, score.high)
    inside = ", ".join(format_figure(Score(value=bound), metric=metric) for bound in bounds if bound is not None)
    return f"{reading_of(metric).label} {format_figure(score, metric=metric)}" + (f" [{inside}]" if inside else "")


def _format_p(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("0.", ".", 1)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

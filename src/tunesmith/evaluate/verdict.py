"""Better than the base, or not: one rule for the gate, one honest sentence for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.evaluate.bootstrap import MIN_CLUSTERS
from tunesmith.evaluate.reading import direction, format_difference, format_figure, reading_of
from tunesmith.records import Report, Score

__all__ = ["BASE", "TUNED", "is_better", "is_worse", "write_verdict"]

BASE, TUNED = "base", "tuned"
_TRAINED_PROMPT = "soft_prompt"  # of the arms that stand for prompting the only one that is trained
_LIKELIHOODS = ("perplexity", "bits_per_byte")  # the first that can be compared leads
_HEADLINES = ("rougeL", "facts", "accuracy", "exact_match", "chrf", "grounding")


def is_better(report: Report) -> bool:
    """Whether the report's subject is better than its baseline, for certain enough to promote it.

    The interval of the difference in perplexity (in bits per byte where the tokenizers differ) must lie wholly on the
    good side of 0, and no metric of answers may be worse with its interval wholly on the bad side. Where likelihoods
    were not measured, at least one metric of answers must be better instead. No interval (too few clusters) is no proof.
    """
    difference = report.differences.get(report.subject, {})
    if is_worse(report):
        return False
    answers = {direction(score, metric=metric) for metric, score in difference.items() if reading_of(metric).needs_answers}
    lead = _lead(report)
    if lead is not None:
        return direction(difference[lead], metric=lead) == "better"
    return "better" in answers and not _measured_likelihood(report)


def is_worse(report: Report) -> bool:
    """Whether any metric of answers is worse than the baseline's for certain; figures of single classes are left out."""
    difference = report.differences.get(report.subject, {})
    return any(
        direction(score, metric=metric) == "worse"
        for metric, score in difference.items()
        if reading_of(metric).needs_answers and not metric.startswith("f1:")
    )


def write_verdict(report: Report, *, num_clusters: int) -> str:
    """The report in one sentence: whether better, by how much, on how many rows; and than prompting, where that was tried."""
    sentence = _against_baseline(report, num_clusters=num_clusters)
    clause = _against_prompts(report)
    return f"{sentence.removesuffix('.')}; {clause}." if clause else sentence


def _against_baseline(report: Report, *, num_clusters: int) -> str:
    where = f"on {_count(report.num_rows, 'test row')} in {_count(num_clusters, 'cluster')}"
    num_answered = len(report.samples)
    if 0 < num_answered < report.num_rows:
        where += f" ({num_answered:,} of them answered)"
    if left_out := report.details.get("left_out"):
        where += f" (left out: {', '.join(f'{number:,} {reason}' for reason, number in left_out.items())})"
    difference = report.differences.get(report.subject)
    if difference is None:
        return f"{_measured_only(report)}, {where}."
    lead = _lead(report)
    figures = ", ".join(_figures(report, lead=lead)) or "nothing could be measured"
    base = "the base" if report.baseline == BASE else report.baseline
    if is_better(report):
        return f"Better than {base}: {figures}, {where}."
    if lead is None and _measured_likelihood(report):
        return f"Cannot be compared with {base}, whose likelihoods are infinite too or count other units: {figures}, {where}."
    worse = [
        metric
        for metric, score in difference.items()
        if direction(score, metric=metric) == "worse" and not metric.startswith("f1:")
    ]
    if worse:
        labels = " and ".join(reading_of(metric).label for metric in worse)
        return f"Not better than {base}, worse in {labels}: {figures}, {where}."
    if all(score.low is None for metric, score in difference.items() if lead in (None, metric)):
        return f"Too few rows to tell: {figures}, {where}; intervals need {MIN_CLUSTERS} clusters."
    return f"Not better than {base} as far as these rows can tell: {figures}, {where}."


def _against_prompts(report: Report) -> str:
    """Whether training beats the best prompt, in the one metric in which prompts are compared."""
    found = report.details.get("prompting")
    if not found:
        return ""
    metric, arm = found["metric"], found["arm"]
    difference = Score(**found["difference"])
    reading = direction(difference, metric=metric)
    p_value = f" ({_format_p(difference.p_value)})" if difference.p_value is not None else ""
    figure = f"{reading_of(metric).label} {format_difference(difference, metric=metric)}{p_value}"
    if reading == "better":
        return f"better than the best prompt too ({arm}): {figure}"
    is_trained = arm.rpartition("+")[2] == _TRAINED_PROMPT
    if reading == "worse":
        how = "with no weight of the model changed" if is_trained else "without any training"
        return f"the best prompt does better {how} ({arm}): {figure}"
    what = "changes no weight of the model" if is_trained else "needs no training"
    return f"not clearly better than the best prompt ({arm}), which {what}: {figure}"


def _lead(report: Report) -> str | None:
    difference = report.differences.get(report.subject, {})
    return next((metric for metric in _LIKELIHOODS if metric in difference), None)


def _measured_likelihood(report: Report) -> bool:
    return any(metric in report.scores.get(report.subject, {}) for metric in _LIKELIHOODS)


def _figures(report: Report, *, lead: str | None) -> Iterator[str]:
    """Answers first, what is worse among them included; then the metric that decides, with its p value."""
    difference = report.differences[report.subject]
    answers = [metric for metric in difference if reading_of(metric).needs_answers and not metric.startswith("f1:")]
    shown = [metric for metric in answers if metric in _HEADLINES or direction(difference[metric], metric=metric) == "worse"]
    for metric in shown or answers[:1]:
        yield f"{reading_of(metric).label} {format_difference(difference[metric], metric=metric)}"
    if lead is not None:
        base, tuned = (format_figure(report.scores[arm][lead], metric=lead) for arm in (report.baseline, report.subject))
        # It was chosen beforehand, so it needs no correction for the others.
        p_value = difference[lead].p_value
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

"""Rows of an evaluation to look at: how many got better and worse, the biggest gains and losses, and which labels were confused."""

from __future__ import annotations

from typing import NamedTuple

from tunesmith.evaluate.classification import confusion
from tunesmith.evaluate.reading import format_difference, format_figure, headlines, ordered_metrics, reading_of
from tunesmith.pipeline.page_parts import Answer, Cell, Pair, Pairs, Part, Section, Table
from tunesmith.records import Report, Sample, Score

__all__ = ["confusion_section", "count_changes", "rows_section"]

_NUM_SHOWN = 5
_MOST_LABELS = 12
"""Of more a table cannot be read, and the most frequent confusions are listed instead."""
_MOST_CONFUSIONS = 20
_LONGEST_LABEL = 40


class Changes(NamedTuple):
    """How many rows one figure moved on."""

    metric: str
    num_better: int
    num_worse: int
    num_same: int


def count_changes(report: Report) -> list[Changes]:
    """For each figure that one row has by itself, on how many rows the subject is better and worse than the baseline."""
    found = []
    for metric in ordered_metrics(report):
        gains = [gain for sample in report.samples if (gain := _gain(sample, report, metric=metric)) is not None]
        if gains and reading_of(metric).is_judged:
            better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
            found.append(Changes(metric, better, worse, len(gains) - better - worse))
    return found


def rows_section(report: Report) -> Section | None:
    """How many rows got better and worse, and the biggest gains and losses side by side."""
    changes = count_changes(report)
    if not changes:
        return None
    lead = _leading(changes)
    label = reading_of(lead.metric).label
    ranked = sorted(
        ((gain, sample) for sample in report.samples if (gain := _gain(sample, report, metric=lead.metric)) is not None),
        key=lambda pair: -pair[0],
    )
    gains = [sample for gain, sample in ranked[:_NUM_SHOWN] if gain > 0]
    losses = [sample for gain, sample in reversed(ranked[-_NUM_SHOWN:]) if gain < 0]
    table: tuple[tuple[Cell, ...], ...] = tuple(
        (reading_of(one.metric).label, one.num_better, one.num_worse, one.num_same) for one in changes
    )
    parts: list[Part] = [Table("Rows by what became of them", ("figure", "better", "worse", "the same"), table)]
    for caption, samples in ((f"Biggest losses in {label}", losses), (f"Biggest gains in {label}", gains)):
        if samples:
            parts.append(Pairs(caption, tuple(_pair(sample, report, metric=lead.metric) for sample in samples)))
    return Section(
        name="rows",
        title="Row by row",
        summary=f"In {label}, {lead.num_better:,} rows got better, {lead.num_worse:,} worse, {lead.num_same:,} stayed the same. "
        f"Marked words stand in one of the two answers only.",
        figures={},
        parts=tuple(parts),
        headline=((f"better in {label}", f"{lead.num_better:,}"), (f"worse in {label}", f"{lead.num_worse:,}")),
    )


def confusion_section(report: Report) -> Section | None:
    """Which labels were taken for which; None where the answers are no labels."""
    arms = [arm for arm in (report.subject, report.baseline) if "accuracy" in report.scores.get(arm, {})]
    if not arms or not report.samples:
        return None
    parts = [_confusions(arm, report, is_folded=arm != report.subject) for arm in dict.fromkeys(arms)]
    return Section(
        name="confusion",
        title="Which labels are confused",
        summary="Rows are what is right, columns what was answered.",
        figures={},
        parts=tuple(parts),
    )


def _confusions(arm: str, report: Report, *, is_folded: bool) -> Table:
    references = [sample.reference.strip() for sample in report.samples]
    answers = [sample.answers[arm].strip() for sample in report.samples]
    known = set(references)
    other = "(no such label)"
    given = [answer if answer in known else other for answer in answers]
    found = confusion(references, answers=given)
    if len(found.labels) <= _MOST_LABELS:
        wanted = [at for at, label in enumerate(found.labels) if label in known]
        rows: list[tuple[Cell, ...]] = [(_label(found.labels[at]), *map(int, found.counts[at])) for at in wanted]
        return Table(f"{arm}: right label and answer", ("right", *map(_label, found.labels)), tuple(rows), is_folded=is_folded)
    pairs = [
        (int(found.counts[i, j]), found.labels[i], found.labels[j])
        for i in range(len(found.labels))
        for j in range(len(found.labels))
        if i != j and found.counts[i, j]
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    most: tuple[tuple[Cell, ...], ...] = tuple((_label(a), _label(b), n) for n, a, b in pairs[:_MOST_CONFUSIONS])
    return Table(f"{arm}: most frequent confusions", ("right", "answered", "rows"), most, bars=2, is_folded=is_folded)


def _label(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def _leading(changes: list[Changes]) -> Changes:
    """Figures of answers first, because likelihoods show nothing that could be read side by side."""
    by_name = {one.metric: one for one in changes}
    leading = headlines(by_name)
    of_answers = [metric for metric in (*leading, *by_name) if reading_of(metric).needs_answers]
    return by_name[(of_answers or leading or list(by_name))[0]]


def _gain(sample: Sample, report: Report, *, metric: str) -> float | None:
    """By how much the subject is better on one row; None where one of the two has no figure."""
    base, subject = (sample.scores.get(arm, {}).get(metric) for arm in (report.baseline, report.subject))
    if base is None or subject is None or report.baseline == report.subject:
        return None
    if base == subject:  # infinite likelihoods too
        return 0.0
    return base - subject if reading_of(metric).lower_is_better else subject - base


def _pair(sample: Sample, report: Report, *, metric: str) -> Pair:
    base, subject = (sample.scores[arm][metric] for arm in (report.baseline, report.subject))
    figures = (format_figure(Score(value=value), metric=metric) for value in (base, subject))
    return Pair(
        question=sample.question,
        reference=sample.reference,
        left=Answer(report.baseline, sample.answers.get(report.baseline, "")),
        right=Answer(report.subject, sample.answers.get(report.subject, "")),
        remark=f"{reading_of(metric).label} {' → '.join(figures)} ({format_difference(Score(value=subject - base), metric=metric)})",
    )

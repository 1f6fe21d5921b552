"""What an evaluation's page says: one function for each section, from a report to tables and pictures. Knows no HTML.

Every figure is the report's own, spelled by `evaluate.reading`; nothing is measured here but how many rows got better or worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.evaluate.comparison import rows_needed
from tunesmith.evaluate.reading import (
    direction,
    format_difference,
    format_figure,
    headlines,
    ordered_arms,
    ordered_metrics,
    reading_of,
)
from tunesmith.pipeline.data_given import plain_section
from tunesmith.pipeline.page_parts import Cell, Certainty, Estimate, Forest, Part, Reliability, Section, Table, count_of
from tunesmith.records import Report, Score, Slice

__all__ = ["evaluation_sections"]

_ROWS = re.compile(r"\|rows:(\d+)")
_OWN = frozenset({"arms", "prompting", "reliability", "contamination", "reproduce", "left_out"})
"""Details that a section of their own shows."""
_COSTS = {
    "num_requests": "requests",
    "prompt_tokens": "prompt tokens",
    "answer_tokens": "answer tokens",
    "seconds": "seconds a request",
    "cost": "price of a request",
    "break_even_requests": "requests until training pays off",
    "break_even_in": "counted in",
}
"""What an arm's costs are called, in the order in which they are shown."""


def evaluation_sections(report: Report) -> tuple[Section, ...]:
    """All that a report says, without the rows it was measured on (`evaluation_samples`)."""
    found = [
        _arms_section(report),
        _differences_section(report),
        _prompting_section(report),
        _slices_section(report),
        _power_section(report),
        _reliability_section(report),
    ]
    return tuple(section for section in found if section is not None)


def facts_sections(report: Report) -> tuple[Section, ...]:
    """What the report keeps beside its scores: contamination, whatever else was measured, and how to do it again."""
    others = [
        plain_section(_anchor(name), title=name.replace("_", " ").capitalize(), summary="", figures=_mapping(value, name=name))
        for name, value in report.details.items()
        if name not in _OWN
    ]
    found = [_contamination_section(report), *others, _reproduce_section(report)]
    return tuple(section for section in found if section is not None)


def figure_in_words(score: Score, *, metric: str) -> str:
    """A figure with its interval, such as `57.9 [51.2, 63.1]`."""
    text = format_figure(score, metric=metric)
    if score.low is None or score.high is None:
        return text
    low, high = (format_figure(Score(value=bound), metric=metric) for bound in (score.low, score.high))
    return f"{text} [{low}, {high}]"


def p_in_words(value: float | None) -> str:
    """A p value; nothing where there is none."""
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _arms_section(report: Report) -> Section:
    arms, metrics = ordered_arms(report), ordered_metrics(report)
    first = headlines(metrics)
    others = [metric for metric in metrics if metric not in first]
    parts: list[Part] = [_figures_table("Figures with their 95 % intervals", report, first, arms=arms)]
    if others:
        parts.append(_figures_table("All other figures", report, others, arms=arms, is_folded=True))
    parts += _costs_tables(report)
    return Section(
        name="arms",
        title="Side by side",
        summary=f"{count_of(len(arms), 'arm')} on the same {count_of(report.num_rows, 'test row')}, "
        f"{len(report.samples):,} of them answered.",
        figures={},
        parts=tuple(parts),
        headline=(("test rows", f"{report.num_rows:,}"), ("answered", f"{len(report.samples):,}")),
    )


def _costs_tables(report: Report) -> tuple[Part, ...]:
    """What a request costs with each arm, where that was measured; columns that say nothing are left out."""
    costs = report.details.get("arms")
    if not isinstance(costs, Mapping):
        return ()
    rows = {arm: row for arm in [*ordered_arms(report), *costs] if isinstance(row := costs.get(arm), Mapping)}
    keys = dict.fromkeys([*_COSTS, *(key for row in rows.values() for key in row)])
    told = [key for key in keys if any(row.get(key) is not None for row in rows.values())]
    figures = {arm: {_COSTS.get(key, key): row.get(key) for key in told} for arm, row in rows.items()}
    return plain_section("costs", title="", summary="", figures={"What a request takes": figures}).parts


def _figures_table(caption: str, report: Report, metrics: list[str], *, arms: list[str], is_folded: bool = False) -> Table:
    columns = ("figure", *arms)
    rows: list[tuple[Cell, ...]] = [
        (
            reading_of(metric).label,
            *(figure_in_words(score, metric=metric) if (score := report.scores[arm].get(metric)) else "" for arm in arms),
        )
        for metric in metrics
    ]
    return Table(caption, columns, tuple(rows), is_folded=is_folded)


def _differences_section(report: Report) -> Section | None:
    """Every arm minus the baseline."""
    arms = [arm for arm in ordered_arms(report) if arm in report.differences]
    metrics = ordered_metrics(report)
    first = headlines(metrics)
    if not arms:
        return None
    pictures = []
    for metric in first:
        estimates = [
            _estimate(arm, score, metric=metric) for arm in arms if (score := report.differences[arm].get(metric)) is not None
        ]
        if estimates:
            caption = f"{reading_of(metric).label}: difference to {report.baseline}"
            pictures.append(Forest(caption, tuple(estimates), lower_is_better=reading_of(metric).lower_is_better))
    rows = tuple(_difference_rows(report, arms=arms, metrics=metrics))
    columns = ("figure", "arm", "difference [95 %]", "p", "p, corrected", "reading")
    return Section(
        name="differences",
        title=f"What changed against {report.baseline}",
        summary="Dots are differences, lines their 95 % intervals. Differences are paired row by row; intervals and p values draw whole "
        "clusters of near-equal rows. P values are corrected for the number of figures looked at (Holm).",
        figures={},
        parts=(*pictures, Table("Every difference", columns, rows, is_folded=True)),
    )


def _difference_rows(report: Report, *, arms: list[str], metrics: list[str]) -> Iterator[tuple[Cell, ...]]:
    for metric in metrics:
        for arm in arms:
            score = report.differences[arm].get(metric)
            if score is None:
                yield (reading_of(metric).label, arm, "", "", "", "cannot be compared")
                continue
            figures = (format_difference(score, metric=metric), p_in_words(score.p_value), p_in_words(score.p_adjusted))
            yield (reading_of(metric).label, arm, *figures, direction(score, metric=metric))


def _estimate(name: str, score: Score, *, metric: str) -> Estimate:
    return Estimate(
        name=name,
        value=score.value,
        low=score.low,
        high=score.high,
        text=format_difference(score, metric=metric),
        reading=direction(score, metric=metric) or "no interval",
    )


def _prompting_section(report: Report) -> Section | None:
    """The subject beside the best of the prompts, where prompts were tried: `arm`, `metric` and the paired `difference`."""
    found = report.details.get("prompting")
    if not isinstance(found, Mapping) or not found:
        return None
    arm, metric, score = found["arm"], found["metric"], Score(**found["difference"])
    label, estimate = reading_of(metric).label, _estimate(report.subject, score, metric=metric)
    p_value = p_in_words(score.p_value)
    sure = f", p {p_value}" if p_value.startswith("<") else f", p = {p_value}" if p_value else ""
    return Section(
        name="prompting",
        title="Prompt or fine-tune?",
        summary=f"The best prompt is {arm}. Beside it {report.subject} has {label} {estimate.text}{sure}: {estimate.reading}. "
        "The prompt was chosen on these very rows, which flatters it.",
        figures={},
        parts=(
            Forest(f"{label}: {report.subject} minus {arm}", (estimate,), lower_is_better=reading_of(metric).lower_is_better),
        ),
    )


def _slices_section(report: Report) -> Section | None:
    """The subject by slices: whether a mean hides where it got worse."""
    slices = [one for one in report.slices if report.subject in one.differences or report.subject in one.scores]
    if not slices:
        return None
    metrics = headlines(metric for metric in ordered_metrics(report) if any(metric in _of(one, report) for one in slices))
    pictures = []
    for metric in metrics:
        estimates = [
            _estimate(f"{one.name} ({one.num_rows:,})", score, metric=metric)
            for one in slices
            if (score := one.differences.get(report.subject, {}).get(metric)) is not None
        ]
        if estimates:
            caption = f"{reading_of(metric).label}: {report.subject} minus {report.baseline}, by slice (rows)"
            pictures.append(Forest(caption, tuple(estimates), lower_is_better=reading_of(metric).lower_is_better))
    worse = [
        f"{one.name} ({reading_of(metric).label} {format_difference(score, metric=metric)})"
        for one in slices
        for metric, score in one.differences.get(report.subject, {}).items()
        if direction(score, metric=metric) == "worse"
    ]
    summary = f"Worse on {'; '.join(worse)}." if worse else "No slice got clearly worse." if pictures else ""
    columns = (
        "slice",
        "rows",
        "clusters",
        "figure",
        report.baseline,
        report.subject,
        "difference [95 %]",
        "p, corrected",
        "reading",
    )
    rows = tuple(row for one in slices for metric in metrics for row in _slice_row(one, report, metric=metric))
    return Section(
        name="slices",
        title="By slices of the test rows",
        summary=f"{summary} Slices of fewer than 8 clusters are left out. P values are corrected over all slices and figures, which a "
        "slice of few clusters may not pass whatever its interval says.".strip(),
        figures={},
        parts=(*pictures, Table("Every slice", columns, rows, is_folded=True)),
    )


def _of(one: Slice, report: Report) -> Mapping[str, Score]:
    return one.scores.get(report.subject, {})


def _slice_row(one: Slice, report: Report, *, metric: str) -> Iterator[tuple[Cell, ...]]:
    score = _of(one, report).get(metric)
    if score is None:
        return
    base = one.scores.get(report.baseline, {}).get(metric)
    found = one.differences.get(report.subject, {}).get(metric)
    yield (
        one.name,
        one.num_rows,
        one.num_clusters,
        reading_of(metric).label,
        figure_in_words(base, metric=metric) if base else "",
        figure_in_words(score, metric=metric),
        format_difference(found, metric=metric) if found else "",
        p_in_words(found.p_adjusted) if found else "",
        direction(found, metric=metric) if found else "",
    )


def _power_section(report: Report) -> Section | None:
    """What differences these rows could have shown, and how many rows the one seen would need."""
    found = report.differences.get(report.subject, {})
    rows: list[tuple[Cell, ...]] = []
    said = []
    for metric in ordered_metrics(report):
        score = found.get(metric)
        if score is None or score.detectable is None:
            continue
        there = _num_rows(report, metric)
        needed = rows_needed(score, num_rows=there)
        smallest = format_figure(Score(value=score.detectable), metric=metric)
        rows.append(
            (reading_of(metric).label, format_difference(score, metric=metric), smallest, there, _needed(needed, there=there))
        )
        if metric in headlines(found):
            text = f"{reading_of(metric).label}: a difference of {smallest} would be found in 80 of 100 tries on {there:,} rows"
            if needed is not None and needed > there:
                text += f"; to be sure of one as small as was seen, about {needed:,} rows are needed"
            said.append(text)
    if not rows:
        return None
    columns = ("figure", "seen [95 %]", "smallest to be found", "rows there", "rows needed to find what was seen")
    return Section(
        name="power",
        title="What these rows can show",
        summary=". ".join(said) + "." if said else "",
        figures={},
        parts=(Table("Smallest differences that would be found", columns, tuple(rows), is_folded=True),),
    )


def _needed(needed: int | None, *, there: int) -> Cell:
    return "" if needed is None else "there are enough" if needed <= there else needed


def _num_rows(report: Report, metric: str) -> int:
    """Rows that a figure rests on, as its signature tells."""
    told = _ROWS.search(report.signatures.get(metric, ""))
    return int(told[1]) if told else report.num_rows


def _reliability_section(report: Report) -> Section | None:
    """How far stated certainty can be trusted, where it was measured: arm -> [[certainty, share right, rows], ...]."""
    measured = report.details.get("reliability")
    if not isinstance(measured, Mapping) or not measured:
        return None
    pictures = tuple(
        Reliability(str(arm), tuple(Certainty(float(c), float(a), int(n)) for c, a, n in bins)) for arm, bins in measured.items()
    )
    return Section(
        name="reliability",
        title="Can its certainty be trusted?",
        summary="Above the dashed line an arm is more often right than it says, below it less often.",
        figures={},
        parts=pictures,
    )


def _contamination_section(report: Report) -> Section | None:
    found = report.details.get("contamination")
    if not isinstance(found, Mapping):
        return None
    figures = {name: value for name, value in found.items() if name not in {"near", "rows", "likeness"}}  # told in the summary
    left_out = report.details.get("left_out")
    if isinstance(left_out, Mapping) and left_out:
        figures["left out of the test rows"] = left_out
    return plain_section(
        "contamination",
        title="Were the test rows seen in training?",
        summary=str(figures.pop("summary", "")),
        figures=figures,
    )


def _reproduce_section(report: Report) -> Section:
    given = report.details.get("reproduce")
    figures = {"report": report.id, **(given if isinstance(given, Mapping) else {})}
    section = plain_section(
        "reproduce", title="How to do it again", summary="Equal inputs give an equal report, and so an equal id.", figures=figures
    )
    signatures = tuple((metric, signature) for metric, signature in report.signatures.items())
    table = Table("What exactly was computed", ("figure", "signature"), signatures, is_folded=True)
    return Section(
        name=section.name, title=section.title, summary=section.summary, figures=figures, parts=(*section.parts, table)
    )


def _mapping(value: Any, *, name: str) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {name: value}


def _anchor(name: str) -> str:
    return "more-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

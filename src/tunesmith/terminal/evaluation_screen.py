"""What an evaluation found: every arm's figures, the difference, the verdict, and where the page lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tunesmith.evaluate import table
from tunesmith.evaluate.reading import direction, reading_of
from tunesmith.pipeline.evaluation_samples import count_changes
from tunesmith.records import Report
from tunesmith.terminal.layout import columns, field

if TYPE_CHECKING:
    from tunesmith.pipeline import Judged

__all__ = ["harness_screen", "judged_screen", "sweep_screen"]


def judged_screen(judged: Judged) -> Text:
    """The table, what became of single rows, slices that got worse, the verdict, and the page."""
    report = judged.report
    parts = [Text(columns(table(report))), Text("")]
    if rows := _rows(report):
        parts.append(field("rows", rows))
    if worse := _worse_slices(report):
        parts.append(field("worse", worse))
    parts += [field("verdict", report.verdict), field("report", str(judged.page))]
    return Text("\n").join(parts)


def sweep_screen(swept: Mapping[str, Any]) -> Text:
    """A row for each scale of an adapter: what it has learned, what it has forgotten, and which to keep."""
    rows = [["scale", "validation loss", "general text, bits per byte", ""]]
    for point in swept["points"]:
        marks = [
            name for name, scale in (("best", swept["best"]), ("recommended", swept["recommended"])) if scale == point["scale"]
        ]
        rows.append([f"{point['scale']:g}", f"{point['validation_loss']:.3f}", f"{point['probe']:.3f}", ", ".join(marks)])
    return Text("\n").join([Text(columns(rows)), Text(""), field("keep", swept["because"])])


def harness_screen(found: Mapping[str, Any]) -> Text:
    """What lm-eval found: a row for each figure of each task."""
    rows = [["task", "figure", "value"]]
    for task, figures in found.get("results", {}).items():
        for name, value in figures.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                rows.append([task, name, f"{value:.4g}"])
    return Text(columns(rows))


def _rows(report: Report) -> str:
    lines = [
        f"{reading_of(one.metric).label}: {one.num_better:,} better, {one.num_worse:,} worse, {one.num_same:,} the same"
        for one in count_changes(report)
        if reading_of(one.metric).needs_answers
    ]
    return "\n".join(lines[:3])


def _worse_slices(report: Report) -> str:
    return "\n".join(
        f"{one.name} ({one.num_rows:,} rows): {reading_of(metric).label}"
        for one in report.slices
        for metric, score in one.differences.get(report.subject, {}).items()
        if direction(score, metric=metric) == "worse"
    )

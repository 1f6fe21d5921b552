"""An evaluation as one offline page, and its report as JSON beside it."""

from __future__ import annotations

from pathlib import Path

from tunesmith.data.writing import open_outputs
from tunesmith.evaluate import to_json
from tunesmith.pipeline.evaluation_samples import confusion_section, rows_section
from tunesmith.pipeline.evaluation_sections import evaluation_sections, facts_sections
from tunesmith.pipeline.page import page
from tunesmith.records import Report

__all__ = ["evaluation_page", "write_evaluation"]

_FIRST = ("arms", "differences", "prompting", "rows", "confusion")
"""What a reader asks first; the other sections follow as they are made."""


def evaluation_page(report: Report, *, title: str) -> str:
    """The page: the verdict, every figure, the rows behind them, and how to do it again."""
    found = [*evaluation_sections(report), rows_section(report), confusion_section(report), *facts_sections(report)]
    sections = {section.name: section for section in found if section is not None}
    first = [sections.pop(name) for name in _FIRST if name in sections]
    return page(title, [*first, *sections.values()], kind="Evaluation", lead=report.verdict)


def write_evaluation(report: Report, *, title: str, html: Path) -> None:
    """Write the page, and the report beside it under the same name with `.json`; both are there whole or not at all.

    Raises:
        UserError: the place cannot be written to.
        OutOfSpace: the disk is full; what was there before is still there.
    """
    with open_outputs(html, html.with_suffix(".json")) as (shown, figures):
        shown.write(evaluation_page(report, title=title).encode())
        figures.write(to_json(report))

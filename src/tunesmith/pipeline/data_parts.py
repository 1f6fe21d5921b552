"""What a data report is made of: sections with their figures, and tables, pictures and samples that show them. Knows no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunesmith.data.profile import Lengths

__all__ = ["MOST_ROWS", "Cell", "Histogram", "Sample", "Samples", "Section", "Table", "count_of", "joined_figures", "rows_of"]

Cell = str | int | float

MOST_ROWS = 40
"""Of a table."""


class Table(NamedTuple):
    """A table; where `bars` names a column, each number in it is drawn as a bar too."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    bars: int | None = None


class Histogram(NamedTuple):
    """How values are spread, as a picture with its table."""

    caption: str
    unit: str
    lengths: Lengths


class Sample(NamedTuple):
    """A row to look at: where it stands, what is to be said of it, and its text."""

    source: str
    remark: str
    text: str


class Samples(NamedTuple):
    """Rows to look at, under one heading."""

    caption: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the report."""

    name: str
    """Its key in the JSON, and its anchor on the page."""
    title: str
    summary: str
    """What it comes to, in a sentence."""
    figures: Mapping[str, Any]
    """All that was measured, as plain JSON values."""
    parts: tuple[Table | Histogram | Samples, ...] = ()
    headline: tuple[tuple[str, str], ...] = field(default=())
    """Figures for the top of the page: (name, value)."""


def joined_figures(sections: Iterable[Section]) -> dict[str, Any]:
    """All figures by section."""
    return {section.name: dict(section.figures) for section in sections}


def rows_of(number: int) -> str:
    """Such as `1 row` or `2,000 rows`."""
    return count_of(number, "row")


def count_of(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

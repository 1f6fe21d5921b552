"""What a report is made of: sections with their figures, and tables, pictures and samples that show them. Knows no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tunesmith.data.profile import Lengths

__all__ = [
    "MOST_ROWS",
    "Answer",
    "Cell",
    "Certainty",
    "Estimate",
    "Forest",
    "Histogram",
    "Pair",
    "Pairs",
    "Part",
    "Reliability",
    "Sample",
    "Samples",
    "Section",
    "Table",
    "count_of",
    "joined_figures",
    "rows_of",
]

Cell = str | int | float

MOST_ROWS = 40
"""Of a table."""


class Table(NamedTuple):
    """A table; where `bars` names a column, each number in it is drawn as a bar too."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    bars: int | None = None
    is_folded: bool = False
    """Whether it is shown only when asked for."""


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


class Estimate(NamedTuple):
    """A difference with its interval."""

    name: str
    value: float
    low: float | None
    high: float | None
    text: str
    """The figures in words."""
    reading: str
    """`better`, `worse`, or what else it says."""


class Forest(NamedTuple):
    """Differences in one measure, as a picture."""

    caption: str
    estimates: tuple[Estimate, ...]
    lower_is_better: bool = False


class Certainty(NamedTuple):
    """Answers of about the same stated certainty."""

    confidence: float
    """Stated, on average, 0 to 1."""
    accuracy: float
    """Share that was right, 0 to 1."""
    num_rows: int


class Reliability(NamedTuple):
    """How far stated certainty can be trusted, as a picture with its table."""

    caption: str
    bins: tuple[Certainty, ...]


class Answer(NamedTuple):
    """What somebody answered."""

    name: str
    text: str


class Pair(NamedTuple):
    """Two answers to one question."""

    question: str
    reference: str
    left: Answer
    right: Answer
    remark: str


class Pairs(NamedTuple):
    """Pairs of answers, under one heading."""

    caption: str
    pairs: tuple[Pair, ...]


Part = Table | Histogram | Samples | Forest | Reliability | Pairs


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
    parts: tuple[Part, ...] = ()
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

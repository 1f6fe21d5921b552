"""What tests of metrics share: rows of answers, and the figure of a whole corpus."""

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.evaluate import Metric, Outcome, Statistics
from tunesmith.records import Record, Source

SHARED = Path(os.environ.get("TUNESMITH_SHARED") or Path(__file__).parents[3] / "shared") / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data sets are not at {SHARED}; set TUNESMITH_SHARED")


def outcomes_of(answers: Sequence[str | None], references: Sequence[str | Sequence[str]]) -> list[Outcome]:
    rows = []
    for place, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        first, *others = [reference] if isinstance(reference, str) else reference
        record = Record(id=f"r{place}", source=Source(path="x", line=place + 1))
        rows.append(Outcome(record, first, answer, None, tuple(others)))
    return rows


def figure_of(statistics: Statistics) -> float:
    return float(statistics.figure(statistics.rows[statistics.counted].sum(axis=0)))


def measured(metric: Metric, answers: Sequence[str | None], references: Sequence[str | Sequence[str]]) -> dict[str, float]:
    return {name: figure_of(found) for name, found in metric(outcomes_of(answers, references)).items()}


def shared_rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(SHARED / name) as lines:
        yield from map(json.loads, lines)


def shared_json(name: str) -> Any:
    with gzip.open(SHARED / name) as file:
        return json.load(file)

"""The coverage verdict on files: read rows, read targets, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.data import SourceConfig, read
from tunesmith.data.coverage import Coverage, measure_coverage
from tunesmith.data.targets import read_targets
from tunesmith.errors import DataError
from tunesmith.records import Record

__all__ = ["Coverage", "cover_file", "cover_test"]

_MAX_ROWS, _MAX_TARGETS = 20_000, 500


def cover_file(file: Path, *, target: Path) -> Coverage:
    """Say how well a file's rows cover the examples of another.

    Raises:
        NotFound: a file does not exist.
        DataError: a file cannot be read, or has no usable row.
    """
    targets = read_targets(target)
    rows = [row for row in read(SourceConfig(path=str(file)), folder=Path()).rows if isinstance(row, Record)]
    if not rows:
        raise DataError(f"{file}: no row can be trained on, so nothing is covered")
    return measure_coverage(rows, targets=targets)


def cover_test(rows: Sequence[Record], *, test: Sequence[Record]) -> Coverage | None:
    """Say how well training rows cover the test rows, from an even sample of each where there are many; None without test rows."""
    if not test:
        return None
    return measure_coverage(rows[:: -(-len(rows) // _MAX_ROWS)], targets=test[:: -(-len(test) // _MAX_TARGETS)])

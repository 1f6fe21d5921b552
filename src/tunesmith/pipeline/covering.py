"""The coverage verdict on files: read rows, read targets, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data import SourceConfig, read
from tunesmith.data.coverage import Coverage, measure_coverage
from tunesmith.data.targets import read_targets
from tunesmith.errors import DataError
from tunesmith.records import Record

__all__ = ["Coverage", "CoveredFile", "cover_file", "cover_test"]

_MAX_ROWS, _MAX_TARGETS = 20_000, 500
_NUM_EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredFile:
    """The verdict on a file, and what of it could not be read."""

    coverage: Coverage
    unread: Mapping[str, int]
    """Rows that cannot be trained on, and so cover nothing, by reason."""
    examples: tuple[str, ...]
    """The first of them, as `file:line  why`."""
    skipped: tuple[str, ...]
    """Files of a folder or archive that are of no kind read here."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        more = {"unread": dict(self.unread), "examples": list(self.examples), "skipped": list(self.skipped)}
        return self.coverage.as_json() | more


def cover_file(file: Path, *, target: Path) -> CoveredFile:
    """Say how well a file's rows cover the examples of another.

    Raises:
        NotFound: a file does not exist.
        DataError: a file cannot be read, has no usable row, or is its own target.
    """
    if file.exists() and target.exists() and file.samefile(target):
        raise DataError(
            f"{file} is its own target, and covers itself whatever it holds. Name examples that are not among its rows"
        )
    targets = read_targets(target)
    reading = read(SourceConfig(path=str(file)), folder=Path())
    rows: list[Record] = []
    unread: Counter[str] = Counter()
    examples: list[str] = []
    for row in reading.rows:
        if isinstance(row, Record):
            rows.append(row)
        else:
            unread[row.reason] += 1
            if len(examples) < _NUM_EXAMPLES:
                examples.append(f"{row.source}  {row.detail}")
    if not rows:
        raise DataError("\n".join([*examples, f"{file}: no row can be trained on, so nothing is covered"]))
    return CoveredFile(
        coverage=measure_coverage(rows, targets=targets),
        unread=dict(sorted(unread.items())),
        examples=tuple(examples),
        skipped=reading.skipped,
    )


def cover_test(rows: Sequence[Record], *, test: Sequence[Record]) -> Coverage | None:
    """Say how well training rows cover the test rows, from an even sample of each where there are many; None without either."""
    if not test or not rows:
        return None
    return measure_coverage(rows[:: -(-len(rows) // _MAX_ROWS)], targets=test[:: -(-len(test) // _MAX_TARGETS)])

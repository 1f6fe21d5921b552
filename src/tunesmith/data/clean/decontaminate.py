"""Rows that hold what a test asks are dropped: the tests of files named here, and after the split those of the recipe itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.data.clean.step import Step, Whole, each
from tunesmith.data.clean_config import DecontaminateSettings
from tunesmith.records import Dropped, Record

__all__ = ["build", "without_tests"]


def build(settings: DecontaminateSettings | None, *, folder: Path) -> Step:
    """Make the step.

    Raises:
        NotFound: there is no such file of tests.
        DataError: it cannot be read, or no row of it can.
    """
    wanted = settings or DecontaminateSettings()
    tests = [test for path in wanted.against for test in _tests(path, folder=folder)]

    return Whole(lambda rows: without_tests(rows, tests, settings=wanted)) if tests else each(lambda record: record)


def without_tests(
    rows: Sequence[Record], tests: Sequence[Record], *, settings: DecontaminateSettings
) -> Iterator[Dropped | None]:
    """For each row why it is dropped, or None."""
    from tunesmith.data.contamination import contaminations
    from tunesmith.data.leakage import said_in

    for i, found in enumerate(contaminations(rows, tests, share=settings.share, likeness=settings.likeness)):
        if found is None:
            yield None
            continue
        row, source = rows[i], tests[found.test].source
        what = "asks nearly the same as" if found.share is None else f"holds {100 * found.share:.0f} % of"
        yield Dropped(source=row.source, reason="contaminated", detail=f"{what} test row {source}", raw=said_in(row)[:200])


def _tests(path: str, *, folder: Path) -> list[Record]:
    from tunesmith.data.config import SourceConfig
    from tunesmith.data.read import read
    from tunesmith.errors import DataError

    rows = list(read(SourceConfig(path=path), folder=folder, key="decontaminate.against").rows)
    tests = [row for row in rows if isinstance(row, Record)]
    if len(tests) < len(rows):
        bad = next(row for row in rows if isinstance(row, Dropped))
        raise DataError(
            f"{bad.source}: a row of tests cannot be read: {bad.detail}. "
            "Training rows could hold it unseen. Mend it, or take it out of the file."
        )
    return tests

"""Of records with equal content the first is kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step, texts_of
from tunesmith.data.clean_config import Settings
from tunesmith.records import Dropped, Record, Source

__all__ = ["build"]


def build(_settings: Settings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it has no settings."""
    return _drop_repeated


def _drop_repeated(records: Iterable[Record]) -> Iterator[Outcome]:
    # Of a million rows only what is needed is held: of an id its first half, and of a place its line and its file's number.
    first: dict[str, int] = {}
    lines, files = array("q"), array("l")
    names: dict[str, int] = {}
    for record in records:
        at = first.setdefault(record.id[:32], len(lines))
        if at == len(lines):
            lines.append(record.source.line)
            files.append(names.setdefault(record.source.path, len(names)))
            yield record
        else:
            original = Source(path=list(names)[files[at]], line=lines[at])
            yield Dropped(
                source=record.source,
                reason="exact_duplicate",
                detail=f"the same as {original}, which is kept",
                raw=texts_of(record)[0][:200],
            )

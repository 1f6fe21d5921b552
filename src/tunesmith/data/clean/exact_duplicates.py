"""Of records with equal content the first is kept."""

from __future__ import annotations

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
    first: dict[str, Source] = {}
    for record in records:
        original = first.setdefault(record.id, record.source)
        if original is record.source:
            yield record
        else:
            yield Dropped(
                source=record.source,
                reason="exact_duplicate",
                detail=f"the same as {original}, which is kept",
                raw=texts_of(record)[0][:200],
            )

"""Cleaning: records that should not be trained on are dropped, each with its reason and the place of what was kept instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tunesmith.records import Dropped, Record, Source

__all__ = ["Cleaned", "clean"]


class Cleaned(NamedTuple):
    """What is left, in order, and what was dropped."""

    kept: list[Record]
    dropped: list[Dropped]


def clean(records: Iterable[Record], *, steps: Sequence[str]) -> Cleaned:
    """Apply cleaning steps.

    `exact_duplicates` keeps the first of records with equal content.

    Args:
        records: in the order in which of two duplicates the first is kept.
        steps: as in `DataConfig.clean`.
    """
    kept, dropped = list(records), []
    for step in steps:
        if step != "exact_duplicates":
            raise ValueError(f"cleaning step {step!r} is unknown. Known: exact_duplicates")
        kept, repeated = _drop_exact_duplicates(kept)
        dropped += repeated
    return Cleaned(kept, dropped)


def _drop_exact_duplicates(records: Sequence[Record]) -> tuple[list[Record], list[Dropped]]:
    first: dict[str, Source] = {}
    kept, dropped = [], []
    for record in records:
        original = first.setdefault(record.id, record.source)
        if original is record.source:
            kept.append(record)
        else:
            text = record.text if record.text is not None else record.messages[0].content
            dropped.append(
                Dropped(
                    source=record.source,
                    reason="exact_duplicate",
                    detail=f"the same as {original}, which is kept",
                    raw=text[:200],
                )
            )
    return kept, dropped

"""What a step replaced, as a row of its own, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tunesmith.data.rows import plain_record, record_of
from tunesmith.records import Record

__all__ = ["Change", "plain_change", "restored"]


class Change(NamedTuple):
    """A row before and after a step."""

    step: str
    before: Record
    after: Record


def plain_change(change: Change) -> dict[str, Any]:
    """Write a change as a JSON object: the row as it was, the step, and the id of what it became."""
    return plain_record(change.before) | {"step": change.step, "became": change.after.id}


def restored(record: Record, changes: Iterable[Mapping[str, Any]]) -> Record:
    """The record as it was before every step.

    Args:
        record: a cleaned one.
        changes: rows that `plain_change` wrote, in order.
    """
    for change in reversed([change for change in changes if change["source"] == str(record.source)]):
        if change["became"] == record.id:
            record = record_of(change)
    return record

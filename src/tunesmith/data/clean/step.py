"""What a cleaning step is: a function from a stream of records to one outcome for each of them, in order.

    Record   kept; as it was (the very same object) or edited (a new one)
    Noted    kept, with findings to be counted and shown
    Dropped  not kept, with a reason

A step that looks at one record at a time is `each(function)`. A step that must see all of them first (duplicates, conflicts)
lists its input before its first outcome. Steps neither count nor keep copies: `Cleaning` does, so that no step can forget to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from tunesmith.data.read import content_digest
from tunesmith.records import Dropped, Record

__all__ = ["Noted", "Outcome", "Step", "each", "each_text", "edited", "texts_of", "with_texts"]


class Noted(NamedTuple):
    """A record that is kept, and what was found in it."""

    record: Record
    findings: tuple[str, ...]
    """Kinds, each as often as it was found, such as `("email", "email", "phone")`."""
    detail: str = ""
    """For people, where the edit itself does not show it."""


Outcome = Record | Noted | Dropped
Step = Callable[[Iterable[Record]], Iterator[Outcome]]


def each(function: Callable[[Record], Outcome]) -> Step:
    """Make a step of what is done to one record."""

    def step(records: Iterable[Record]) -> Iterator[Outcome]:
        return map(function, records)

    return step


def each_text(function: Callable[[str], str]) -> Step:
    """Make a step of what is done to one text. A record of which nothing is left is dropped."""
    return each(lambda record: edited(record, [function(text) for text in texts_of(record)]))


def edited(record: Record, texts: Sequence[str]) -> Record | Dropped:
    """The record with its texts replaced, or dropped where one that had words has none left."""
    after = with_texts(record, texts)
    if after is not record and any(old.strip() and not new.strip() for old, new in zip(texts_of(record), texts, strict=True)):
        where = "the text" if record.text is not None else "a message"
        return Dropped(source=record.source, reason="nothing_left", detail=f"nothing is left of {where}")
    return after


def texts_of(record: Record) -> list[str]:
    """Every text of a record that people wrote or that is learned, in the order in which it is read."""
    return [record.text] if record.text is not None else [message.content for message in record.messages]


def with_texts(record: Record, texts: Sequence[str]) -> Record:
    """The record with these texts in place of `texts_of(record)`: the same object if they are equal, else one with a new id."""
    if all(new is old or new == old for new, old in zip(texts, texts_of(record), strict=True)):
        return record
    if record.text is not None:
        return replace(record, id=content_digest(texts[0]), text=texts[0])
    messages = tuple(replace(message, content=text) for message, text in zip(record.messages, texts, strict=True))
    return replace(record, id=content_digest(messages), messages=messages)

"""What a cleaning step is: a function from a stream of records to one outcome for each of them, in order.

    None     kept as it was
    Record   kept; as it was (the very same object) or edited (a new one)
    Noted    kept, with findings to be counted and shown
    Dropped  not kept, with a reason

A step that looks at one record at a time is `each(function)`. A step that must see all of them first (duplicates, conflicts) is
`Whole`: it gets them as a sequence that lies on disk, and may walk it more than once. Steps neither count nor keep copies:
`Cleaning` does, so that no step can forget to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tunesmith.data.read import content_digest
from tunesmith.records import Dropped, Message, Record

__all__ = ["Noted", "Outcome", "Step", "Whole", "each", "each_text", "edited", "texts_of", "with_texts"]


class Noted(NamedTuple):
    """A record that is kept, and what was found in it."""

    record: Record | None
    """None: as it was."""
    findings: tuple[str, ...]
    """Kinds, each as often as it was found, such as `("email", "email", "phone")`."""
    detail: str = ""
    """For people, where the edit itself does not show it."""


Outcome = Record | Noted | Dropped | None


@dataclass(frozen=True, slots=True)
class Whole:
    """A step that must see every record before its first outcome."""

    judge: Callable[[Sequence[Record]], Iterator[Outcome]]
    """An outcome for each, in order. Reading a record costs a little: memory holds none of them."""


Step = Callable[[Iterable[Record]], Iterator[Outcome]] | Whole


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
    if after is not record and any(old and not new.strip() for old, new in zip(texts_of(record), texts, strict=True)):
        where = "the text" if record.text is not None else "a message"
        return Dropped(source=record.source, reason="nothing_left", detail=f"nothing is left of {where}")
    return after


def texts_of(record: Record) -> list[str]:
    """Every text of a record that people wrote or that is learned, in the order in which it is read."""
    if record.text is not None:
        return [record.text]
    return [message.content for message in (*record.messages, *record.rejected)]


def with_texts(record: Record, texts: Sequence[str]) -> Record:
    """The record with these texts in place of `texts_of(record)`: the same object if they are equal, else one with a new id."""
    if all(new is old or new == old for new, old in zip(texts, texts_of(record), strict=True)):
        return record
    content: str | tuple[Message, ...] = texts[0]
    rejected: tuple[Message, ...] = ()
    if record.text is None:
        turns = zip((*record.messages, *record.rejected), texts, strict=True)
        messages = tuple(replace(message, content=text) for message, text in turns)
        content, rejected = messages[: len(record.messages)], messages[len(record.messages) :]
    return replace(
        record,
        id=content_digest(content, rejected=rejected, label=record.label, tools=record.tools),
        messages=() if isinstance(content, str) else content,
        rejected=rejected,
        text=content if isinstance(content, str) else None,
    )

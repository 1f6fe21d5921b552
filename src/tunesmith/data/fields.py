"""The keys of a row and their values: pairs of keys, strings that must be there or may be, labels, tools."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.data.files import BadRow, shortened
from tunesmith.data.turns import keys_of, kind_of_value
from tunesmith.records import Message, Role

__all__ = ["PAIRS", "Row", "answer_of", "filled", "label_of", "string_of", "text_and_label", "text_of", "with_system"]

Row = Mapping[str, Any]

# (what is asked, what is answered); of two pairs that fit equally many rows the first is taken.
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("prompt", "output"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("instruction", "answer"),
    ("instruction", "output"),
    ("question", "answer"),
    ("question", "answers"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("user", "assistant"),
    ("input", "output"),
    ("input", "target"),
    ("input", "response"),
    ("source", "target"),
    ("src", "tgt"),
    ("dialogue", "summary"),
    ("dialogue", "summaries"),
    ("document", "summary"),
    ("document", "summaries"),
    ("article", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
    ("complex", "simple"),
    ("context", "continuation"),
    ("context", "answer"),
)


def label_of(value: object) -> str | None:
    """A label as text; None if the value is none."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def filled(row: Row, key: str) -> str:
    """The string under a key, which must say something.

    Raises:
        BadRow: it is missing, empty or no string.
    """
    text = string_of(row, key)
    if not text.strip():
        raise BadRow("empty_content", f"`{key}` is empty")
    return text


def text_of(row: Row, key: str) -> str:
    """The string under a key that may be missing."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise BadRow("wrong_type", f"`{key}` is {kind_of_value(value)}, not a string: {shortened(value)}")
    return value or ""


def string_of(row: Row, key: str) -> str:
    """The string under a key; of a list of answers (or SQuAD's `{"text": [...]}`) the first."""
    if row.get(key) is None:
        raise BadRow("missing_field", f"`{key}` is missing; the row has {keys_of(row)}")
    value = row[key]
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, list):
        if not value:
            raise BadRow("empty_content", f"`{key}` is an empty list")
        value = value[0]
        value = value["text"] if isinstance(value, dict) and "text" in value else value
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"`{key}` is {kind_of_value(value)}, not a string: {shortened(value)}")
    return value


def answer_of(row: Row, key: str) -> str:
    """The answer under a key: a string, or a number as it is written, such as a grade or a sum; of a list the first."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    return string_of(row, key)


def text_and_label(told: str) -> tuple[str, str] | None:
    """The keys of the text and of its label in a format as it is told: `text_label (review/rating in 200 of 200 rows)`."""
    found = re.match(r"text_label \((\w+)/(\w+) in ", told)
    return (found[1], found[2]) if found else None


def with_system(row: Row, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put the row's own system prompt first, if it has one that the messages lack.

    Raises:
        BadRow: it has two that differ. Either may be the one that is meant, and no tool joins them.
    """
    given = {f"`{key}`": row[key] for key in ("system", "system_prompt") if isinstance(row.get(key), str) and row[key].strip()}
    system = next(iter(given.values()), None)
    if messages and messages[0].role is Role.SYSTEM and messages[0].content.strip():
        given["a system message"] = messages[0].content
    if len({text.strip() for text in given.values()}) > 1:
        names = " and ".join(list(given)[-2:])
        shown = " / ".join(shortened(text) for text in list(given.values())[-2:])
        raise BadRow("two_system_prompts", f"the row has two system prompts, {names} ({shown}). Keep one, or join them")
    if system is None or "a system message" in given:
        return messages
    blank = messages and messages[0].role is Role.SYSTEM
    return Message(role=Role.SYSTEM, content=system), *(messages[1:] if blank else messages)

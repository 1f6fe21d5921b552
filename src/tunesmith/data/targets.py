"""Target examples: rows as for training, or questions alone, for what the model will be asked is often known before its answer is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.data.files import BadRow, read_rows
from tunesmith.data.formats import Content, detect
from tunesmith.errors import DataError, NotFound
from tunesmith.records import Message, Record, Role, Source
from tunesmith.store.digest import digest_of

__all__ = ["read_targets"]

_ASKED = ("prompt", "question", "instruction", "input", "query", "text")


def read_targets(path: Path) -> list[Record]:
    """Read every target of a file.

    Raises:
        NotFound: there is no such file.
        DataError: a row is neither a training row nor a question; each is named with its line.
    """
    if not path.is_file():
        raise NotFound(f"{path} does not exist. Name a file with 10 to 50 examples of what the model will be asked")
    rows = list(read_rows(path))
    found, wrong = [], []
    for row in rows:
        try:
            content = row.content
            if isinstance(content, BadRow):
                raise content
            found += _targets(content, place=Source(path=path.name, line=row.line))
        except BadRow as bad:
            wrong.append(f"{path.name}:{row.line}  {bad}")
    if wrong or not found:
        raise DataError(
            "\n".join([*wrong[:10], f"{path.name}: {len(wrong):,} of {len(rows):,} targets cannot be read. Mend them"])
        )
    return found


def _targets(row: dict[str, Any], *, place: Source) -> list[Record]:
    """The targets of a row: one, or those of a tree, a task or a document."""
    found: list[Record] = []
    try:
        for held in detect([row], wanted="auto", path=place.path).items(row):
            if isinstance(held.found, BadRow):
                raise held.found
            found.append(_target(held.found.content, row=row, place=place))
    except (BadRow, DataError):
        found = [_target(_question(row), row=row, place=place)]  # nothing to train on, but it may be a question
    return found


def _target(content: Content, *, row: dict[str, Any], place: Source) -> Record:
    messages = () if isinstance(content, str) else content
    text = content if isinstance(content, str) else None
    domain = row.get("domain")
    return Record(
        id=digest_of([text, [message.content for message in messages]]),
        source=place,
        messages=messages,
        text=text,
        domain=domain if isinstance(domain, str) else "",
    )


def _question(row: dict[str, Any]) -> tuple[Message, ...]:
    """What a row asks: the turns of its users, or the first of the keys that commonly hold a question."""
    turns = row.get("messages")
    if isinstance(turns, list):
        asked = [
            turn["content"] for turn in turns if isinstance(turn, dict) and turn.get("role") == "user" and turn.get("content")
        ]
    else:
        asked = [value for key in _ASKED if isinstance(value := row.get(key), str) and value.strip()][:1]
    if not asked or not all(isinstance(text, str) for text in asked):
        keys = ", ".join(f"`{key}`" for key in list(row)[:8])
        raise BadRow("no_question", f"no question and no row to train on; it has {keys}. Give it `prompt`, `text` or `messages`")
    return tuple(Message(role=Role.USER, content=text) for text in asked)

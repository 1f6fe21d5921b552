"""A record as one JSON row, and back: the shape of `--out` files and of a snapshot's shards.

A row keeps the shape of its kind: `messages` (with `rejected` for a pair) or `text`, beside its `source` as `file:line`, its `id`,
and of the labels those that say something. Such a row read again by `data.read` is the same record at the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.records import Dropped, Message, Record, Role, Source

__all__ = ["dropped_of", "plain_dropped", "plain_record", "record_of", "source_of"]

_LABELS = ("label", "domain", "group", "cluster", "origin", "licence", "tools", "instruction")


def plain_record(record: Record) -> dict[str, Any]:
    """Write a record as a JSON object."""
    plain: dict[str, Any] = {}
    if record.text is None:
        plain["messages"] = [_plain_message(message) for message in record.messages]
    else:
        plain["text"] = record.text
    if record.rejected:
        plain["rejected"] = [_plain_message(message) for message in record.rejected]
    plain |= {key: value for key in _LABELS if (value := getattr(record, key)) not in {None, "", 0}}
    if record.parents:
        plain["parents"] = list(record.parents)
    if record.tags:
        plain["tags"] = dict(sorted(record.tags.items()))
    return plain | {"source": str(record.source), "id": record.id}


def record_of(plain: Mapping[str, Any]) -> Record:
    """Read what `plain_record` wrote.

    Raises:
        KeyError: a key is missing.
        ValueError: the source names no line, or a role is unknown.
    """
    return Record(
        id=plain["id"],
        source=_place(plain),
        messages=_messages(plain.get("messages", ())),
        rejected=_messages(plain.get("rejected", ())),
        text=plain.get("text"),
        label=plain.get("label"),
        domain=plain.get("domain", ""),
        group=plain.get("group"),
        cluster=plain.get("cluster", ""),
        origin=plain.get("origin", 0),
        licence=plain.get("licence", ""),
        tools=plain.get("tools", ""),
        instruction=plain.get("instruction", ""),
        parents=tuple(plain.get("parents", ())),
        tags=plain.get("tags", {}),
    )


def plain_dropped(row: Dropped) -> dict[str, Any]:
    """Write a dropped row as a JSON object."""
    return {"source": str(row.source), "reason": row.reason, "detail": row.detail, "raw": row.raw}


def dropped_of(plain: Mapping[str, Any]) -> Dropped:
    """Read what `plain_dropped` wrote.

    Raises:
        KeyError: a key is missing.
        ValueError: the source names no line.
    """
    return Dropped(source=_place(plain), reason=plain["reason"], detail=plain["detail"], raw=plain.get("raw", ""))


def source_of(text: str) -> Source:
    """Read `file:line`; the file's name may hold colons of its own.

    Raises:
        ValueError: no line number stands at the end.
    """
    path, colon, line = text.rpartition(":")
    if not (colon and path and line.isascii() and line.isdigit()):
        raise ValueError(f"source {text!r} is not `file:line`")
    return Source(path=path, line=int(line))


def _place(plain: Mapping[str, Any]) -> Source:
    # Snapshots of the first versions kept path and line apart.
    return source_of(plain["source"]) if "source" in plain else Source(path=plain["path"], line=plain["line"])


def _plain_message(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role.value, "content": message.content}
    return plain if message.weight == 1 else plain | {"weight": message.weight}


def _messages(turns: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(role=Role(turn["role"]), content=turn["content"], weight=turn.get("weight", 1.0)) for turn in turns)

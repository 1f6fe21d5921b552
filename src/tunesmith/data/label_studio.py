"""Label Studio's JSON, out and in: tasks with annotations, as its export and its import have them.

A label is a `choices` result, a corrected answer a `textarea`, a ranked pair a `pairwise`. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tunesmith.data.annotations import Annotation, Annotations, Kind, Verdict, decide, ending_of
from tunesmith.data.read import content_digest
from tunesmith.data.rows import source_of
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Message, Record, Role, Source

__all__ = ["from_label_studio", "to_label_studio"]

_SIDES = {Verdict.CHOSEN: "left", Verdict.REJECTED: "right"}
_ROLES = {role.value: role for role in Role} | {"human": Role.USER, "gpt": Role.ASSISTANT, "bot": Role.ASSISTANT}


def to_label_studio(rows: Sequence[Record], annotations: Annotations) -> list[dict[str, Any]]:
    """Every row as a task, with what people said of it."""
    return [
        {
            "id": number,
            "data": _data(row),
            "annotations": [_said(row, by, list(kinds.values())) for by, kinds in annotations.about(row.id).items()],
            "predictions": [],
        }
        for number, row in enumerate(rows, start=1)
    ]


def from_label_studio(tasks: object, rows: Mapping[str, Record], *, name: str) -> Iterator[Annotation | Dropped]:
    """Decisions out of an export, and what of it cannot be understood.

    Args:
        tasks: the parsed JSON.
        rows: known rows by id. A task is about one of them if it bears its id or says the same; otherwise it is a row of its own.
        name: of the file, for messages; a task's place is its number, from 1.

    Raises:
        DataError: it is not a list of tasks.
    """
    if not isinstance(tasks, list):
        raise DataError(f"{name}: Label Studio's JSON is a list of tasks, and this is {type(tasks).__name__}. Export as JSON.")
    texts = {_spoken(row): row for row in reversed(list(rows.values()))}
    for number, task in enumerate(tasks, start=1):
        place = Source(path=name, line=number)
        try:
            row = _row_of(task, rows, texts, place=place)
            for annotation in _list(task, "annotations", "completions"):
                yield from _decisions(annotation, row, place=place)
        except DataError as error:
            yield Dropped(source=place, reason="malformed_task", detail=str(error), raw=repr(task)[:2000])


def _data(row: Record) -> dict[str, Any]:
    start = ending_of(row) if row.rejected else len(row.messages)
    data: dict[str, Any] = {"row": row.id, "source": str(row.source), "text": _spoken(row)}
    if row.messages:
        data["messages"] = _turns(row.messages[:start])
    if row.rejected:
        data |= {"left": _answer(row.messages[start:]), "right": _answer(row.rejected)}
    more = {"label": row.label, "domain": row.domain}
    return data | {key: value for key, value in more.items() if value}


def _said(row: Record, by: str, said: Sequence[Annotation]) -> dict[str, Any]:
    newest = max(entry.at for entry in said)
    return {
        "completed_by": by,
        "created_at": newest,
        "was_cancelled": all(entry.kind is Kind.SKIP for entry in said),
        "result": [_result(entry, number=i) for i, entry in enumerate(said) if entry.kind is not Kind.SKIP],
        "unique_id": f"{row.id[:16]}-{by}",
    }


def _result(entry: Annotation, *, number: int) -> dict[str, Any]:
    common = {"id": f"{entry.of[:8]}-{number}", "origin": "manual"}
    if entry.kind is Kind.LABEL:
        return common | {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [entry.value]}}
    if entry.kind is Kind.ANSWER:
        return common | {"from_name": "answer", "to_name": "text", "type": "textarea", "value": {"text": [entry.value]}}
    if entry.value in _SIDES:
        selected = _SIDES[Verdict(entry.value)]
        return common | {"from_name": "better", "to_name": "left,right", "type": "pairwise", "value": {"selected": selected}}
    return common | {"from_name": "verdict", "to_name": "left,right", "type": "choices", "value": {"choices": [entry.value]}}


def _decisions(annotation: object, row: Record, *, place: Source) -> Iterator[Annotation | Dropped]:
    if not isinstance(annotation, dict):
        raise DataError(f"an annotation is {type(annotation).__name__}, not an object")
    by, at = _name(annotation.get("completed_by")), annotation.get("created_at")
    found = []
    for result in _list(annotation, "result"):
        try:
            found.append(_decision(result, row, by=by))
        except DataError as error:
            yield Dropped(source=place, reason="unknown_result", detail=str(error), raw=repr(result)[:2000])
    if annotation.get("was_cancelled") and not found:
        found.append(decide(row, by=by, kind=Kind.SKIP, value=""))
    for decision in found:
        yield _dated(decision, at) if isinstance(at, str) else decision


def _decision(result: object, row: Record, *, by: str) -> Annotation:
    if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
        raise DataError("a result has no `value`")
    kind, value = result.get("type"), result["value"]
    if kind == "choices":
        chosen = _only(value.get("choices"))
        verdict = row.rejected and chosen in set(Verdict)
        return decide(row, by=by, kind=Kind.RANK if verdict else Kind.LABEL, value=chosen)
    if kind == "textarea":
        return decide(row, by=by, kind=Kind.ANSWER, value=_only(value.get("text")))
    if kind == "rating":
        return decide(row, by=by, kind=Kind.LABEL, value=_only(value.get("rating")))
    if kind == "pairwise":
        sides = {side: verdict for verdict, side in _SIDES.items()}
        return decide(row, by=by, kind=Kind.RANK, value=sides.get(value.get("selected"), str(value.get("selected"))))
    raise DataError(f"a result of type {kind!r} is not understood. Known: choices, textarea, rating, pairwise")


def _row_of(task: object, rows: Mapping[str, Record], texts: Mapping[str, Record], *, place: Source) -> Record:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        raise DataError("a task has no `data`")
    known = rows.get(str(data.get("row")))
    if known is not None:
        return known
    row = _new_row(data, place=place)
    return rows.get(row.id) or (texts.get(_spoken(row)) if not row.rejected else None) or row


def _new_row(data: Mapping[str, Any], *, place: Source) -> Record:
    turns = next((data[key] for key in ("messages", "dialogue", "conversations") if isinstance(data.get(key), list)), None)
    messages = tuple(map(_message, turns)) if turns else ()
    pair = [data.get("left"), data.get("right")]
    if not messages and isinstance(data.get("prompt"), str):
        messages = (Message(role=Role.USER, content=data["prompt"]),)
        pair = pair if any(pair) else [data.get("chosen") or data.get("answer1"), data.get("rejected") or data.get("answer2")]
    rejected: tuple[Message, ...] = ()
    if messages and all(isinstance(side, str) for side in pair):
        chosen, other = (Message(role=Role.ASSISTANT, content=str(side)) for side in pair)
        messages, rejected = (*messages, chosen), (other,)
    text = next((data[key] for key in ("text", "content", "document") if isinstance(data.get(key), str)), None)
    if not messages and text is None:
        raise DataError(f"`data` has neither text nor messages; it has {', '.join(map(str, list(data)[:8]))}")
    content = messages or str(text)
    try:
        source = source_of(str(data.get("source", "")))
    except ValueError:
        source = place
    digest = content_digest(content, rejected=rejected)
    return Record(id=digest, source=source, messages=messages, rejected=rejected, text=None if messages else text)


def _message(turn: object) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f"a message is {type(turn).__name__}, not an object")
    role = next((str(turn[key]) for key in ("role", "author", "from") if turn.get(key)), "user")
    content = next((turn[key] for key in ("content", "text", "value") if isinstance(turn.get(key), str)), None)
    if role.lower() not in _ROLES or content is None:
        raise DataError(
            f"a message by {role!r} needs one of the roles {', '.join(_ROLES)} and its text under `content` or `text`"
        )
    return Message(role=_ROLES[role.lower()], content=content)


def _name(completed_by: object) -> str:
    """Label Studio names people by number, or by an object with their address."""
    if isinstance(completed_by, dict):
        completed_by = next((completed_by[key] for key in ("email", "username", "first_name", "id") if completed_by.get(key)), "")
    return str(completed_by) if completed_by not in {None, ""} else "unknown"


def _dated(decision: Annotation, at: str) -> Annotation:
    try:
        when = datetime.fromisoformat(at)
    except ValueError:
        return decision
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return replace(decision, at=when.astimezone(UTC).isoformat(timespec="milliseconds"))


def _only(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], str | int | float):
        raise DataError(f"one value is wanted, and it is {str(value)[:60]!r}")
    return str(values[0])


def _list(holder: object, *keys: str) -> list[Any]:
    found: object = next((holder[key] for key in keys if key in holder), []) if isinstance(holder, dict) else []
    if not isinstance(found, list):
        raise DataError(f"`{keys[0]}` is {type(found).__name__}, not a list")
    return found


def _spoken(row: Record) -> str:
    return row.text if row.text is not None else "\n\n".join(f"{m.role}: {m.content}" for m in row.messages)


def _answer(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.content for message in messages)


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role.value, "content": message.content} for message in messages]

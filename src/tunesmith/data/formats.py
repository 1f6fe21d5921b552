"""What a row can look like, and how it becomes a conversation or a text.

Formats: `messages` (role and content), `prompt_completion` (a question and an answer under one of the known pairs of names),
`alpaca` (instruction, input, output) and `text`. A converter gives content or raises `BadRow` with a reason that stays the same
from version to version and a sentence for people. Keys are matched without regard to case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.data.config import FormatName
from tunesmith.errors import DataError
from tunesmith.records import Message, Role

__all__ = ["PAIRS", "BadRow", "Content", "Format", "detect", "shortened"]

Content = tuple[Message, ...] | str
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
    ("dialogue", "summary"),
    ("dialogue", "summaries"),
    ("document", "summary"),
    ("document", "summaries"),
    ("article", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
)

_ROLES = {role.value: role for role in Role}
_KNOWN_ROLES = ", ".join(_ROLES)


class BadRow(Exception):
    """A row that cannot be used: a stable reason and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Format(NamedTuple):
    """A detected or demanded format, and the evidence for it."""

    name: str
    evidence: str
    convert: Callable[[Row], Content]

    def __str__(self) -> str:
        return f"{self.name} ({self.evidence})"


class _Candidate(NamedTuple):
    name: str
    label: str
    fits: Callable[[Row], bool]
    convert: Callable[[Row], Content]


def detect(rows: Sequence[Row], *, wanted: FormatName, path: str) -> Format:
    """Choose the format that most of these rows have.

    Args:
        rows: the first rows of a file, keys in lower case.
        wanted: a format demanded by the recipe, or `auto`.
        path: for messages.

    Raises:
        DataError: no row fits the demanded format, or any known one.
    """
    candidates = [candidate for candidate in _candidates() if wanted in {"auto", candidate.name}]
    counted = [(sum(candidate.fits(row) for row in rows), candidate) for candidate in candidates]
    count, best = max(counted, key=lambda entry: entry[0])
    if not count:
        keys = sorted({key for row in rows for key in row})
        shown = ", ".join(keys[:20]) + (", …" if len(keys) > 20 else "") or "none"
        pairs = ", ".join("/".join(pair) for pair in PAIRS)
        raise DataError(
            f"{path}: no row is in {'a known format' if wanted == 'auto' else f'the format `{wanted}`'}. Keys found: {shown}. "
            "Known formats: messages (a list of role/content under `messages` or `conversations`), "
            f"alpaca (instruction/input/output), prompt_completion ({pairs}), text (`text`). "
            "Rename the keys, or set data.sources[].format."
        )
    return Format(best.name, f"{best.label} in {count:,} of {len(rows):,} rows", best.convert)


def shortened(value: object, *, length: int = 60) -> str:
    """Show a value in at most `length` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else text[: length - 1] + "…"


def _candidates() -> list[_Candidate]:
    """Every format in order of preference."""
    return [
        _Candidate("messages", "role/content", lambda row: _conversation(row) is not None, _messages),
        _Candidate("alpaca", "instruction/output", lambda row: "instruction" in row and "output" in row, _alpaca),
        *(_pair_candidate(asked, answered) for asked, answered in PAIRS),
        _Candidate("text", "text", lambda row: "text" in row, _text),
    ]


def _pair_candidate(asked: str, answered: str) -> _Candidate:
    def fits(row: Row) -> bool:
        return asked in row and answered in row

    def convert(row: Row) -> Content:
        return _asked_and_answered(_string(row, asked), _string(row, answered), asked=asked, answered=answered)

    return _Candidate("prompt_completion", f"{asked}/{answered}", fits, convert)


def _conversation(row: Row) -> list[Any] | None:
    """The list of messages of a row that has one."""
    for key in ("messages", "conversations"):
        turns = row.get(key)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict) and {"role", "content"} <= turns[0].keys():
            return turns
    return None


def _messages(row: Row) -> Content:
    turns = row.get("messages", row.get("conversations"))
    if turns is None:
        raise BadRow("missing_field", f"`messages` is missing; the row has {_keys(row)}")
    if not isinstance(turns, list):
        raise BadRow("wrong_type", f"`messages` is {_kind(turns)}, not a list: {shortened(turns)}")
    messages = tuple(_message(turn, at=i) for i, turn in enumerate(turns))
    if not messages:
        raise BadRow(
            "no_assistant_turn", "no assistant turn: the conversation has no messages. Nothing would be learned from it."
        )
    if messages[-1].role is not Role.ASSISTANT:
        raise BadRow(
            "no_assistant_turn",
            f"no assistant turn: the conversation ends with `{messages[-1].role}`. Nothing would be learned from it.",
        )
    if not any(message.weight for message in messages if message.role is Role.ASSISTANT):
        raise BadRow("nothing_supervised", "every assistant turn has weight 0. Nothing would be learned from it.")
    return messages


def _message(turn: object, *, at: int) -> Message:
    if not isinstance(turn, dict):
        raise BadRow("wrong_type", f"messages[{at}] is {_kind(turn)}, not an object: {shortened(turn)}")
    for key in ("role", "content"):
        if key not in turn:
            raise BadRow("missing_field", f"messages[{at}] has no `{key}`; it has {_keys(turn)}")
    name, content, weight = turn["role"], turn["content"], turn.get("weight", 1.0)
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise BadRow("unknown_role", f"role `{shortened(name)}` is unknown. Known: {_KNOWN_ROLES}.")
    if not isinstance(content, str):
        raise BadRow("wrong_type", f"messages[{at}].content is {_kind(content)}, not a string: {shortened(content)}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        raise BadRow("wrong_type", f"messages[{at}].weight is {shortened(weight)}; it must be a number from 0")
    if role in {Role.USER, Role.ASSISTANT} and not content.strip():
        raise BadRow("empty_content", f"messages[{at}] (`{role}`) is empty")
    return Message(role=role, content=content, weight=float(weight))


def _alpaca(row: Row) -> Content:
    asked = _string(row, "instruction")
    more = row.get("input")
    if more is not None and not isinstance(more, str):
        raise BadRow("wrong_type", f"`input` is {_kind(more)}, not a string: {shortened(more)}")
    if more and more.strip():
        asked = f"{asked}\n\n{more}"
    return _asked_and_answered(asked, _string(row, "output"), asked="instruction", answered="output")


def _asked_and_answered(question: str, answer: str, *, asked: str, answered: str) -> Content:
    for key, text in ((asked, question), (answered, answer)):
        if not text.strip():
            raise BadRow("empty_content", f"`{key}` is empty")
    return Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer)


def _text(row: Row) -> Content:
    text = _string(row, "text")
    if not text.strip():
        raise BadRow("empty_content", "`text` is empty")
    return text


def _string(row: Row, key: str) -> str:
    """The string under a key; of a list of answers (or SQuAD's `{"text": [...]}`) the first."""
    if row.get(key) is None:
        raise BadRow("missing_field", f"`{key}` is missing; the row has {_keys(row)}")
    value = row[key]
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, list):
        if not value:
            raise BadRow("empty_content", f"`{key}` is an empty list")
        value = value[0]
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"`{key}` is {_kind(value)}, not a string: {shortened(value)}")
    return value


def _keys(row: Mapping[str, object]) -> str:
    return ", ".join(f"`{shortened(key, length=20)}`" for key in list(row)[:8]) or "no keys"


def _kind(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)

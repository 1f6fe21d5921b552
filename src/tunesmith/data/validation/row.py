"""One row: everything that is found in it, and what it says as messages or as a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tunesmith.data.files import BadRow
from tunesmith.data.formats import Content, Converted, Format
from tunesmith.data.nested import LOWER_RANKED, whole
from tunesmith.data.validation.codes import CODES
from tunesmith.data.validation.conversation import check_conversation, known_role, spelling_of, turns_of
from tunesmith.data.validation.finding import Found, Severity
from tunesmith.data.validation.texts import SURROGATES, Turn, check_answers, check_text

__all__ = ["Checked", "Layout", "check_row"]

_PLAIN_KEYS = {"role", "content"}
_SYSTEM_KEYS = {"system", "system_prompt"}
_PLAIN_ROLES = {"system", "user", "assistant"}


class Layout(NamedTuple):
    """How the rows of a file are laid out."""

    format: Format | None
    """The reader's own; None where no row of the file has one, and they are taken for conversations."""
    is_conversation: bool

    def __str__(self) -> str:
        return str(self.format) if self.format else "messages (assumed: no row is in a known layout)"


class Checked(NamedTuple):
    """What was found in a row, and its messages (one of role `text` for a plain text)."""

    found: list[Found]
    turns: list[Turn]
    read: tuple[Converted, ...]
    """As the reader makes it: one, or those of a tree, a task or a document; none where the row is bad or nobody asked."""


def check_row(row: Mapping[str, Any], *, layout: Layout, control: re.Pattern[str], wants_content: bool = False) -> Checked:
    """Find everything that is wrong with one row.

    Args:
        row: as it stands in its file.
        layout: that of its file.
        control: the pattern of control tokens.
        wants_content: whether to give the content as the reader makes it, even of a row that is surely sound.
    """
    return (_check_conversation if layout.is_conversation else _check_columns)(row, layout.format, control, wants_content)


def _check_conversation(row: Mapping[str, Any], reader: Format | None, control: re.Pattern[str], wants_content: bool) -> Checked:
    turns = row.get("messages")
    found: list[Found] = []
    is_plain = _is_plain(row, turns)
    if is_plain:
        seen = [Turn(turn["role"], turn["content"], ("messages", i, "content")) for i, turn in enumerate(turns or ())]
    else:
        found += check_conversation(row)
        seen = _turns_seen(row, turns_of(row)[1])
    for turn in seen:
        found += [each._replace(at=turn.at) for each in check_text(turn.content, at="", control=control)]
    found += check_answers(seen)
    if reader is None or (is_plain and not wants_content) or _has_error(found):
        return Checked(found, seen, ())
    return _read(row, Checked(found, seen, ()), reader=reader)


def _check_columns(row: Mapping[str, Any], reader: Format | None, control: re.Pattern[str], _: bool) -> Checked:
    """A row in a layout of named columns: the texts as they stand in them, then the reader's own judgement."""
    assert reader is not None
    found: list[Found] = []
    for at, text in _texts(row, is_nested=reader.rows is not whole):
        found += check_text(text, at=at, control=control)
    checked = _read(row, Checked(found, [], ()), reader=reader)
    turns: list[Turn] = []
    for content in (one.content for one in checked.read):
        said = _turns_of(content)
        if not isinstance(content, str):
            checked.found.extend(check_answers(said))
        turns += said
    return checked._replace(turns=turns)


def _texts(row: Mapping[str, Any], *, is_nested: bool) -> Iterator[tuple[str, str]]:
    """The texts of a row's columns, and of what lies in them where a row holds several."""
    waiting: list[tuple[str, Any]] = [*row.items()][::-1]
    while waiting:
        at, value = waiting.pop()
        if type(value) is str:
            yield at, value
        elif is_nested and isinstance(value, dict):
            waiting += [(f"{at}.{key}", inner) for key, inner in value.items()][::-1]
        elif is_nested and isinstance(value, list):
            waiting += [(f"{at}[{i}]", inner) for i, inner in enumerate(value)][::-1]


def _turns_of(content: Content) -> list[Turn]:
    if isinstance(content, str):
        return [Turn("text", content, ("text", 0, ""))]
    return [Turn(message.role.value, message.content, (message.role.value, 0, "")) for message in content]


_TOLD = {
    "unknown_role": "unrecognized_role",
    "missing_field": "message_missing_key",
    "empty_content": "missing_content",
    "no_assistant_turn": "example_missing_assistant_message",
}
"""Reasons of the reader, and what a check calls the same."""


def _read(row: Mapping[str, Any], checked: Checked, *, reader: Format) -> Checked:
    """Let the reader judge too: what it refuses is an error, whether a check has found it or not."""
    read: list[Converted] = []
    found = checked.found
    for held in reader.items({key.strip().lower(): value for key, value in row.items()}):
        if not isinstance(held.found, BadRow):
            read.append(held.found)
            if SURROGATES.search(held.found.tools):
                found = [*found, Found("lone_surrogate", "half a character stands in the tools", "tools")]
            continue
        bad = held.found
        if bad.reason == LOWER_RANKED:
            continue
        code = _TOLD.get(bad.reason, bad.reason)
        if not held.at and any(each.code == code for each in found):
            found = [each._replace(severity=Severity.ERROR) if each.code == code else each for each in found]
        else:
            found = [*found, Found(bad.reason if bad.reason in CODES else "unusable", bad.detail, held.at)]
    return checked._replace(found=found, read=tuple(read))


def _is_plain(row: Mapping[str, Any], turns: Any) -> bool:
    """Whether a row is surely a sound conversation: questions and answers in turn, no key but role and content, no empty text."""
    if type(turns) is not list or len(turns) < 2 or "conversations" in row or "interactions" in row:
        return False
    before = "assistant"
    for i, turn in enumerate(turns):
        if type(turn) is not dict or turn.keys() != _PLAIN_KEYS:
            return False
        role, content = turn["role"], turn["content"]
        if type(content) is not str or not content or content.isspace():
            return False
        if role == "system" and i == 0:
            if any(key.strip().lower() in _SYSTEM_KEYS for key in row):
                return False
            continue
        if role not in ("user", "assistant") or role == before:  # a tuple, for a role may be anything
            return False
        before = role
    return before == "assistant" and not ({"tools", "available_tools", "functions", "only_last"} & row.keys())


def _turns_seen(row: Mapping[str, Any], turns: Any) -> list[Turn]:
    """The messages that have a role and a text."""
    if type(turns) is not list:
        return []
    key, _ = turns_of(row)
    spelling = spelling_of(turns)
    seen = []
    for i, turn in enumerate(turns):
        if type(turn) is dict:
            text = turn.get(spelling.content)
            name = turn.get(spelling.role)
            if type(text) is str or turn.get("tool_calls"):
                role = name if type(name) is str and name in _PLAIN_ROLES else known_role(name) or "unknown"
                place = (key, i, spelling.content)
                seen.append(Turn(role, text if type(text) is str else "", place))
    return seen


def _has_error(found: list[Found]) -> bool:
    return any((each.severity or CODES[each.code].severity) == "error" for each in found)

"""The mends that `--fix` makes: each is safe, small and written down with what stood there before.

A mend never invents a text. What needs a person (a missing answer, a placeholder, a half sentence) is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import takewhile
from types import MappingProxyType
from typing import Any, NamedTuple

from tunesmith.data.validation.conversation import KNOWN_KEYS, can_join, known_role, spelling_of, turns_of
from tunesmith.data.validation.texts import CONTROL_CHARACTERS, SURROGATES
from tunesmith.data.validation.tools import CALL_ID, is_bare_definition, is_old_call

__all__ = ["Change", "mend_row"]


class Change(NamedTuple):
    """One place that was mended."""

    code: str
    at: str
    before: Any
    after: Any
    """None where it was taken out."""


class _Mended(NamedTuple):
    """A row being mended: its messages and how they are spelt."""

    row: dict[str, Any]
    key: str
    turns: list[dict[str, Any]]
    role: str
    content: str
    control: re.Pattern[str]

    def place(self, i: int, key: str = "") -> str:
        return f"{self.key}[{i}]" + (f".{key}" if key else "")


def mend_row(row: dict[str, Any], *, codes: Collection[str], control: re.Pattern[str]) -> list[Change]:
    """Mend a row in place.

    Args:
        row: the row, which is changed.
        codes: what was found in it; only these are mended.
        control: the pattern of control tokens.

    Returns:
        Every change, in the order in which it was made.
    """
    _, turns = turns_of(row)
    objects = isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)
    spelling = spelling_of(turns if objects else ())
    key = turns_of(row)[0]
    mended = _Mended(row, key, turns if objects else [], spelling.role, spelling.content, control)
    return [change for code, mend in _MENDS.items() if code in codes for change in mend(mended)]


def _rename_keys(mended: _Mended) -> Iterator[Change]:
    spare = {mended.content: ("text", "value", "content"), mended.role: ("from", "role")}
    for i, turn in enumerate(mended.turns):
        for key, others in spare.items():
            other = next((name for name in others if name != key and isinstance(turn.get(name), str)), None)
            if key not in turn and other is not None:
                turn[key] = turn.pop(other)
                yield Change("message_missing_key", mended.place(i), {other: turn[key]}, {key: turn[key]})


def _map_roles(mended: _Mended) -> Iterator[Change]:
    for i, turn in enumerate(mended.turns):
        before = turn.get(mended.role)
        after = known_role(before)
        if after is not None and after != before:
            turn[mended.role] = after
            yield Change("unrecognized_role", mended.place(i, mended.role), before, after)


def _use_tool_role(mended: _Mended) -> Iterator[Change]:
    """The old spelling of calls and results becomes the new one; a result gets the id of the one call before it."""
    for i, turn in enumerate(mended.turns):
        if is_old_call(turn):
            before = turn.pop("function_call")
            said = before.get("arguments", "{}")
            arguments = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
            name = _short_id(mended.place(i) + json.dumps(before, sort_keys=True))
            function = {"name": before["name"], "arguments": arguments}
            turn["tool_calls"] = [{"id": name, "type": "function", "function": function}]
            yield Change("legacy_function_role", mended.place(i, "function_call"), before, turn["tool_calls"])
        if turn.get(mended.role) == "function":
            turn[mended.role] = "tool"
            yield Change("legacy_function_role", mended.place(i, mended.role), "function", "tool")
    yield from _name_the_call(mended)


def _join_parts(mended: _Mended) -> Iterator[Change]:
    """Content in parts becomes one text; an empty system prompt goes."""
    for i, turn in enumerate(mended.turns):
        before = turn.get(mended.content)
        if isinstance(before, list) and before and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in before):
            turn[mended.content] = "\n".join(part["text"] for part in before)
            yield Change("missing_content", mended.place(i, mended.content), before, turn[mended.content])
    for i in reversed(range(len(mended.turns))):
        turn = mended.turns[i]
        if turn.get(mended.role) == "system" and turn.get(mended.content) == "":
            yield Change("missing_content", mended.place(i), mended.turns.pop(i), None)


def _write_weights(mended: _Mended) -> Iterator[Change]:
    numbers = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
    for i, turn in enumerate(mended.turns):
        before = turn.get("weight")
        if isinstance(before, bool) or (isinstance(before, str) and before in numbers):
            turn["weight"] = int(before) if isinstance(before, bool) else numbers[before]
            yield Change("wrong_weight", mended.place(i, "weight"), before, turn["weight"])


def _weigh_last(mended: _Mended) -> Iterator[Change]:
    answers = [i for i, turn in enumerate(mended.turns) if turn.get(mended.role) == "assistant"]
    for i in answers[:-1]:
        before = mended.turns[i].get("weight")
        if before != 0:
            mended.turns[i]["weight"] = 0
            yield Change("only_last", mended.place(i, "weight"), before, 0)
    if "only_last" in mended.row:
        yield Change("only_last", "only_last", mended.row.pop("only_last"), None)


def _take_keys_out(mended: _Mended) -> Iterator[Change]:
    for i, turn in enumerate(mended.turns):
        for key in [key for key in turn if key not in KNOWN_KEYS and key not in {mended.role, mended.content}]:
            yield Change("message_unrecognized_key", mended.place(i, key), turn.pop(key), None)


def _put_system_first(mended: _Mended) -> Iterator[Change]:
    """All system prompts become one, at the head, in their order."""
    systems = [i for i, turn in enumerate(mended.turns) if turn.get(mended.role) == "system"]
    texts = [text for i in systems if isinstance(text := mended.turns[i].get(mended.content), str)]
    if not systems or systems == [0] or len(texts) < len(systems):
        return
    code = "multiple_system_messages" if len(systems) > 1 else "system_not_first"
    before = deepcopy(mended.turns)
    first = mended.turns[systems[0]]
    first[mended.content] = "\n\n".join(dict.fromkeys(texts))
    rest = [turn for turn in mended.turns if turn.get(mended.role) != "system"]
    mended.turns[:] = [first, *rest]
    yield Change(code, mended.key, before, deepcopy(mended.turns))


def _join_same_speaker(mended: _Mended) -> Iterator[Change]:
    i = 1
    while i < len(mended.turns):
        first, second = mended.turns[i - 1], mended.turns[i]
        if can_join(first, second, role=mended.role, content=mended.content):
            before = [deepcopy(first), second]
            first[mended.content] = f"{first[mended.content]}\n\n{second[mended.content]}"
            del mended.turns[i]
            yield Change("roles_do_not_alternate", mended.place(i - 1), before, deepcopy(first))
        else:
            i += 1


def _end_with_answer(mended: _Mended) -> Iterator[Change]:
    if any(turn.get(mended.role) in ("assistant", "gpt") for turn in mended.turns):
        while known_role(mended.turns[-1].get(mended.role)) != "assistant":
            place = mended.place(len(mended.turns) - 1)
            yield Change("last_message_not_assistant", place, mended.turns.pop(), None)


def _write_arguments(mended: _Mended) -> Iterator[Change]:
    for at, call in _calls(mended):
        function = call.get("function")
        if isinstance(function, dict) and isinstance(before := function.get("arguments"), dict):
            function["arguments"] = json.dumps(before, ensure_ascii=False)
            yield Change("tool_arguments_not_text", f"{at}.function.arguments", before, function["arguments"])


def _give_call_ids(mended: _Mended) -> Iterator[Change]:
    """A call without an id takes that of the result which follows it in its place, else one made from what it says."""
    for at, call in _calls(mended):
        if "id" not in call and isinstance(call.get("function"), dict):
            call["id"] = _unclaimed_id(mended, call) or _short_id(at + json.dumps(call, sort_keys=True))
            yield Change("tool_call_format", f"{at}.id", None, call["id"])


def _unclaimed_id(mended: _Mended, call: dict[str, Any]) -> str | None:
    """The id of the result that stands where this call's result must stand."""
    for i, turn in enumerate(mended.turns):
        calls = turn.get("tool_calls")
        if isinstance(calls, list) and any(other is call for other in calls):
            place = next(j for j, other in enumerate(calls) if other is call)
            results = list(takewhile(lambda after: after.get(mended.role) == "tool", mended.turns[i + 1 :]))
            claimed = {other.get("id") for other in calls if isinstance(other, dict)}
            if len(results) == len(calls) and isinstance(name := results[place].get("tool_call_id"), str):
                return None if name in claimed else name
    return None


def _wrap_definitions(mended: _Mended) -> Iterator[Change]:
    for key in ("tools", "available_tools"):
        found = mended.row.get(key)
        tools = found if isinstance(found, list) else []
        for i, before in enumerate(tools):
            if is_bare_definition(before):
                tools[i] = {"type": "function", "function": before}
                yield Change("tool_definition", f"{key}[{i}]", before, tools[i])


def _name_the_call(mended: _Mended) -> Iterator[Change]:
    """A result without an id that follows one call alone answers it."""
    for i, turn in enumerate(mended.turns):
        calls = mended.turns[i - 1].get("tool_calls") if i else None
        if turn.get(mended.role) == "tool" and turn.get("tool_call_id") is None and isinstance(calls, list) and len(calls) == 1:
            call = calls[0].get("id") if isinstance(calls[0], dict) else None
            if isinstance(call, str):
                turn["tool_call_id"] = call
                yield Change("tool_call_id_missing", mended.place(i, "tool_call_id"), None, call)


def _shorten_call_ids(mended: _Mended) -> Iterator[Change]:
    """Ids of nine letters or digits, the same for a call and its results."""
    for at, call in _calls(mended):
        if isinstance(before := call.get("id"), str) and not CALL_ID.fullmatch(before) and before != "null":
            call["id"] = _short_id(before)
            yield Change("tool_call_id_format", f"{at}.id", before, call["id"])
    for i, turn in enumerate(mended.turns):
        if isinstance(before := turn.get("tool_call_id"), str) and not CALL_ID.fullmatch(before):
            turn["tool_call_id"] = _short_id(before)
            yield Change("tool_call_id_format", mended.place(i, "tool_call_id"), before, turn["tool_call_id"])


def _short_id(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _calls(mended: _Mended) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, turn in enumerate(mended.turns):
        calls = turn.get("tool_calls")
        for j, call in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(call, dict):
                yield mended.place(i, f"tool_calls[{j}]"), call


def _texts(code: str, mend: Callable[[str, re.Pattern[str]], str]) -> Callable[[_Mended], Iterator[Change]]:
    """A mend of every text of a row, wherever it stands."""

    def mend_all(mended: _Mended) -> Iterator[Change]:
        yield from _walk(mended.row, at="", code=code, mend=lambda text: mend(text, mended.control))

    return mend_all


def _walk(node: Any, *, at: str, code: str, mend: Callable[[str], str]) -> Iterator[Change]:
    items: Sequence[tuple[Any, Any]] = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
    for key, value in items:
        place = f"{at}[{key}]" if isinstance(node, list) else f"{at}.{key}" if at else str(key)
        if isinstance(value, str):
            after = mend(value)
            if after != value:
                node[key] = after
                yield Change(code, place, value, after)
        elif isinstance(value, dict | list):
            yield from _walk(value, at=place, code=code, mend=mend)


def _without_halves(text: str, _: re.Pattern[str]) -> str:
    return text if text.isascii() else SURROGATES.sub("", text)


def _without_controls(text: str, _: re.Pattern[str]) -> str:
    return CONTROL_CHARACTERS.sub("", text)


def _without_tokens(text: str, control: re.Pattern[str]) -> str:
    """Control tokens at either end are left-overs of a rendered conversation; in the midst of a text they may be its subject."""
    while (match := control.match(text)) and match[0]:
        text = text[match.end() :].lstrip()
    while match := re.search(rf"(?:{control.pattern})\s*\Z", text):
        text = text[: match.start()].rstrip()
    return text


def _decoded_rightly(text: str, _: re.Pattern[str]) -> str:
    if text.isascii():
        return text
    from ftfy import badness, fix_encoding

    if not badness.is_bad(text):
        return text
    better = fix_encoding(text)
    return better if not badness.is_bad(better) and "\ufffd" not in better else text


# The order matters: keys before roles, roles before their order, and the texts last.
_MENDS: Mapping[str, Callable[[_Mended], Iterator[Change]]] = MappingProxyType(
    {
        "message_missing_key": _rename_keys,
        "unrecognized_role": _map_roles,
        "example_missing_assistant_message": _map_roles,
        "legacy_function_role": _use_tool_role,
        "missing_content": _join_parts,
        "wrong_weight": _write_weights,
        "message_unrecognized_key": _take_keys_out,
        "tool_definition": _wrap_definitions,
        "tool_arguments_not_text": _write_arguments,
        "tool_call_format": _give_call_ids,
        "tool_call_id_missing": _name_the_call,
        "tool_call_id_format": _shorten_call_ids,
        "only_last": _weigh_last,
        "system_not_first": _put_system_first,
        "multiple_system_messages": _put_system_first,
        "last_message_not_assistant": _end_with_answer,
        "roles_do_not_alternate": _join_same_speaker,
        "lone_surrogate": _texts("lone_surrogate", _without_halves),
        "control_character": _texts("control_character", _without_controls),
        "control_token": _texts("control_token", _without_tokens),
        "mojibake": _texts("mojibake", _decoded_rightly),
    }
)

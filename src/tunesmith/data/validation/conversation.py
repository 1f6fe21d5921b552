"""The shape of a conversation: its list, the keys, roles and types of its messages, and their order.

Messages may be spelt role/content or from/value (ShareGPT), the latter with roles of its own. What is counted for each message under
the cookbook's names is counted exactly as the cookbook's notebook does; only what it did not know yet is let pass: the role `tool`,
the keys of tool calls, and a message without content that calls a tool.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tunesmith.data.validation.finding import Found, Severity, kind_of
from tunesmith.data.validation.tools import check_tools, is_old_call

__all__ = [
    "KNOWN_KEYS",
    "LIST_KEYS",
    "ROLES",
    "Spelling",
    "can_join",
    "check_conversation",
    "known_role",
    "spelling_of",
    "turns_of",
]

LIST_KEYS = ("messages", "conversations", "interactions")
"""Under which a row may keep its messages, in order of preference."""

ROLES = ("system", "user", "assistant", "tool", "function")

_ALIASES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "developer": "system",
    "observation": "tool",
    "function_call": "assistant",
}
"""Names that other tools give to the roles."""

KNOWN_KEYS = frozenset(
    {"role", "content", "name", "weight", "function_call", "tool_calls", "tool_call_id", "refusal", "audio", "prefix"}
    | {"reasoning_content", "thinking"}
)


class Spelling(NamedTuple):
    """Under which keys a message keeps its role and its text, and which roles it may have."""

    role: str
    content: str
    roles: frozenset[str]


_PLAIN = Spelling("role", "content", frozenset(ROLES))
_SHAREGPT = Spelling("from", "value", frozenset(ROLES) | {"human", "gpt", "observation", "function_call", "bot", "chatbot"})


def turns_of(row: Mapping[str, Any]) -> tuple[str, Any]:
    """The key under which a row keeps its messages, and what is there (None: nothing is)."""
    for key in LIST_KEYS:
        if row.get(key) is not None:
            return key, row[key]
    return LIST_KEYS[0], None


def spelling_of(turns: Sequence[Any]) -> Spelling:
    """How the messages of a row are spelt: as most of them are."""
    objects = [turn for turn in turns if isinstance(turn, dict)]
    other = sum("from" in turn and "role" not in turn for turn in objects)
    return _SHAREGPT if 2 * other > len(objects) else _PLAIN


def known_role(name: object) -> str | None:
    """The role that a name means, by whatever tool it was written; None where nobody can tell."""
    if not isinstance(name, str):
        return None
    plain = name.strip().lower()
    return plain if plain in ROLES else _ALIASES.get(plain)


def can_join(first: Mapping[str, Any], second: Mapping[str, Any], *, role: str, content: str) -> bool:
    """Whether two messages of one speaker differ in nothing but their text, so that one can hold both."""
    if known_role(first.get(role)) not in ("user", "assistant") or any("tool_calls" in turn for turn in (first, second)):
        return False
    texts = isinstance(first.get(content), str) and isinstance(second.get(content), str)
    same = all(first.get(key) == second.get(key) for key in {*first, *second} - {content, "weight"})
    return texts and same and first.get("weight", 1) == second.get("weight", 1)


def check_conversation(row: Mapping[str, Any]) -> Iterator[Found]:
    """Find what is wrong with the shape of a row that should be a conversation."""
    key, turns = turns_of(row)
    lists = [name for name in LIST_KEYS if row.get(name)]
    if len(lists) > 1:
        yield Found("two_message_lists", f"the row has both `{lists[0]}` and `{lists[1]}`", at=lists[1], value=row[lists[1]])
    if not turns:
        state = "is null" if turns is None else "is empty"
        what = state if any(name in row for name in LIST_KEYS) else f"is missing; the row has {_names(row)}"
        yield Found("missing_messages_list", f"`{key}` {what}", at=key, value=turns)
        return
    if not isinstance(turns, list):
        yield Found("wrong_type", f"`{key}` is {kind_of(turns)}, not a list", at=key, value=turns)
        return
    spelling = spelling_of(turns)
    sound = True
    for i, turn in enumerate(turns):
        at = f"{key}[{i}]"
        if not isinstance(turn, dict):
            sound = False
            yield Found("wrong_type", f"{at} is {kind_of(turn)}, not an object", at=at, value=turn)
            continue
        yield from _check_message(turn, spelling=spelling, at=at)
    if sound:
        yield from _check_roles(turns, spelling=spelling, key=key)
        yield from check_tools(row, turns, spelling_content=spelling.content, key=key)


def _check_message(turn: dict[str, Any], *, spelling: Spelling, at: str) -> Iterator[Found]:
    role_key, content_key = spelling.role, spelling.content
    calls = bool(turn.get("tool_calls") or turn.get("function_call"))
    missing = [key for key in (role_key, content_key) if key not in turn and not (key == content_key and calls)]
    if missing:
        spare = {"content": ("text", "value"), "role": ("from",), "value": ("text", "content"), "from": ("role",)}
        is_fixable = all(any(isinstance(turn.get(other), str) for other in spare[key]) for key in missing)
        names = " and ".join(f"`{key}`" for key in missing)
        yield Found("message_missing_key", f"{at} has no {names}; it has {_names(turn)}", at, turn, is_fixable=is_fixable)
    unknown = [key for key in turn if key not in KNOWN_KEYS and key not in {role_key, content_key}]
    if unknown:
        names = ", ".join(f"`{key[:40]}`" for key in unknown[:5])
        yield Found("message_unrecognized_key", f"{at} has a key that nothing reads: {names}", at, turn[unknown[0]])
    if "text" in turn and content_key in turn:
        yield Found("two_contents", f"{at} has both `text` and `{content_key}`", at, turn["text"])
    if turn.get("function_call"):
        told, call = "`function_call` is the old spelling of `tool_calls`", turn["function_call"]
        yield Found("legacy_function_role", told, f"{at}.function_call", call, is_fixable=is_old_call(turn))
    yield from _check_role(turn, spelling=spelling, at=at)
    yield from _check_content(turn, spelling=spelling, at=at, calls=calls)
    if "weight" in turn:
        yield from _check_weight(turn["weight"], at=f"{at}.weight")


def _check_role(turn: dict[str, Any], *, spelling: Spelling, at: str) -> Iterator[Found]:
    name = turn.get(spelling.role)
    at = f"{at}.{spelling.role}"
    if isinstance(name, str) and name in spelling.roles:
        if name == "function":
            yield Found("legacy_function_role", "`function` is the old name of the role `tool`", at, name)
        return
    meant = known_role(name)
    hint = f" It means `{meant}`." if meant else ""
    shown = "is missing" if spelling.role not in turn else f"`{str(name)[:40]}` is unknown"
    yield Found(
        "unrecognized_role",
        f"role {shown}. Known: system, user, assistant, tool.{hint}",
        at,
        name,
        is_fixable=meant is not None,
        severity=Severity.WARNING if meant else None,  # whether the reader understands it too, it says itself
    )


def _check_content(turn: dict[str, Any], *, spelling: Spelling, at: str, calls: bool) -> Iterator[Found]:
    content = turn.get(spelling.content)
    at = f"{at}.{spelling.content}"
    role = str(turn.get(spelling.role))
    # An empty system prompt or tool result is read as what it is; an empty question or answer is not.
    harmless = Severity.WARNING if role in {"system", "tool", "function", "observation"} else None
    if isinstance(content, str):
        if content == "" and not calls:
            is_fixable = role == "system"
            yield Found("missing_content", f"the text of {at} is empty", at, content, is_fixable=is_fixable, severity=harmless)
        elif content and not content.strip() and not calls:
            yield Found("blank_content", f"the text of {at} is only white space", at, repr(content), severity=harmless)
    elif content is None:
        if not calls:
            yield Found("missing_content", f"the text of {at} is missing", at, content)
    else:
        is_fixable = isinstance(content, list) and bool(content) and all(map(_is_text_part, content))
        yield Found("missing_content", f"{at} is {kind_of(content)}, not a string", at, content, is_fixable=is_fixable)


def _is_text_part(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _check_weight(weight: object, *, at: str) -> Iterator[Found]:
    if weight is None:
        return
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        is_fixable = isinstance(weight, bool) or weight in ("0", "1", "0.0", "1.0")  # a tuple, for a weight may be anything
        yield Found("wrong_weight", f"{at} is no number from 0", at, weight, is_fixable=is_fixable)
    elif weight not in {0, 1}:
        yield Found("weight_not_0_or_1", f"{at} is {weight:g}, neither 0 nor 1", at, weight)


def _check_roles(turns: Sequence[dict[str, Any]], *, spelling: Spelling, key: str) -> Iterator[Found]:
    """Who speaks when. A role under another name counts as what it means, but where the cookbook's counts are kept."""
    written = [turn.get(spelling.role) for turn in turns]
    roles = [known_role(name) for name in written]
    is_sharegpt = spelling is _SHAREGPT
    if "assistant" not in (roles if is_sharegpt else written):
        told, severity = "no message is from `assistant`", Severity.WARNING if "assistant" in roles else None
        yield Found("example_missing_assistant_message", told, key, written, is_fixable="assistant" in roles, severity=severity)
    if "user" not in (roles if is_sharegpt else written):
        yield Found("missing_user_message", "no message is from `user`", key, written)
    if "assistant" in roles and roles[-1] != "assistant":
        told = f"no assistant turn: the conversation ends with `{str(written[-1])[:40]}`. Nothing would be learned from it."
        yield Found("last_message_not_assistant", told, f"{key}[{len(turns) - 1}]", turns[-1])
    answers = [turn for turn, role in zip(turns, roles, strict=True) if role == "assistant"]
    if answers and all(turn.get("weight") == 0 and turn.get("weight") is not False for turn in answers):
        yield Found("nothing_supervised", "every assistant turn has weight 0. Nothing would be learned from it.", key)
    yield from _check_order(turns, roles, spelling=spelling, key=key)


def _check_order(
    turns: Sequence[dict[str, Any]], roles: Sequence[str | None], *, spelling: Spelling, key: str
) -> Iterator[Found]:
    systems = [i for i, role in enumerate(roles) if role == "system"]
    if systems and systems[0] != 0:
        yield Found("system_not_first", f"the system prompt is message {systems[0] + 1}", f"{key}[{systems[0]}]")
    if len(systems) > 1:
        yield Found("multiple_system_messages", f"{len(systems)} messages are from `system`", f"{key}[{systems[1]}]")
    speaking = [(i, role) for i, role in enumerate(roles) if role != "system"]
    if speaking and speaking[0][1] == "assistant" and "user" in roles:
        yield Found("starts_with_assistant", "the conversation opens with an answer", f"{key}[{speaking[0][0]}]")
    for (before_at, before), (i, role) in pairwise(speaking):
        at = f"{key}[{i}]"
        called = turns[before_at].get("tool_calls") or turns[before_at].get("function_call")
        if role == before and role in {"user", "assistant"} and not called:
            can_mend = i == before_at + 1 and can_join(turns[i - 1], turns[i], role=spelling.role, content=spelling.content)
            yield Found("roles_do_not_alternate", f"`{role}` speaks twice in a row", at, is_fixable=can_mend)
        elif role in {"tool", "function"} and before == "user":
            yield Found("unexpected_role", f"`{role}` follows `{before}`", at)


def _names(row: Mapping[str, object]) -> str:
    return ", ".join(f"`{str(key)[:20]}`" for key in list(row)[:8]) or "no keys"

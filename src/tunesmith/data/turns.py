"""Lists of turns to messages: OpenAI's role/content, ShareGPT's from/value, dialogues of named speakers, transcripts.

A call of a tool, however a row spells it, becomes text of the assistant's turn in the notation that Qwen prints (and
Hermes, with the arguments first),

    <tool_call>
    {"name": "the tool", "arguments": {...}}
    </tool_call>

after the words of the turn, if it has any, and one after the other, so that any chat template can teach it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.files import BadRow, shortened, strict_json
from tunesmith.records import Message, Role

__all__ = [
    "conversation_of",
    "dialogue_of",
    "has_both_sides",
    "is_dialogue",
    "is_turns",
    "keys_of",
    "kind_of_value",
    "lines_of_dialogue",
    "role_of",
    "script_of",
    "transcript_of",
    "turns_of",
    "unknown_role",
]

_ROLES = {
    **{role.value: role for role in Role},
    **dict.fromkeys(("developer",), Role.SYSTEM),
    **dict.fromkeys(("human", "prompter", "customer", "client"), Role.USER),
    **dict.fromkeys(("gpt", "model", "ai", "agent", "chatgpt", "function_call"), Role.ASSISTANT),
    **dict.fromkeys(("function", "observation", "tool_response", "function_response", "ipython", "action"), Role.TOOL),
}
_KNOWN_ROLES = ", ".join(role.value for role in Role)
_ROLE_KEYS = ("role", "from", "speaker", "author", "agent")
_TEXT_KEYS = ("content", "value", "text", "utterance", "message")
_LINE = re.compile(r"^([A-Za-z][\w ]{0,19}): ?", re.MULTILINE)
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant|User): ?")


def is_turns(value: object, *, role: str, content: str) -> bool:
    """Whether a value is a list of turns whose first has these keys."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return role in value[0] and (content in value[0] or bool({"tool_calls", "function_call"} & value[0].keys()))


def is_dialogue(value: object) -> bool:
    """Whether a value is a list of turns of named speakers, or of pairs of a speaker and a text."""
    if not isinstance(value, list) or not value:
        return False
    return all(_spoken(turn) is not None for turn in value[:3])


def has_both_sides(value: object, *, roles: Mapping[str, str]) -> bool:
    """Whether a value is a dialogue in which speakers of known names are the user and the assistant."""
    if not isinstance(value, list) or not is_dialogue(value):
        return False
    known = {role_of(spoken[0], roles=roles) for spoken in map(_spoken, value) if spoken is not None}
    return {Role.USER, Role.ASSISTANT} <= known


def turns_of(turns: object, *, name: str, roles: Mapping[str, str]) -> tuple[Message, ...]:
    """Messages of a list of turns.

    Args:
        turns: as the row has them.
        name: the key they stand under, for messages.
        roles: names that the user maps to roles.

    Raises:
        BadRow: a turn cannot be used.
    """
    if not isinstance(turns, list):
        raise BadRow("wrong_type", f"`{name}` is {kind_of_value(turns)}, not a list: {shortened(turns)}")
    return tuple(_message(turn, at=f"{name}[{i}]", roles=roles) for i, turn in enumerate(turns))


def conversation_of(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same messages, if an assistant's turn to learn from ends them.

    Raises:
        BadRow: nothing would be learned.
    """
    nothing = "Nothing would be learned from it."
    if not messages:
        raise BadRow("no_assistant_turn", f"no assistant turn: the conversation has no messages. {nothing}")
    if messages[-1].role is not Role.ASSISTANT:
        raise BadRow("no_assistant_turn", f"no assistant turn: the conversation ends with `{messages[-1].role}`. {nothing}")
    if not any(message.weight for message in messages if message.role is Role.ASSISTANT):
        raise BadRow("nothing_supervised", f"every assistant turn has weight 0. {nothing}")
    return messages


def dialogue_of(turns: list[Any], *, name: str, roles: Mapping[str, str]) -> tuple[Message, ...]:
    """Messages of a dialogue between two: turns of one speaker in a row are joined, and what follows the last answer is left out.

    Speakers of no known role are the user and the assistant in the order in which they speak. A `system` that talks back and
    forth with a user is the assistant.
    """
    spoken = [_spoken(turn) for turn in turns]
    if None in spoken:
        at = spoken.index(None)
        raise BadRow("wrong_type", f"{name}[{at}] has no speaker and text: {shortened(turns[at])}")
    found = [pair for pair in spoken if pair is not None]
    found = [
        (speaker, _with_calls(turn, text, speaker=speaker, at=f"{name}[{i}]") if isinstance(turn, dict) else text)
        for i, (turn, (speaker, text)) in enumerate(zip(turns, found, strict=True))
    ]
    cast = _cast([speaker for speaker, _ in found], roles=roles)
    joined: list[tuple[Role, str]] = []
    for speaker, text in found:
        if joined and joined[-1][0] is cast[speaker]:
            joined[-1] = (cast[speaker], f"{joined[-1][1]}\n{text}")
        else:
            joined.append((cast[speaker], text))
    while joined and joined[-1][0] is not Role.ASSISTANT:
        joined.pop()
    return tuple(_checked(Message(role=role, content=text), at=name) for role, text in joined)


def transcript_of(text: str) -> tuple[Message, ...] | None:
    """Messages of a text in which `Human:` and `Assistant:` follow blank lines; None if it is not one."""
    pieces = _SPEAKER.split(text)
    if len(pieces) < 3 or pieces[0].strip():
        return None
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    return tuple(
        Message(role=Role.ASSISTANT if speaker == "Assistant" else Role.USER, content=said.strip()) for speaker, said in pairs
    )


def script_of(text: str, *, roles: Mapping[str, str]) -> list[dict[str, str]] | None:
    """Turns of a text whose lines begin with `user: `, `assistant: ` and other known speakers; None if it is not one.

    A line that begins with no speaker goes on with the turn before it. Where an assistant says `None` before a tool speaks, a program
    printed a call as text; nothing of the call is left, and the turn is left out.
    """
    marks = [mark for mark in _LINE.finditer(text) if role_of(mark[1], roles=roles) is not None]
    if not marks or text[: marks[0].start()].strip():
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = [{"role": mark[1], "content": text[mark.end() : end].strip()} for mark, end in zip(marks, ends, strict=True)]
    said = [role_of(turn["role"], roles=roles) for turn in turns]
    if not {Role.USER, Role.ASSISTANT} <= set(said):
        return None
    followed = [*said[1:], None]
    return [
        turn
        for turn, role, after in zip(turns, said, followed, strict=True)
        if not (turn["content"] == "None" and role is Role.ASSISTANT and after is Role.TOOL)
    ]


def lines_of_dialogue(turns: Sequence[Any]) -> str | None:
    """A dialogue as a text of lines `speaker: text`; None if a turn has no speaker and text."""
    spoken = [_spoken(turn) for turn in turns]
    return None if None in spoken else "\n".join(f"{pair[0]}: {pair[1]}" for pair in spoken if pair is not None)


def _cast(speakers: Sequence[str], *, roles: Mapping[str, str]) -> dict[str, Role]:
    cast = {speaker: role for speaker in speakers if (role := role_of(speaker, roles=roles)) is not None}
    names = list(dict.fromkeys(speakers))
    if Role.ASSISTANT not in cast.values() and "system" in speakers[1:]:
        cast["system"] = Role.ASSISTANT
    unknown = [name for name in names if name not in cast]
    free = [role for role in (Role.USER, Role.ASSISTANT) if role not in cast.values()]
    if len(unknown) > len(free):
        raise BadRow("unknown_role", unknown_role(unknown[len(free)]))
    return cast | dict(zip(unknown, free, strict=False))


def _spoken(turn: object) -> tuple[str, str] | None:
    """A turn's speaker and text."""
    if isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
        return turn[0], turn[1]
    if not isinstance(turn, dict):
        return None
    speaker = next((turn[key] for key in _ROLE_KEYS if isinstance(turn.get(key), str)), None)
    text = next((turn[key] for key in _TEXT_KEYS if isinstance(turn.get(key), str)), None)
    return None if speaker is None or text is None else (speaker, text)


def _message(turn: object, *, at: str, roles: Mapping[str, str]) -> Message:
    if not isinstance(turn, dict):
        raise BadRow("wrong_type", f"{at} is {kind_of_value(turn)}, not an object: {shortened(turn)}")
    role_key, content_key = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
    calls = turn.get("tool_calls") or turn.get("function_call")
    for key in (role_key, content_key):
        if key not in turn and not (calls and key == content_key):
            raise BadRow("missing_field", f"{at} has no `{key}`; it has {keys_of(turn)}")
    role = role_of(turn[role_key], roles=roles)
    if role is None:
        raise BadRow("unknown_role", unknown_role(turn[role_key]))
    content = _content(turn.get(content_key), at=f"{at}.{content_key}", is_optional=bool(calls))
    content = _with_calls(turn, content, speaker=turn[role_key], at=at)
    return _checked(Message(role=role, content=content, weight=_weight(turn, at=at)), at=at)


def _checked(message: Message, *, at: str) -> Message:
    if message.role in {Role.USER, Role.ASSISTANT} and not message.content.strip():
        raise BadRow("empty_content", f"{at} (`{message.role}`) is empty")
    return message


def role_of(name: object, *, roles: Mapping[str, str]) -> Role | None:
    """The role that a name stands for, if it is known."""
    if not isinstance(name, str):
        return None
    return _ROLES.get(roles.get(name, name).strip().lower())


def unknown_role(name: object) -> str:
    """What to say of a speaker that nobody knows."""
    shown = shortened(name)
    return f"role `{shown}` is unknown. Known: {_KNOWN_ROLES}. Map it: data.sources[].roles: {{{shown}: assistant}}"


def _content(content: object, *, at: str, is_optional: bool) -> str:
    if content is None and is_optional:
        return ""
    if isinstance(content, list) and content and all(isinstance(part, dict) and "type" in part for part in content):
        other = next((part["type"] for part in content if part["type"] not in {"text", "input_text", "output_text"}), None)
        if other is not None:
            raise BadRow("not_text", f"{at} holds a part of type {shortened(other)}; only text is trained on")
        content = "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    if not isinstance(content, str):
        raise BadRow("wrong_type", f"{at} is {kind_of_value(content)}, not a string: {shortened(content)}")
    return content


def _with_calls(turn: Mapping[str, Any], content: str, *, speaker: str, at: str) -> str:
    """A turn's words and, after them, its calls. Where ShareGPT's `function_call` speaks, the words are the call or a list of calls."""
    calls: object = turn.get("tool_calls")
    if not calls and turn.get("function_call"):
        calls = [{"function": turn["function_call"]}]
    if speaker == "function_call" and not content.lstrip().startswith("<tool_call>"):
        try:
            calls, content = strict_json(content), ""
        except ValueError as error:
            raise BadRow(
                "malformed_call", f"{at} is a call of a tool that is not JSON ({error}): {shortened(content)}"
            ) from error
    return "\n".join(filter(None, [content, *_calls(calls, at=at)])) if calls is not None else content


def _calls(calls: object, *, at: str) -> list[str]:
    """Each call of a tool as text."""
    written = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow("wrong_type", f"{at}: a call of a tool names no function: {shortened(call)}")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = strict_json(arguments.strip() or "{}")
            except ValueError as error:
                told = f"{at}: the arguments of a call are not JSON ({error}): {shortened(arguments)}"
                raise BadRow("malformed_arguments", told) from error
        try:
            said = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:  # a table may hold what JSON has no word for
            told = f"{at}: the arguments of a call cannot be written as JSON: {shortened(arguments)}"
            raise BadRow("malformed_arguments", told) from error
        written.append(f"<tool_call>\n{said}\n</tool_call>")
    return written


def _weight(turn: Mapping[str, Any], *, at: str) -> float:
    """The turn's own `weight`; Axolotl says `train`, yes or no."""
    weight = turn.get("weight", 1.0)
    if weight == 1.0 and isinstance(turn.get("train"), bool):
        return float(turn["train"])
    if weight is None:
        return 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
        raise BadRow("wrong_type", f"{at}.weight is {shortened(weight)}; it must be a number from 0")
    return float(weight)


def keys_of(row: Mapping[str, object]) -> str:
    """The keys of a row, for messages."""
    return ", ".join(f"`{shortened(key, length=20)}`" for key in list(row)[:8]) or "no keys"


def kind_of_value(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)

"""Tool calls, their results and the tools offered: well formed, and each call answered by its own result."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.data.files import strict_json
from tunesmith.data.validation.finding import Found, Severity, kind_of

__all__ = ["CALL_ID", "check_tools", "is_bare_definition", "is_old_call"]

CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_tools(row: Mapping[str, Any], turns: Sequence[dict[str, Any]], *, key: str, spelling_content: str) -> Iterator[Found]:
    """Find what is wrong with the tools of a conversation whose messages are objects."""
    if row.get("tools") and row.get("available_tools"):
        yield Found("two_tool_lists", "the row has both `tools` and `available_tools`", "available_tools", row["available_tools"])
    offered: set[str] = set()
    for name in ("tools", "available_tools"):
        if row.get(name):
            yield from _check_offered(row[name], at=name, offered=offered)
    if row.get("only_last") and sum(turn.get("role") == "assistant" for turn in turns) > 1:
        yield Found("only_last", "the row asks that its last answer alone is learned", "only_last", row["only_last"])
    if any("tool_calls" in turn or str(turn.get("role")) in {"tool", "function"} for turn in turns):
        for i, turn in enumerate(turns):
            if turn.get("tool_calls"):
                last = i == len(turns) - 1
                yield from _check_calls(turn, at=f"{key}[{i}]", offered=offered, content_key=spelling_content, is_last=last)
        yield from _check_results(turns, key=key)


def _check_offered(tools: object, *, at: str, offered: set[str]) -> Iterator[Found]:
    """The definitions of the tools; their names are added to `offered`."""
    if isinstance(tools, str):
        try:
            tools = strict_json(tools)
        except ValueError as error:
            yield Found("tool_definition", f"`{at}` is a string that is not JSON: {error}", at, tools)
            return
    if not isinstance(tools, list):
        yield Found("tool_definition", f"`{at}` is {kind_of(tools)}, not a list", at, tools)
        return
    for i, tool in enumerate(tools):
        problem = _definition_problem(tool)
        if problem:
            yield Found("tool_definition", f"{at}[{i}]{problem}", f"{at}[{i}]", tool, is_fixable=is_bare_definition(tool))
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            offered.add(name)
            if not _NAME.fullmatch(name):
                yield Found("tool_name", f"the name of {at}[{i}] is `{name[:80]}`", f"{at}[{i}].function.name", name)


def is_bare_definition(tool: object) -> bool:
    """Whether a tool is its function, without the object around it."""
    bare = isinstance(tool, dict) and "function" not in tool
    return bare and not _definition_problem({"function": tool})


def is_old_call(turn: Mapping[str, Any]) -> bool:
    """Whether a message calls one function in the old spelling, and in that alone."""
    call = turn.get("function_call")
    return isinstance(call, dict) and isinstance(call.get("name"), str) and not turn.get("tool_calls")


def _definition_problem(tool: object) -> str:
    if not isinstance(tool, dict):
        return f" is {kind_of(tool)}, not an object"
    function = tool.get("function")
    if not isinstance(function, dict):
        return " has no `function`" if "function" not in tool else f".function is {kind_of(function)}, not an object"
    for key in ("name", "description", "parameters"):
        if key not in function:
            return f".function has no `{key}`"
    parameters = function["parameters"]
    if not isinstance(parameters, dict):
        return f".function.parameters is {kind_of(parameters)}, not an object (a tool without parameters has {{}})"
    shapes: dict[str, type | tuple[type, ...]] = {"properties": dict, "required": list, "type": (str, list)}
    wrong = [key for key, shape in shapes.items() if key in parameters and not isinstance(parameters[key], shape)]
    return f".function.parameters is no JSON schema: `{wrong[0]}` is {kind_of(parameters[wrong[0]])}" if wrong else ""


def _check_calls(turn: dict[str, Any], *, at: str, offered: set[str], content_key: str, is_last: bool) -> Iterator[Found]:
    calls = turn["tool_calls"]
    if not isinstance(calls, list):
        yield Found("tool_call_format", f"{at}.tool_calls is {kind_of(calls)}, not a list", f"{at}.tool_calls", calls)
        return
    if turn.get(content_key):
        yield Found("content_and_tool_calls", f"{at} has words and tool calls", f"{at}.{content_key}", turn[content_key])
    for i, call in enumerate(calls):
        yield from _check_call(call, at=f"{at}.tool_calls[{i}]", offered=offered, is_last=is_last)


def _check_call(call: object, *, at: str, offered: set[str], is_last: bool) -> Iterator[Found]:
    if not isinstance(call, dict):
        yield Found("tool_call_format", f"{at} is {kind_of(call)}, not an object", at, call)
        return
    function = call.get("function")
    if "id" not in call:
        yield Found("tool_call_format", f"{at} has no `id`", at, call, is_fixable=isinstance(function, dict))
    elif not isinstance(call["id"], str):
        yield Found("tool_call_format", f"{at}.id is {kind_of(call['id'])}, not a string", f"{at}.id", call["id"])
    elif not CALL_ID.fullmatch(call["id"]) and not (is_last and call["id"] == "null"):
        told = f"{at}.id has not nine letters or digits"
        yield Found("tool_call_id_format", told, f"{at}.id", call["id"], is_fixable=call["id"] != "null")
    if not isinstance(function, dict):
        told = "has no `function`" if "function" not in call else f"function is {kind_of(function)}, not an object"
        yield Found("tool_call_format", f"{at} {told}", at, call)
        return
    missing = [key for key in ("name", "arguments") if key not in function]
    if missing:
        yield Found("tool_call_format", f"{at}.function has no `{missing[0]}`", f"{at}.function", function)
    if "name" in function:
        name = function["name"]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            severity = None if isinstance(name, str) else Severity.ERROR
            yield Found("tool_name", f"{at} calls `{str(name)[:80]}`", f"{at}.function.name", name, severity=severity)
        elif offered and name not in offered:
            yield Found("unknown_tool", f"{at} calls `{name}`, which is not among the tools offered", f"{at}.function.name", name)
    if "arguments" in function:
        yield from _check_arguments(function["arguments"], at=f"{at}.function.arguments")


def _check_arguments(arguments: object, *, at: str) -> Iterator[Found]:
    if isinstance(arguments, dict):
        yield Found("tool_arguments_not_text", f"{at} is an object, not a string that holds one", at, arguments)
        return
    if not isinstance(arguments, str):
        yield Found("tool_arguments_not_json", f"{at} is {kind_of(arguments)}, not a string that holds JSON", at, arguments)
        return
    try:
        value = strict_json(arguments) if arguments.strip() else {}
    except ValueError as error:
        yield Found("tool_arguments_not_json", f"{at} is not JSON: {error}", at, arguments)
        return
    if not isinstance(value, dict):
        yield Found("tool_arguments_not_json", f"{at} holds {kind_of(value)}, not an object", at, arguments)


def _check_results(turns: Sequence[dict[str, Any]], *, key: str) -> Iterator[Found]:
    """Every result answers an open call, and every call is answered before somebody else speaks."""
    open_calls: list[object] = []
    opened_at = ""
    for i, turn in enumerate(turns):
        at = f"{key}[{i}]"
        role = turn.get("role")
        if role == "tool":
            yield from _check_result(turn, at=at, open_calls=open_calls)
            continue
        if role == "function":  # the old spelling names the tool and no call
            continue
        if open_calls:
            told = f"{len(open_calls)} of the calls in {opened_at} {'has' if len(open_calls) == 1 else 'have'} no result"
            yield Found("tool_call_without_result", told, opened_at, open_calls)
        calls = turn.get("tool_calls")
        calls = calls if isinstance(calls, list) else []
        open_calls = [call.get("id") if isinstance(call, dict) else None for call in calls]
        opened_at = f"{at}.tool_calls"


def _check_result(turn: dict[str, Any], *, at: str, open_calls: list[object]) -> Iterator[Found]:
    call, name = turn.get("tool_call_id"), turn.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name):
        yield Found("tool_name", f"{at} is the result of `{name[:80]}`", f"{at}.name", name)
    if call is None:
        yield Found("tool_call_id_missing", f"{at} has no `tool_call_id`", at, turn, is_fixable=len(open_calls) == 1)
        del open_calls[:1]
    elif call in open_calls:
        open_calls.remove(call)
    else:
        yield Found("tool_result_without_call", f"{at} answers a call that is not open", f"{at}.tool_call_id", call)

"""The tools that a conversation offers: read from a row, kept in one spelling, and handed to the chat template.

The spelling is OpenAI's: a JSON list of `{"type": "function", "function": {"name", "description", "parameters"}}`, in the order of
keys that the row has, for a template prints them in that order and serving sends them so. Knows no template and no tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.data.files import BadRow, shortened, strict_json
from tunesmith.errors import DataError

__all__ = ["parse_tools", "read_tools", "with_texts"]

_KEYS = ("tools", "available_tools", "functions")
_CONVERSATIONS = ("messages", "conversations", "conversation")
_NOTHING = {"", "null", "none", "[]", "{}"}


def read_tools(row: Mapping[str, Any]) -> str:
    """The tools that a row offers, as `Record.tools` keeps them; "" where it offers none.

    A row that is no list of messages may have a column of that name with something else in it: that is left alone.

    Args:
        row: keys in lower case. The tools stand under `tools`, `available_tools` or `functions`, as a list or as its JSON.

    Raises:
        BadRow: a conversation whose tools cannot be read.
    """
    key = next((key for key in _KEYS if row.get(key)), None)
    if key is None or (isinstance(row[key], str) and row[key].strip().lower() in _NOTHING):
        return ""
    try:
        return _written(_definitions(row[key]))
    except ValueError as error:
        if any(isinstance(row.get(name), list) for name in _CONVERSATIONS):
            raise BadRow("malformed_tools", f"`{key}`{error}") from error
        return ""


def parse_tools(text: str) -> list[dict[str, Any]] | None:
    """The definitions that a template is given; None where there are none, as transformers has it.

    Args:
        text: as `Record.tools` keeps them.

    Raises:
        DataError: it is not a JSON list of tools.
    """
    if not text:
        return None
    try:
        return _definitions(text) or None
    except ValueError as error:
        raise DataError(f"the tools of this conversation cannot be used: `tools`{error}") from error


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a JSON value in which every string is changed, the keys of objects too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [with_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): with_texts(item, change) for key, item in value.items()}
    return value


def _written(tools: list[dict[str, Any]]) -> str:
    try:
        return json.dumps(tools, ensure_ascii=False, allow_nan=False) if tools else ""
    except (TypeError, ValueError) as error:  # a table may hold what JSON has no word for
        raise ValueError(f" cannot be written as JSON ({error}): {shortened(tools)}") from error


def _definitions(tools: Any) -> list[dict[str, Any]]:
    """Each tool in one spelling. A ValueError goes on with the sentence that the list's name begins."""
    if isinstance(tools, str):
        if not re.match(r"\s*[\[{]", tools):
            raise ValueError(f" is a text and no list of tools: {shortened(tools)}")
        try:
            tools = strict_json(tools)
        except ValueError as error:
            raise ValueError(f" is not JSON ({error}): {shortened(tools)}") from error
    if isinstance(tools, dict):
        tools = [tools] if tools else []
    if not isinstance(tools, list):
        raise ValueError(f" is no list of tools: {shortened(tools)}")
    return [_definition(tool, at=f"[{i}]") for i, tool in enumerate(tools)]


def _definition(given: Any, *, at: str) -> dict[str, Any]:
    """One tool; a function that stands alone (LLaMA-Factory, OpenAI's `functions` and Responses) gets its object around it."""
    tool = given
    if isinstance(tool, str) and tool.lstrip().startswith("{"):
        try:
            tool = strict_json(tool)
        except ValueError as error:
            raise ValueError(f"{at} is not JSON ({error}): {shortened(tool)}") from error
    if not isinstance(tool, dict):
        raise ValueError(f"{at} is not an object that defines a tool: {shortened(tool)}")
    if "function" not in tool and tool.get("type", "function") == "function":
        tool = {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
    if "function" not in tool:
        return dict(tool)  # a tool of another type, such as a provider's own web search
    function = tool["function"]
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(f"{at} names no function: {shortened(tool)}")
    return dict(tool) if "type" in tool else {"type": "function", **tool}

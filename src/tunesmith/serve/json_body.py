"""The bytes of a body to a JSON value. What two programs could read differently is refused: a proxy before us may look at bodies too."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from tunesmith.serve.refusal import Refusal, clipped

__all__ = ["read_json"]

_MAX_DEPTH = 64
"""Of a body. A schema takes two levels for one of its own."""
_MAX_BRACKETS = 2**18
"""Each becomes an object of 64 bytes and more, from two bytes of the body."""

_KEY_END = re.compile(rb'(?<!\\)"[ \t\r\n]*:')
"""Behind every key but one that ends with a backslash, and in a text that begins with a colon. Within texts quotes have backslashes."""


def read_json(body: bytes) -> object:
    """Parse a body. Nesting over 64 levels, lone surrogates, and one key twice with two values are invalid too.

    Raises:
        Refusal: 400 `invalid_json`.
    """
    # Braces in texts count too; a body that has so many is no conversation.
    num_brackets = body.count(b"{") + body.count(b"[")
    if num_brackets > _MAX_BRACKETS:
        raise Refusal(f"The body has {num_brackets:,} lists and objects; {_MAX_BRACKETS:,} is the most.", code="invalid_json")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"The body is not valid JSON: {clipped(str(error), 200)}", code="invalid_json") from None
    if num_brackets > _MAX_DEPTH and _is_deeper(value, than=_MAX_DEPTH):
        raise Refusal(f"The body is nested in more than {_MAX_DEPTH} levels.", code="invalid_json")
    # orjson takes the last of two values in silence. Only where more keys are written than there are, each is looked at.
    if b'\\\\"' in body or len(_KEY_END.findall(body)) != _num_keys(value):
        _require_single_keys(body)
    return value


def _is_deeper(value: object, *, than: int) -> bool:
    level = [value]
    for _ in range(than + 1):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        if not inner:
            return False
        level = [child for one in inner for child in one if isinstance(child, (dict, list))]
    return True


def _num_keys(value: object) -> int:
    """Of all objects in a value together."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (len(value) if isinstance(value, dict) else 0) + sum(_num_keys(one) for one in inner if isinstance(one, (dict, list)))


def _require_single_keys(body: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        twice = next((name for name, value in pairs if found[name] != value), None) if len(found) != len(pairs) else None
        if twice is not None:
            message = f"The body has the key {clipped(twice)!r} twice in one object, with two values."
            raise Refusal(message, code="invalid_json", param=clipped(twice))
        return found

    json.loads(body, object_pairs_hook=once, parse_int=float)

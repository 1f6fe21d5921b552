"""JSON as its standard has it: Python's parser takes the last of two values of one key, and NaN and Infinity, in silence."""

from __future__ import annotations

import json
import math
from typing import Any

from tunesmith.data.files.rows import BadRow, shortened

__all__ = ["DECODER", "strict_json"]


def strict_json(text: str) -> Any:
    """A value that stands as JSON in a text.

    Raises:
        ValueError: it is no JSON, or nobody can know what it says: a key stands twice with two values, or a number is none.
    """
    try:
        return DECODER.decode(text)
    except BadRow as bad:
        raise ValueError(bad.detail) from bad
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next((name for name, value in pairs if found[name] != value), None)
        if twice is not None:
            raise BadRow("duplicate_key", f"the key `{shortened(twice)}` stands twice in one object, so its value is not known")
    return found


def _refuse_constant(name: str) -> object:
    raise BadRow("malformed_json", f"not valid JSON: {name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise BadRow("malformed_json", f"not valid JSON: {shortened(digits)} is larger than any number that is known")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite)
"""Raises `BadRow` for what Python's own lets pass, and `json.JSONDecodeError`."""

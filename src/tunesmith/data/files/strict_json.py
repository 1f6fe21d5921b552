"""JSON as its standard has it: Python's parser takes the last of two values of one key, and NaN and Infinity, in silence."""

from __future__ import annotations

import json
import math
from typing import Any

from tunesmith.data.files.rows import BadRow, shortened

__all__ = ["WrittenFloat", "exact_json", "strict_json", "told_of", "written_json"]


class WrittenFloat(float):
    """A number that is spelled as its file has it: `1.50` is the label `1.50`, and not `1.5`."""

    __slots__ = ("_written",)
    _written: str

    def __new__(cls, written: str) -> WrittenFloat:
        """Read a number of JSON.

        Raises:
            BadRow: it is beyond what a float can hold.
        """
        number = super().__new__(cls, written)
        if math.isinf(number):
            raise BadRow("malformed_json", f"not valid JSON: the number {shortened(written)} is too large")
        number._written = written
        return number

    def __str__(self) -> str:
        """The number as it is written."""
        return self._written

    def __reduce__(self) -> tuple[type[WrittenFloat], tuple[str]]:
        """To be copied and sent to other processes as what it is."""
        return WrittenFloat, (self._written,)


def exact_json(text: str) -> Any:
    """Parse JSON so that no two programs could read it differently; a float keeps its spelling (`WrittenFloat`).

    Raises:
        BadRow: a key stands twice with two values, a value is none of JSON's (`NaN`), or a number is too large.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    return _EXACT.decode(text)


def written_json(value: Any) -> str:
    """JSON of what `exact_json` has read, its numbers as they were written."""
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {written_json(item)}" for key, item in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(written_json, value)) + "]"
    return str(value) if isinstance(value, WrittenFloat) else json.dumps(value, ensure_ascii=False)


def told_of(error: json.JSONDecodeError) -> str:
    """What is wrong with JSON, in words."""
    if error.doc[: error.pos].endswith("0") and error.doc[error.pos : error.pos + 1].isdigit():
        return "a number begins with 0 and has more digits (quote it where it is a label or a name)"
    return error.msg


def strict_json(text: str) -> Any:
    """A value that stands as JSON in a text.

    Raises:
        ValueError: it is no JSON, or nobody can know what it says: a key stands twice with two values, or a number is none.
    """
    try:
        return _STRICT.decode(text)
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
        raise BadRow("malformed_json", f"not valid JSON: the number {shortened(digits)} is too large")
    return number


_STRICT = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite)
_EXACT = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=WrittenFloat)

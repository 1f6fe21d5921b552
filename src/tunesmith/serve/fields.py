"""Reading the fields of an object that a client sent: what is wrong is collected and told at once, at most 10 problems."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from tunesmith.serve.refusal import MAX_MESSAGE, Refusal, clipped

__all__ = ["Fields", "Problem", "Problems", "kind_of", "whole_number"]

_MAX_PROBLEMS = 10
_TOO_LARGE = 2.0**63


class Problem(NamedTuple):
    """What is wrong with one field."""

    message: str
    param: str
    code: str


class Problems:
    """Collects up to 10, then gives up at once: a long list costs more than it tells."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, problem: Problem) -> None:
        self._found.append(problem)
        if len(self._found) == _MAX_PROBLEMS:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        if self._found:
            message = " ".join(clipped(f"{p.param}: {p.message}.", MAX_MESSAGE) for p in self._found)
            raise Refusal(message, param=self._found[0].param, code=self._found[0].code)


class Fields:
    """Reads the fields of one object. What is wrong is noted, and a stand-in returned so that reading goes on."""

    def __init__(self, value: Mapping[str, Any], *, problems: Problems, where: str = "") -> None:
        self.value = value
        self.problems = problems
        self._where = where

    def wrong(self, name: str, message: str, *, code: str = "invalid_value") -> None:
        self.problems.add(Problem(message, self._where + name, code))

    def check_names(self, supported: frozenset[str], neutral: Mapping[str, tuple[object, ...]]) -> None:
        """Refuse unknown fields, and known ones whose value asks for something that we do not do."""
        for name, value in self.value.items():
            if name in supported or (name in neutral and (value is None or _is_one_of(value, neutral[name]))):
                continue
            if name in neutral:
                self.wrong(name, "not supported here with this value; leave it out", code="unsupported_parameter")
                continue
            near = get_close_matches(name, supported, n=1) if len(name) <= 64 else []
            hint = f"; the nearest known one is `{near[0]}`" if near else ""
            self.wrong(clipped(name), f"unknown field{hint}", code="unknown_parameter")

    def of_type(self, name: str, kind: type | tuple[type, ...], called: str, *, required: bool = False) -> Any:
        """The value if it is one of these types; None if it is absent or wrong. A boolean is never a number."""
        value = self.value.get(name)
        if value is None:
            if required:
                self.wrong(name, "required", code="missing_required_parameter")
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.wrong(name, f"must be {called}, not {kind_of(value)}", code="invalid_type")
            return None
        return value

    def text(self, name: str, *, required: bool = False) -> str:
        value = self.of_type(name, str, "a string", required=required)
        return "" if value is None else str(value)

    def flag(self, name: str) -> bool:
        return bool(self.of_type(name, bool, "true or false"))

    def whole(self, name: str, *, low: int, high: int) -> int | None:
        given = self.value.get(name)
        value = whole_number(given)
        if value is None and given is not None:
            self.wrong(name, f"must be a whole number, not {kind_of(given)}", code="invalid_type")
        # A JSON reader rounds what no 64 bits hold, and -2^63 - 1 would be taken for -2^63.
        is_rounded = isinstance(given, float) and abs(given) >= _TOO_LARGE
        if value is not None and (is_rounded or not low <= value <= high):
            self.wrong(name, f"must be between {low} and {high}, not {clipped(str(value))}")
        return value

    def number(self, name: str, *, default: float, low: float, high: float) -> float:
        value = self.of_type(name, (int, float), "a number")
        if value is None:
            return default
        if not low <= value <= high:
            self.wrong(name, f"must be between {low:g} and {high:g}, not {clipped(str(value))}")
        return float(value)


def whole_number(value: object) -> int | None:
    """A whole number, which JSON may also write as 1.0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def _is_one_of(value: object, known: tuple[object, ...]) -> bool:
    """Python takes 0 and False for one value, JSON does not; it takes 0 and 0.0 for one."""
    return any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in known)


_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def kind_of(value: object) -> str:
    """What JSON calls a value."""
    return _KINDS.get(type(value), "null")

"""What is found wrong with a row, and where."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from tunesmith.data.validation.codes import CODES
from tunesmith.records import Source

__all__ = ["Finding", "Found", "Severity", "judged", "kind_of"]

_SHOWN = 80
"""Characters of an offending value that a finding keeps."""


class Severity(StrEnum):
    """Whether a row can be used."""

    ERROR = "error"
    """It cannot: the row is bad, and counts for the gate."""
    WARNING = "warning"
    """It can, and somebody should look at it."""


class Found(NamedTuple):
    """What a check says of a row. `is_fixable` and `severity` are given where they differ from what the code's table says."""

    code: str
    detail: str
    at: str = ""
    value: object = None
    is_fixable: bool | None = None
    severity: Severity | None = None


class Finding(NamedTuple):
    """One thing wrong with one row."""

    source: Source
    code: str
    """Stable from version to version."""
    severity: Severity
    detail: str
    """What is wrong, in words."""
    at: str
    """Where in the row, such as `messages[2].content`."""
    value: str
    """The offending value, shortened."""
    mend: str
    is_fixable: bool
    """Whether `--fix` makes the mend."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "source": str(self.source),
            "path": self.source.path,
            "line": self.source.line,
            "code": self.code,
            "severity": self.severity.value,
            "detail": self.detail,
            "at": self.at,
            "value": self.value,
            "mend": self.mend,
            "fixable": self.is_fixable,
        }


def judged(found: Found, *, source: Source, guide: str | None) -> Finding:
    """Add to what a check found its place, severity and mend.

    Args:
        found: what the check says.
        source: the row.
        guide: whose rules hold besides ours: `openai`, `mistral` or None. What it refuses is then an error.
    """
    code = CODES[found.code]
    severity = found.severity or Severity(code.severity)
    if guide in code.refused_by:
        severity = Severity.ERROR
    fixable = code.is_fixable if found.is_fixable is None else found.is_fixable
    return Finding(source, found.code, severity, found.detail, found.at, _shown(found.value), code.mend, fixable)


def _shown(value: object) -> str:
    """A value in one line of at most 80 characters. Half a character is spelt out, so that the line is always Unicode."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text[: 2 * _SHOWN].encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def kind_of(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)

"""The raw row: what every reader gives."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["BadRow", "RawRow", "shortened"]


class BadRow(Exception):
    """A row that cannot be used: a stable reason and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class RawRow(NamedTuple):
    """One row as it lies in its file: the line it starts on, its content or what is wrong with it, and its raw text."""

    line: int
    content: dict[str, Any] | BadRow
    raw: str


def shortened(value: object, *, length: int = 60) -> str:
    """Show a value in at most `length` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else text[: length - 1] + "…"

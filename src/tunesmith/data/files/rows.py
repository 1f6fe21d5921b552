"""The raw row: what every reader gives."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["SAVE_OR_NAME", "BadRow", "RawRow", "kept_text", "shortened"]

SAVE_OR_NAME = "Save the file as UTF-8, or name its encoding: `--encoding cp1252`, in a recipe the source's `encoding: cp1252`."
"""The ways out of a byte that is no text."""
_MAX_KEPT = 1 << 20


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


def kept_text(text: str | bytes) -> str:
    """What a bad row keeps as its text: all of it, but at most 1 MiB of characters; what is no UTF-8 is spelt out."""
    if isinstance(text, bytes):
        text = text[: _MAX_KEPT + 4].decode("utf-8", "backslashreplace")
    if len(text) > _MAX_KEPT:
        text = text[: _MAX_KEPT - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

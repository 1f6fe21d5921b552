"""Labels, columns and units, as text that needs no terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

__all__ = ["LABEL", "columns", "duration", "field", "first_of", "on_one_line", "printable", "size", "unread_field"]

LABEL = 11
"""Width of the labels on the left."""
_WIDEST = 110
"""Longer lines are hard to read, however wide the terminal is."""


def field(label: str, content: str | Text) -> Text:
    """A label on the left and what it says on the right, folded to the terminal's width, with no blanks at line ends.

    What it says may come from a file, so nothing of it that a terminal would obey is shown.
    """
    console = Console()
    width = max(min(console.width, _WIDEST) - LABEL - 2, 20)
    text = content if isinstance(content, Text) else Text(printable(content))
    result = Text()
    for i, line in enumerate(text.wrap(console, width)):
        line.rstrip()
        result.append(f"  {label:<{LABEL - 1}} " if i == 0 else "\n" + " " * (LABEL + 2))
        result.append_text(line)
    result.rstrip()
    return result


def columns(rows: Sequence[Sequence[str]], *, indent: int = LABEL + 2) -> str:
    """Rows as aligned columns: the first to the left, the others, which are figures, to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))]
        lines.append((" " * indent + "   ".join(cells)).rstrip())
    return "\n".join(lines)


def first_of(lines: Sequence[str], *, most: int = 10) -> list[str]:
    """The first lines, and how many more there are."""
    return [*lines[:most], *([f"… and {len(lines) - most:,} more"] if len(lines) > most else [])]


def unread_field(files: Mapping[str, str]) -> list[Text]:
    """Files that could not be read, each with why; nothing where there are none."""
    return [field("unread", "\n".join(f"{name}: {why}" for name, why in files.items()))] if files else []


def duration(seconds: float) -> str:
    """Such as 8.2s, 41s, 2m 05s, 1h 10m."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def size(num_bytes: int) -> str:
    """Such as 478 MB or 2.1 GB (powers of ten)."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def on_one_line(text: str, *, limit: int = 300) -> str:
    """White space folded, and the end cut when it is long."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def printable(text: str) -> str:
    """Text without what a terminal would obey: control characters but the line break and the tab, and changes of direction."""
    return "".join(_harmless(character) for character in text)


def _harmless(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    kind = unicodedata.category(character)
    if character in "\u2028\u2029":
        return "\n"
    if character == "\r":
        return ""  # of a line end of two characters
    # Blanks of any width, and the joiners that words and emoji of many languages are written with.
    return character if kind == "Zs" or character in "\u200c\u200d\ufe0f" else "\ufffd"

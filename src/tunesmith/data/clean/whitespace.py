"""Whitespace that carries nothing: line endings of other systems, blanks at the end of a line, runs of blanks and of empty lines.

Indentation, fenced code and columns made with tabs stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

from tunesmith.data.clean.step import Step, each_text
from tunesmith.data.clean_config import Settings

__all__ = ["build", "tidied"]

_UNTIDY = re.compile(r"\r|[ \t]\n|\n{3}|(?<=\S)  |\A\s|\s\Z")
_FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
_LINE_END = re.compile(r"[ \t]+$", re.MULTILINE)
_RUN_OF_BLANKS = re.compile(r"(?<=[^\s]) {2,}(?=[^\s])")
_RUN_OF_LINES = re.compile(r"\n{3,}")


def build(_settings: Settings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it has no settings."""
    return each_text(tidied)


def tidied(text: str) -> str:
    """The text without whitespace that carries nothing."""
    if not _UNTIDY.search(text):
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _LINE_END.sub("", text)
    text = _outside_fences(text)
    text = text.strip("\n").rstrip()
    is_indented = any(line[:1] in {" ", "\t"} for line in text.split("\n")[1:])
    return text if is_indented else text.lstrip()


def _outside_fences(text: str) -> str:
    """Tidy everything but fenced code, in which every blank may count."""
    if "```" not in text and "~~~" not in text:
        return _RUN_OF_LINES.sub("\n\n", _RUN_OF_BLANKS.sub(" ", text))
    places = [match.start() for match in _FENCE.finditer(text)]
    if len(places) % 2:
        places.append(len(text))
    parts = []
    at = 0
    for start, end in zip(places[::2], places[1::2], strict=True):
        parts += [_RUN_OF_LINES.sub("\n\n", _RUN_OF_BLANKS.sub(" ", text[at:start])), text[start:end]]
        at = end
    return "".join((*parts, _RUN_OF_LINES.sub("\n\n", _RUN_OF_BLANKS.sub(" ", text[at:]))))

"""Marks by which another tool ended a turn or a text: written out in data, a model would learn to spell them.

Only where they stand at the very end, alone or several. A text that speaks of them elsewhere keeps them.
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.data.clean.step import Step, each_text
from tunesmith.data.clean_config import Settings

__all__ = ["build", "without_end_marks"]

_NAMES = ("endoftext", "end_of_text", "im_end", "im_sep", "eot_id", "eom_id", "end", "eos")
_MARKS = (*(f"<|{name}|>" for name in _NAMES), "<end_of_turn>", "<eos>", "</s>", "[EOS]")


def build(_settings: Settings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it has no settings."""
    return each_text(without_end_marks)


def without_end_marks(text: str) -> str:
    """The text without the marks at its end, and without the blanks before them."""
    rest = text.rstrip()
    if not rest.endswith(_MARKS):
        return text
    while rest.endswith(_MARKS):
        mark = next(mark for mark in _MARKS if rest.endswith(mark))
        rest = rest.removesuffix(mark).rstrip()
    return rest

"""Text that was decoded with the wrong encoding, such as `CafÃ©`, is decoded again; what is right already stays as it is.

ftfy (Speer 2019) finds and repairs it. Quotation marks stay as they were written: straight ones would be another text.
"""

from __future__ import annotations

from pathlib import Path

import ftfy

from tunesmith.data.clean.step import Step, each_text
from tunesmith.data.clean_config import Settings

__all__ = ["build", "repaired"]

# Each pass takes off one layer of wrong decoding; more than a few are never seen in the wild.
_MAX_PASSES = 8


def build(_settings: Settings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it has no settings."""
    return each_text(repaired)


def repaired(text: str) -> str:
    """The text with each of its lines decoded as it was meant."""
    if text.isascii():
        return text
    for _ in range(_MAX_PASSES):
        lines = text.split("\n")
        again = "\n".join(line if line.isascii() else ftfy.fix_encoding(line) for line in lines)
        if again == text:
            break
        text = again
    return text

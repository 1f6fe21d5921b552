"""What the terminal shows: progress while work goes on (stderr), and screens of results (stdout).

Colour helps and is never needed; everything reads in a pipe, at 80 columns and aloud.
"""

from __future__ import annotations

from tunesmith.terminal.collected_screen import collected_screen
from tunesmith.terminal.conversation import answer_once, converse
from tunesmith.terminal.curve_screen import curve_screen
from tunesmith.terminal.progress import watching
from tunesmith.terminal.screens import (
    checked_screen,
    diagnosis_screen,
    finished_as_json,
    finished_screen,
    models_screen,
    sheet_screen,
    version_as_json,
)
from tunesmith.terminal.validation_screen import validation_screen

__all__ = [
    "answer_once",
    "checked_screen",
    "collected_screen",
    "converse",
    "curve_screen",
    "diagnosis_screen",
    "finished_as_json",
    "finished_screen",
    "models_screen",
    "sheet_screen",
    "validation_screen",
    "version_as_json",
    "watching",
]

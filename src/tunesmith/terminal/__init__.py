"""What the terminal shows: progress while work goes on (stderr), and screens of results (stdout).

Colour helps and is never needed; everything reads in a pipe, at 80 columns and aloud.
"""

from __future__ import annotations

from tunesmith.terminal.annotation import agreement_screen, annotating_lines, open_page
from tunesmith.terminal.cleaning_screen import cleaned_screen
from tunesmith.terminal.collected_screen import collected_screen
from tunesmith.terminal.conversation import answer_once, converse, require_unicode, say_once
from tunesmith.terminal.curve_screen import curve_screen
from tunesmith.terminal.data_screens import coverage_screen
from tunesmith.terminal.evaluation_screen import judged_screen
from tunesmith.terminal.partners import Local, Partner, connect
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
from tunesmith.terminal.split_screen import split_screen
from tunesmith.terminal.validation_screen import validation_screen

__all__ = [
    "Local",
    "Partner",
    "agreement_screen",
    "annotating_lines",
    "answer_once",
    "checked_screen",
    "cleaned_screen",
    "collected_screen",
    "connect",
    "converse",
    "coverage_screen",
    "curve_screen",
    "diagnosis_screen",
    "finished_as_json",
    "finished_screen",
    "judged_screen",
    "models_screen",
    "open_page",
    "require_unicode",
    "say_once",
    "sheet_screen",
    "split_screen",
    "validation_screen",
    "version_as_json",
    "watching",
]

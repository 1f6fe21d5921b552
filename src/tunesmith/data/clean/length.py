"""Rows too short to teach anything, or too long to be what they claim, are dropped. Lengths are in characters."""

from __future__ import annotations

from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step, each
from tunesmith.data.clean_config import LengthSettings
from tunesmith.records import Dropped, Record, Role

__all__ = ["build"]


def build(settings: LengthSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step."""
    limits = settings or LengthSettings()

    def measure(record: Record) -> Outcome:
        turns = (*record.messages, *record.rejected)
        whole = len(record.text) if record.text is not None else sum(len(turn.content) for turn in turns)
        answers = [len(turn.content.strip()) for turn in turns if turn.role is Role.ASSISTANT and turn.weight]
        checks = (
            ("too_short", whole < limits.min_characters, whole, f"the least is {limits.min_characters:,}"),
            ("too_long", whole > limits.max_characters, whole, f"the most is {limits.max_characters:,}"),
            *(
                ("answer_too_short", size < limits.min_answer_characters, size, f"the least is {limits.min_answer_characters:,}")
                for size in answers
            ),
        )
        for reason, fails, size, rule in checks:
            if fails:
                return Dropped(source=record.source, reason=reason, detail=f"{size:,} characters; {rule}")
        return record

    return each(measure)

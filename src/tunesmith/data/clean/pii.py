"""Personal data is replaced by typed placeholders, `[EMAIL_1]`, that mean the same value through the whole conversation.

What has a pattern is found by it (`find_pii.py`). Names, places and ages have none: they are not covered, unless `names: true` asks
a language model for them (`names.py`, the extra `presidio`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tunesmith.data.clean.find_pii import Span, find_pii
from tunesmith.data.clean.placeholders import scrub
from tunesmith.data.clean.step import Step, each
from tunesmith.data.clean_config import PiiSettings

__all__ = ["build"]


def build(settings: PiiSettings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step.

    Raises:
        MissingExtra: names are asked for, and the extra or its language model is not installed.
    """
    settings = settings or PiiSettings()
    find_names = None
    if settings.names:
        from tunesmith.data.clean.names import name_finder

        find_names = name_finder(settings.model)

    def find(text: str) -> Sequence[Span]:
        found = find_pii(text, types=settings.types, regions=settings.regions)
        if find_names is None:
            return found
        names = (span for span in find_names(text) if not any(span.start < o.end and o.start < span.end for o in found))
        return sorted([*found, *names])

    return each(lambda record: scrub(record, find=find, same=_same))


def _same(kind: str, value: str) -> str:
    """What two spellings of one value have in common."""
    if kind == "PHONE":
        return re.sub(r"\D", "", value)
    if kind in {"EMAIL", "IP", "MAC"}:
        return value.lower()
    return re.sub(r"[^\w]", "", value).upper() if kind.isupper() and any(sign.isdigit() for sign in value) else value

"""Where digits stand close together in a text: whoever looks for numbers looks nowhere else, and most texts have no such place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["near", "places_of_digits"]

Place = tuple[int, int]

_PLACE = re.compile(r"\d(?:[A-Za-z .\-/()+\u00a0]{0,2}\d){5,}")


def places_of_digits(text: str) -> list[Place]:
    """The spans in which six digits or more stand with at most two signs between neighbours that may stand in a number."""
    return [match.span() for match in _PLACE.finditer(text)]


def near(
    pattern: re.Pattern[str], text: str, places: Iterable[Place], *, before: int = 0, after: int = 2
) -> Iterator[re.Match[str]]:
    """Matches that begin in a place, or `before` characters ahead of it, and end `after` characters behind it at the latest."""
    for start, end in places:
        for match in pattern.finditer(text, max(0, start - before), end + after):
            if match.start() < end:
                yield match

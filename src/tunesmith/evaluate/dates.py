"""Dates and weekdays in one form, in English, German and French: `3 May 2026`, `3.5.2026` and `2026-05-03`; `Mon-Fri`, `donnerstags`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["DATE", "MONTH", "Day", "days_in", "is_same_day", "weekdays_in", "weekdays_open"]

_MONTHS = (
    ("January", "Januar", "Jänner", "janvier", "Jan"),
    ("February", "Februar", "février", "Feb"),
    ("March", "März", "mars", "Mar"),
    ("April", "avril", "Apr"),
    ("May", "Mai", "mai"),
    ("June", "Juni", "juin", "Jun"),
    ("July", "Juli", "juillet", "Jul"),
    ("August", "août", "Aug"),
    ("September", "septembre", "Sept", "Sep"),
    ("October", "Oktober", "octobre", "Oct", "Okt"),
    ("November", "novembre", "Nov"),
    ("December", "Dezember", "décembre", "Dec", "Dez"),
)
_NUMBER = {name: number for number, names in enumerate(_MONTHS, start=1) for name in names}
MONTH = "|".join(sorted(_NUMBER, key=len, reverse=True))
"""Expression of a month's name, as it is written within a sentence."""
DATE = re.compile(
    r"(?<![\d.,/-])(?:(?P<iso>\d{4})-(?P<iso_month>\d{2})-(?P<iso_day>\d{2})"
    r"|(?P<one>\d{1,2})(?P<mark>[./])(?P<two>\d{1,2})(?P=mark)(?P<numeric_year>\d{4})"
    rf"|(?P<day>\d{{1,2}})(?:st|nd|rd|th|er|\.)?\s+(?:of\s+)?(?P<month>{MONTH})\b\.?(?:,?\s+(?P<year>\d{{4}})\b)?"
    r"|(?:\b(?:[Aa]m|[Vv]om|[Zz]um|dem|und)\s+)(?P<short_day>\d{1,2})\.(?P<short_month>\d{1,2})\.(?!\d)"
    rf")(?![\d/-])|\b(?P<us_month>{MONTH})\.?\s+(?P<us_day>\d{{1,2}})(?:st|nd|rd|th)?(?![\w.,:]*\d)(?:,?\s+(?P<us_year>\d{{4}})\b)?"
)
_WEEKDAYS = (
    "Mondays? Montags? montags lundis? Mon Mo",
    "Tuesdays? Dienstags? dienstags mardis? Tues? Di",
    "Wednesdays? Mittwochs? mittwochs mercredis? Wed Mi",
    "Thursdays? Donnerstags? donnerstags jeudis? Thu(?:rs)? Do",
    "Fridays? Freitags? freitags vendredis? Fri Fr",
    "Saturdays? Samstags? samstags Sonnabends? samedis? Sat Sa",
    "Sundays? Sonntags? sonntags dimanches? Sun So",
)
_WHOLE = [(number, word) for number, words in enumerate(_WEEKDAYS) for word in words.split()[:-2]]
_SHORT = [(number, word) for number, words in enumerate(_WEEKDAYS) for word in words.split()[-2:]]
_DAY = rf"(?:{'|'.join(word for _, word in _WHOLE)})"
_ANY = rf"(?:{'|'.join(word for _, word in [*_WHOLE, *_SHORT])})"
_WEEKDAY = re.compile(rf"(?<!Good )(?<!Easter )(?<!Black )\b{_DAY}\b")
_SPAN = re.compile(rf"\b({_ANY})\b\.?\s*(?:-|–|to|till|until|through|bis|à|au)\s*\b({_ANY})\b")
_OFTEN = (
    (re.compile(r"\b(?:daily|every\s+day|all\s+week|täglich|jeden\s+Tag|tous\s+les\s+jours)\b", re.IGNORECASE), range(7)),
    (re.compile(r"\b(?:weekdays?|werktags|wochentags|en\s+semaine)\b", re.IGNORECASE), range(5)),
    (re.compile(r"\b(?:weekends?|Wochenenden?|week-ends?)\b", re.IGNORECASE), (5, 6)),
)


class Day(NamedTuple):
    """A day, and its other reading where a date has two (`3/4/2026`)."""

    readings: tuple[tuple[int, int], ...]
    """Month and day of the month."""
    year: int | None


def days_in(text: str) -> Iterator[tuple[re.Match[str], Day]]:
    """Every date of a text, with the place at which it stands."""
    for found in DATE.finditer(text):
        if (day := _day(found)) is not None:
            yield found, day


def is_same_day(one: Day, other: Day) -> bool:
    """Whether two dates may be one day; a year counts where both have one."""
    return bool(set(one.readings) & set(other.readings)) and (None in {one.year, other.year} or one.year == other.year)


def weekdays_in(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Every weekday that is written out, with the place at which it stands; Monday is 0."""
    for found in _WEEKDAY.finditer(text):
        yield found, _weekday(found[0])


def weekdays_open(text: str) -> frozenset[int]:
    """All weekdays that a text speaks of, with those between two and those of `daily`.

    >>> sorted(weekdays_open("Tue-Thu, and at weekends"))
    [1, 2, 3, 5, 6]
    """
    days = {day for _, day in weekdays_in(text)}
    for found in _SPAN.finditer(text):
        first, last = _weekday(found[1]), _weekday(found[2])
        days |= {day % 7 for day in range(first, (last if last >= first else last + 7) + 1)}
    return frozenset(days.union(*(often for pattern, often in _OFTEN if pattern.search(text))))


def _weekday(word: str) -> int:
    return next(number for number, pattern in [*_WHOLE, *_SHORT] if re.fullmatch(pattern, word))


def _day(found: re.Match[str]) -> Day | None:
    part = found.groupdict()
    if part["iso"]:
        pairs, year = [(int(part["iso_month"]), int(part["iso_day"]))], part["iso"]
    elif part["one"]:
        one, two = int(part["one"]), int(part["two"])
        pairs, year = [(two, one), *([(one, two)] if part["mark"] == "/" else [])], part["numeric_year"]
    elif part["short_day"]:
        pairs, year = [(int(part["short_month"]), int(part["short_day"]))], None
    elif part["month"]:
        pairs, year = [(_NUMBER[part["month"]], int(part["day"]))], part["year"]
    else:
        pairs, year = [(_NUMBER[part["us_month"]], int(part["us_day"]))], part["us_year"]
    readings = tuple(pair for pair in pairs if 1 <= pair[0] <= 12 and 1 <= pair[1] <= 31)
    return Day(readings, int(year) if year else None) if readings else None

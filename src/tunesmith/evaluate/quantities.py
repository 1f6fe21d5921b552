"""Numbers, units and currencies in one form: `1'250.00`, `two weeks` and `14 days`, in English, German and French.

Knows no sentences. What stands for two things is given in all its forms: 85 cents are 0.85 euros, and 0.85 dollars.
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["CURRENCY_SIGNS", "SPELLED", "forms_of", "hour_of", "scaled", "unit_of", "value_of"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ENGLISH = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_GERMAN = _words(
    "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn"
)
_GERMAN_TENS = _words("zwanzig dreissig vierzig fünfzig sechzig siebzig achtzig neunzig")
_FRENCH = _words("zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize")
_FRENCH_TENS = _words("vingt trente quarante cinquante soixante")
_ONES = (
    {word: number for words in (_FRENCH, _GERMAN, _ENGLISH) for number, word in enumerate(words)}
    | {word: 10 * tens for words in (_FRENCH_TENS, _GERMAN_TENS, _TENS) for tens, word in enumerate(words, start=2)}
    | {f"{_GERMAN[ones]}und{word}": 10 * tens + ones for tens, word in enumerate(_GERMAN_TENS, start=2) for ones in range(1, 10)}
    | {"eine": 1, "einen": 1, "einem": 1, "einer": 1, "une": 1, "dreißig": 30, "zwanzig": 20, "dozen": 12}
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "millionen": 10**6, "millions": 10**6, "billion": 10**9}
_WORD = "|".join(sorted([*_ONES, *_SCALES], key=len, reverse=True))
SPELLED = rf"(?:(?:{_WORD})(?:(?:[\s-]+|\s+and\s+)(?:{_WORD}))*(?:\s+and\s+a\s+half)?|half\s+an?)"
"""Expression of a number in words."""

CURRENCY_SIGNS = r"(?:US)?\$|[€£¥]|\b(?:EUR|USD|GBP|CHF|JPY|SFr|Fr)\b\.?"
_UNITS = {
    word: unit
    for unit, words in {
        "second": "second seconds sekunde sekunden seconde secondes",
        "minute": "minute minutes min minuten",
        "hour": "hour hours stunde stunden heure heures",
        "day": "day days tag tage tagen jour jours",
        "week": "week weeks woche wochen semaine semaines",
        "month": "month months monat monate monaten mois",
        "year": "year years jahr jahre jahren ans année années",
        "%": "% percent prozent",
        "piece": "piece pieces stück",
        "person": "person persons people personen leute personne personnes",
        "page": "page pages seite seiten",
        "item": "item items",
        "point": "point points punkte",
        "star": "star stars sterne",
        "degree": "degree degrees grad degrés",
        "mile": "mile miles",
        "km": "km kilometre kilometres kilometer kilometers kilomètre kilomètres",
        "m": "m metre metres meter meters mètre mètres",
        "cm": "cm",
        "mm": "mm",
        "kg": "kg kilogram kilograms kilo kilos kilogramm",
        "g": "g gram grams gramm grammes",
        "litre": "l litre litres liter liters",
        "ml": "ml millilitre millilitres milliliter",
        "cl": "cl",
        "eur": "€ euro euros eur",
        "usd": "$ us$ dollar dollars usd",
        "gbp": "£ pound pounds gbp quid",
        "jpy": "¥ yen jpy",
        "chf": "chf franc francs franken sfr sfr. fr fr.",
        "cent": "cent cents",
        "penny": "penny pence p",
        "rappen": "rappen centimes",
    }.items()
    for word in words.split()
}
_SAME = {
    "second": [("minute", Fraction(1, 60))],
    "hour": [("minute", Fraction(60))],
    "day": [("minute", Fraction(1440))],
    "week": [("minute", Fraction(10080))],
    "year": [("month", Fraction(12))],
    "km": [("m", Fraction(1000))],
    "cm": [("m", Fraction(1, 100))],
    "mm": [("m", Fraction(1, 1000))],
    "kg": [("g", Fraction(1000))],
    "ml": [("litre", Fraction(1, 1000))],
    "cl": [("litre", Fraction(1, 100))],
    "cent": [("eur", Fraction(1, 100)), ("usd", Fraction(1, 100))],
    "penny": [("gbp", Fraction(1, 100))],
    "rappen": [("chf", Fraction(1, 100))],
}
_MOST_DIGITS = 40
_LARGEST = 10**15
"""Longer numbers are compared as they are written: no text counts anything by them, and Python refuses to convert the longest."""


def value_of(text: str) -> str:
    """A number in one form: no thousands separators, no needless zeros. The last of two kinds of separator is the decimal one.

    >>> value_of("1'250.00"), value_of("3,50"), value_of("one hundred and twenty"), value_of("one and a half")
    ('1250', '3.5', '120', '1.5')
    """
    if not text[:1].isdigit():
        return _plain(_spelled(text.casefold()))
    text = re.sub(r"['’\s]", "", text).rstrip(".,")
    last = max(text.rfind("."), text.rfind(","))
    tail = text[last + 1 :]
    is_decimal = last >= 0 and (len(tail) != 3 or ("." in text and "," in text) or text.startswith("0"))
    digits = re.sub(r"\D", "", text[:last] if is_decimal else text)
    whole = digits.lstrip("0") or "0"
    fraction = tail.rstrip("0") if is_decimal else ""
    return f"{whole}.{fraction}" if fraction else whole


def scaled(value: str, factor: int) -> str:
    """A number times what stands behind it: `2.5 million`."""
    return value if len(value) > _MOST_DIGITS else _plain(Fraction(value) * factor)


def unit_of(word: str) -> str:
    """A unit or currency by its name here: `Wochen` is `week`; empty where the word is none."""
    return "degree" if word.startswith("°") else _UNITS.get(word.strip().casefold(), "")


def forms_of(value: str, unit: str) -> frozenset[tuple[str, str]]:
    """All that a number with its unit is equal to, itself included.

    >>> sorted(forms_of("2", "week"))
    [('2', 'week'), ('20160', 'minute')]
    """
    if unit not in _SAME or len(value) > _MOST_DIGITS:
        return frozenset([(value, unit)])
    number = Fraction(value)
    return frozenset([(value, unit), *((_plain(number * factor), other) for other, factor in _SAME[unit])])


def hour_of(word: str) -> int | None:
    """An hour in digits or in words, 1 to 12."""
    hour = int(word) if word.isdecimal() else _ONES.get(word.casefold(), 0)
    return hour if 1 <= hour <= 12 else None


def _spelled(text: str) -> Fraction:
    half = Fraction(0)
    if found := re.search(r"\s+and\s+a\s+half$", text):
        text, half = text[: found.start()], Fraction(1, 2)
    if text.startswith("half"):
        return Fraction(1, 2)
    total = current = 0
    for word in re.split(r"[\s-]+", text):
        if word in _ONES:
            current += _ONES[word]
        elif word in _SCALES:
            current = max(current, 1) * _SCALES[word]
            if current > _LARGEST:
                break
            if _SCALES[word] > 100:
                total, current = total + current, 0
    return total + current + half


def _plain(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else f"{float(number):.9f}".rstrip("0")

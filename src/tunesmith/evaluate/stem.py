"""English words without their endings, by Porter's algorithm with the changes that `rouge_score` uses.

Those are NLTK's: a list of irregular words, `-ied` and `-ies` after one letter, a final y after any consonant but the first letter,
`-fulli` and `-logi`. The result equals `nltk.stem.PorterStemmer()` on every word.

Reference: Porter, "An algorithm for suffix stripping", Program 14 (3), 1980.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["stem"]

_IRREGULAR = {
    "skies": "sky",
    "sky": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "news": "news",
    "innings": "inning",
    "inning": "inning",
    "outings": "outing",
    "outing": "outing",
    "cannings": "canning",
    "canning": "canning",
    "howe": "howe",
    "proceed": "proceed",
    "exceed": "exceed",
    "succeed": "succeed",
}
_VOWELS = frozenset("aeiou")


class _Rule(NamedTuple):
    """A suffix, what takes its place, and what the rest of the word must be like. The first suffix that fits decides."""

    suffix: str
    replacement: str
    holds: Callable[[str], bool]


def stem(word: str) -> str:
    """The stem of a lower-case word.

    >>> stem("relational"), stem("hopping"), stem("skies")
    ('relat', 'hop', 'sky')
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _past(_plural(word))
    if word.endswith("y") and len(word) > 2 and _is_consonant(word, len(word) - 2):
        word = word[:-1] + "i"
    word = _apply(_step_2(word), _STEP_3)
    word = _apply(word, _STEP_4)
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_cvc(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _is_consonant(word: str, at: int) -> bool:
    if word[at] in _VOWELS:
        return False
    return word[at] != "y" or at == 0 or not _is_consonant(word, at - 1)


def _measure(word: str) -> int:
    """How many times a consonant follows a vowel."""
    kinds: list[bool] = []
    for at, letter in enumerate(word):
        kinds.append(letter not in _VOWELS and (letter != "y" or at == 0 or not kinds[-1]))
    return sum(later and not earlier for earlier, later in pairwise(kinds))


def _is_positive(word: str) -> bool:
    return _measure(word) > 0


def _is_long(word: str) -> bool:
    return _measure(word) > 1


def _ends_double(word: str) -> bool:
    return len(word) >= 2 and word[-1] == word[-2] and _is_consonant(word, len(word) - 1)


def _ends_cvc(word: str) -> bool:
    """Consonant, vowel, consonant other than w, x and y; or a word of a vowel and a consonant."""
    last = len(word) - 1
    if last >= 2:
        closed = _is_consonant(word, last - 2) and not _is_consonant(word, last - 1) and _is_consonant(word, last)
        return closed and word[-1] not in "wxy"
    return last == 1 and not _is_consonant(word, 0) and _is_consonant(word, 1)


def _apply(word: str, rules: Sequence[_Rule]) -> str:
    for suffix, replacement, holds in rules:
        if word.endswith(suffix):
            rest = word[: len(word) - len(suffix)]
            return rest + replacement if holds(rest) else word
    return word


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _is_positive(word[:-3]) else word
    rest = next((word[: -len(ending)] for ending in ("ed", "ing") if word.endswith(ending)), None)
    if rest is None or all(_is_consonant(rest, at) for at in range(len(rest))):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _ends_double(rest):
        return rest if rest[-1] in "lsz" else rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _ends_cvc(rest) else rest


def _step_2(word: str) -> str:
    if word.endswith("alli") and _is_positive(word[:-4]):
        return _step_2(word[:-2])
    if word.endswith("logi"):
        # Its l counts as part of what comes before, so that geo- and theo- are long enough.
        return word[:-1] if _is_positive(word[:-3]) else word
    return _apply(word, _STEP_2)


def _rules(text: str, holds: Callable[[str], bool]) -> tuple[_Rule, ...]:
    """Rules from pairs such as `izer:ize`."""
    return tuple(_Rule(suffix, replacement, holds) for suffix, _, replacement in (pair.partition(":") for pair in text.split()))


_STEP_2 = _rules(
    "ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e ousli:ous ization:ize ation:ate ator:ate"
    " alism:al iveness:ive fulness:ful ousness:ous aliti:al iviti:ive biliti:ble fulli:ful",
    _is_positive,
)
_STEP_3 = _rules("icate:ic ative: alize:al iciti:ic ical:ic ful: ness:", _is_positive)
_STEP_4 = (
    *_rules("al: ance: ence: er: ic: able: ible: ant: ement: ment: ent:", _is_long),
    _Rule("ion", "", lambda rest: _is_long(rest) and rest[-1] in "st"),
    *_rules("ou: ism: ate: iti: ous: ive: ize:", _is_long),
)

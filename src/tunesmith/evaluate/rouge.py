"""ROUGE-1, ROUGE-2 and ROUGE-L for any script.

On ASCII text the figures are those of Google's `rouge_score` 0.1.2 without stemming. That library keeps only [a-z0-9],
so two identical Russian answers score 0 there; here a word is a run of letters, digits and their marks, and a script
written without spaces is split into characters.

Reference: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tunesmith.evaluate.metric import Outcome, Statistics, mean_statistics
from tunesmith.evaluate.scripts import is_unspaced, is_word

__all__ = ["Overlap", "Rouge", "lcs_length", "rouge", "rouge_statistics", "tokenise"]


class Overlap(NamedTuple):
    """What an answer and its reference share, each between 0 and 1."""

    precision: float
    recall: float
    f: float


class Rouge(NamedTuple):
    """The three figures of one answer. Fields bear the names that `rouge_score` uses."""

    rouge1: Overlap
    rouge2: Overlap
    rougeL: Overlap


class _Spacing(dict[int, str]):
    """A table for `str.translate`, filled as characters turn up: words stay, all else becomes a space or nothing."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
            spaced = ""  # variation selectors choose a glyph
        elif category == "Cf" and code != 0x200B:
            spaced = ""  # soft hyphens and joiners stand inside words; only the zero-width space parts them
        elif not is_word(character):
            spaced = " "
        else:
            spaced = f" {character} " if is_unspaced(character) else character
        self[code] = spaced
        return spaced


_SPACING = _Spacing()
_ASCII_WORD = re.compile(r"[a-z0-9]+")


def tokenise(text: str) -> list[str]:
    """Split a text into lower-case words, and scripts without spaces into characters.

    >>> tokenise("Don’t open 本店!")
    ['don', 't', 'open', '本', '店']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return unicodedata.normalize("NFKC", text).lower().translate(_SPACING).split()


def lcs_length(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a whole row of the usual table at a time in the bits of an integer.

    Reference: Hyyrö, "Bit-parallel LCS-length computation revisited", 2004: V <- (V + (V & M)) | (V - (V & M)), where M
    marks the places of the current item; the zero bits of V count the length.
    """
    places: dict[Hashable, int] = {}
    bit = 1
    for item in left:
        places[item] = places.get(item, 0) | bit
        bit <<= 1
    ones = bit - 1
    row = ones
    for item in right:
        matches = row & places.get(item, 0)
        if matches:
            row = ((row + matches) | (row - matches)) & ones
    return len(left) - row.bit_count()


def rouge(answer: str, *, reference: str, tokenise: Callable[[str], list[str]] = tokenise) -> Rouge:
    """Compare one answer with its reference.

    Args:
        answer: the text to judge.
        reference: the text it should resemble.
        tokenise: splits a text into tokens; give your own to stem or to segment words.

    >>> rouge("the cat sat", reference="the cat sat down").rougeL
    Overlap(precision=1.0, recall=0.75, f=0.8571428571428571)
    """
    found, wanted = tokenise(answer), tokenise(reference)
    pairs_found, pairs_wanted = list(pairwise(found)), list(pairwise(wanted))
    return Rouge(
        _overlap(_num_shared(found, wanted), num_found=len(found), num_wanted=len(wanted)),
        _overlap(_num_shared(pairs_found, pairs_wanted), num_found=len(pairs_found), num_wanted=len(pairs_wanted)),
        _overlap(lcs_length(wanted, found), num_found=len(found), num_wanted=len(wanted)),
    )


def rouge_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """ROUGE of every row with an answer; the corpus figure is the mean F over rows, times 100."""
    scores = [None if row.answer is None else rouge(row.answer, reference=row.reference) for row in outcomes]
    return {
        name: mean_statistics(
            [None if score is None else score[place].f for score in scores],
            signature=f"{name}|mean F over rows x 100|words, or characters if unspaced|no stemming|rouge_score 0.1.2 on ASCII",
        )
        for place, name in enumerate(Rouge._fields)
    }


def _num_shared(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Items in common, each as often as it occurs in both."""
    unmatched: dict[Hashable, int] = {}  # a plain loop: two `Counter`s are three times slower at the length of an answer
    for item in left:
        unmatched[item] = unmatched.get(item, 0) + 1
    num_shared = 0
    for item in right:
        num_left = unmatched.get(item)
        if num_left:
            unmatched[item] = num_left - 1
            num_shared += 1
    return num_shared


def _overlap(num_shared: int, *, num_found: int, num_wanted: int) -> Overlap:
    if not num_shared:
        return Overlap(0.0, 0.0, 0.0)
    precision, recall = num_shared / num_found, num_shared / num_wanted
    return Overlap(precision, recall, 2 * precision * recall / (precision + recall))

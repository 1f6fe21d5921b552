"""ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum for any script.

On ASCII text the figures are those of Google's `rouge_score` 0.1.2, with stemming and without. That library keeps only [a-z0-9],
so two identical Russian answers score 0 there; here a word is a run of letters, digits and their marks, and a script
written without spaces is split into characters. `tokenise_ascii` splits as that library does, so its figures can be had on any text.

Reference: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Literal, NamedTuple

from tunesmith.evaluate.metric import Metric, Outcome, Statistics, mean_statistics
from tunesmith.evaluate.scripts import is_unspaced, is_word
from tunesmith.evaluate.stem import stem

__all__ = [
    "Overlap",
    "Rouge",
    "RougeTokenizer",
    "lcs_length",
    "lcs_places",
    "rouge",
    "rouge_metric",
    "rouge_statistics",
    "rouge_tokenizer",
    "tokenise",
    "tokenise_ascii",
]

RougeTokenizer = Literal["unicode", "rouge_score"]
Tokenise = Callable[[str], list[str]]


class Overlap(NamedTuple):
    """What an answer and its reference share, each between 0 and 1."""

    precision: float
    recall: float
    f: float


_NOTHING = Overlap(0.0, 0.0, 0.0)


class Rouge(NamedTuple):
    """The figures of one answer. Fields bear the names that `rouge_score` uses."""

    rouge1: Overlap
    rouge2: Overlap
    rougeL: Overlap
    rougeLsum: Overlap
    """Of the sentences, which line ends part (section 3.2): each reference sentence against all of the answer's."""


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


class _Stems(dict[str, str]):
    """What `rouge_score` compares in place of each word, filled as words turn up: stems of ASCII words of more than three letters."""

    def __missing__(self, word: str) -> str:
        if len(self) >= _MOST_STEMS:
            self.clear()
        self[word] = found = stem(word) if len(word) > 3 and word.isascii() else word
        return found


_MOST_STEMS = 500_000
_STEMS = _Stems()
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


def tokenise_ascii(text: str) -> list[str]:
    """Split a text as `rouge_score` does: only lower-case [a-z0-9] are words, whatever the script."""
    return _ASCII_WORD.findall(text.lower())


def rouge_tokenizer(name: RougeTokenizer = "unicode", *, stems: bool = False) -> Tokenise:
    """The function that splits texts.

    Args:
        name: `unicode`, or `rouge_score` for that library's own.
        stems: whether ASCII words of more than three letters lose their endings (`stem`).
    """
    split = tokenise if name == "unicode" else tokenise_ascii
    return (lambda text: list(map(_STEMS.__getitem__, split(text)))) if stems else split


def lcs_length(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a whole row of the usual table at a time in the bits of an integer.

    Reference: Hyyrö, "Bit-parallel LCS-length computation revisited", 2004: V <- (V + (V & M)) | (V - (V & M)), where M
    marks the places of the current item; the zero bits of V count the length.
    """
    places = _masks(left)
    row = ones = (1 << len(left)) - 1
    for item in right:
        matches = row & places.get(item, 0)
        if matches:
            row = ((row + matches) | (row - matches)) & ones
    return len(left) - row.bit_count()


def lcs_places(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[int]:
    """Places in `left` of one longest common subsequence: the one that `rouge_score` walks back to, the last of its choices."""
    return _places(_masks(left), len(left), right)


def _masks(items: Sequence[Hashable]) -> dict[Hashable, int]:
    """For each item the places where it stands, as bits."""
    masks: dict[Hashable, int] = {}
    bit = 1
    for item in items:
        masks[item] = masks.get(item, 0) | bit
        bit <<= 1
    return masks


def _places(masks: Mapping[Hashable, int], num_left: int, right: Sequence[Hashable]) -> list[int]:
    """`lcs_places` of a left side whose masks are known.

    `rouge_score` walks its table from the last corner: where the items are equal both steps are taken, else the one to the longer
    rest, and on a tie the left item is left out. In bit rows (`lcs_length`) it can be seen at once how many items are left out.
    """
    found = [masks.get(item, 0) for item in right]
    if not any(found):
        return []
    row = ones = (1 << num_left) - 1
    rows = [row]
    for mask in found:
        if matches := row & mask:
            row = ((row + matches) | (row - matches)) & ones
        rows.append(row)
    places = []
    i, j = num_left, len(right)
    while i and j:
        below = (1 << i) - 1
        equal = (found[j - 1] & below).bit_length()
        gains = ~rows[j - 1] & below
        while (gain := gains.bit_length()) > equal:
            # Item `gain` makes the rest longer without the right item; is it then longer than without this one?
            if gains.bit_count() > gain - 1 - (rows[j] & (1 << (gain - 1)) - 1).bit_count():
                break
            gains ^= 1 << (gain - 1)
        if gain > equal:
            i, j = gain, j - 1
        else:
            i, j = equal - 1, j - 1
            if equal:
                places.append(i)
            i = max(i, 0)
    return places[::-1]


def rouge(answer: str, *, reference: str, tokenise: Tokenise = tokenise) -> Rouge:
    """Compare one answer with its reference.

    Args:
        answer: the text to judge.
        reference: the text it should resemble.
        tokenise: splits a text into tokens; see `rouge_tokenizer`, or give your own to segment words.

    >>> rouge("the cat sat", reference="the cat sat down").rougeL
    Overlap(precision=1.0, recall=0.75, f=0.8571428571428571)
    """
    found, wanted = tokenise(answer), tokenise(reference)
    pairs_found, pairs_wanted = list(pairwise(found)), list(pairwise(wanted))
    longest = _overlap(lcs_length(wanted, found), num_found=len(found), num_wanted=len(wanted))
    has_lines = "\n" in answer or "\n" in reference
    return Rouge(
        _overlap(_num_shared(found, wanted), num_found=len(found), num_wanted=len(wanted)),
        _overlap(_num_shared(pairs_found, pairs_wanted), num_found=len(pairs_found), num_wanted=len(pairs_wanted)),
        longest,
        _of_sentences(answer, reference=reference, tokenise=tokenise) if has_lines else longest,
    )


def rouge_metric(*, tokenizer: RougeTokenizer = "unicode", stems: bool = False, always_lsum: bool = False) -> Metric:
    """ROUGE of every row with an answer; the corpus figure is the mean F over rows, times 100.

    ROUGE-Lsum is left out where no text has a second line, for it is then ROUGE-L, unless `always_lsum` says so. Of several
    references the one with the highest F counts, for each figure on its own, as in `rouge_score`.
    """
    split = rouge_tokenizer(tokenizer, stems=stems)
    words = "words, or characters if unspaced" if tokenizer == "unicode" else "[a-z0-9]+"
    told = f"mean F over rows x 100|{words}|{'Porter stems' if stems else 'no stemming'}|rouge_score 0.1.2"

    def measure(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
        scores = [None if row.answer is None else _best(row.answer, row.references, split) for row in outcomes]
        has_lines = always_lsum or any("\n" in text for row in outcomes for text in (row.answer or "", *row.references))
        return {
            name: mean_statistics(
                [None if score is None else score[place] for score in scores],
                signature=f"{name}|{told}{' on ASCII' if tokenizer == 'unicode' else ''}",
            )
            for place, name in enumerate(Rouge._fields if has_lines else Rouge._fields[:-1])
        }

    return measure


rouge_statistics = rouge_metric()
"""`rouge_metric` as it is by default."""


def _best(answer: str, references: Sequence[str], tokenise: Tokenise) -> list[float]:
    """For each figure the highest F among the references."""
    found = [rouge(answer, reference=reference, tokenise=tokenise) for reference in references]
    return [max(one[place].f for one in found) for place in range(len(Rouge._fields))]


def _of_sentences(answer: str, *, reference: str, tokenise: Tokenise) -> Overlap:
    """ROUGE-Lsum: tokens of the union of each reference sentence's subsequences, none counted more often than it occurs."""
    found, wanted = ([tokenise(line) for line in text.split("\n") if line] for text in (answer, reference))
    num_found, num_wanted = sum(map(len, found)), sum(map(len, wanted))
    left = Counter(chain.from_iterable(found))
    num_shared = 0
    for sentence in wanted:
        masks, length = _masks(sentence), len(sentence)
        union: set[int] = set().union(*(_places(masks, length, other) for other in found))
        for place in union:
            token = sentence[place]
            if left[token] > 0:
                left[token] -= 1
                num_shared += 1
    return _overlap(num_shared, num_found=num_found, num_wanted=num_wanted)


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
        return _NOTHING
    precision, recall = num_shared / num_found, num_shared / num_wanted
    return Overlap(precision, recall, 2 * precision * recall / (precision + recall))

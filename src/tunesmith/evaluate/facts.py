"""Whether an answer states the facts it must: the key phrases in a row's `states` tag.

A phrase counts where it stands as whole words: "3 days" is not in "13 days", nor "20" in "20.50". Case, white space and
typographic apostrophes and dashes do not matter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from tunesmith.evaluate.metric import Outcome, Statistics, mean_statistics
from tunesmith.evaluate.scripts import is_unspaced, is_word

__all__ = ["facts_statistics", "key_phrases", "states"]

_TAG = "states"
_SEPARATOR = " + "
_PLAIN = str.maketrans(dict.fromkeys("‘’‛ʼ´`＇", "'") | dict.fromkeys("‐‑‒–—−", "-"))


def key_phrases(tag: str) -> list[str]:
    """The phrases of a `states` tag, which are separated by " + "."""
    return [phrase.strip() for phrase in tag.split(_SEPARATOR) if phrase.strip()]


def states(answer: str, *, phrases: Sequence[str]) -> bool:
    """Whether an answer contains every phrase.

    >>> states("You don’t need it within 13 days.", phrases=["don't"])
    True
    >>> states("You don’t need it within 13 days.", phrases=["don't", "3 days"])
    False
    """
    text = _plain(answer)
    return all(_contains(text, _plain(phrase)) for phrase in phrases)


def facts_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """Share of answers, in percent, that state all their key phrases; rows without the tag are not counted."""
    hits: list[float | None] = []
    for row in outcomes:
        phrases = key_phrases(row.record.tags.get(_TAG, ""))
        hits.append(float(states(row.answer, phrases=phrases)) if phrases and row.answer is not None else None)
    if all(hit is None for hit in hits):
        return {}
    return {
        "facts": mean_statistics(hits, signature="facts|% of rows whose answer states every key phrase|whole words|case folded")
    }


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text.translate(_PLAIN)).casefold().split())


def _contains(text: str, phrase: str) -> bool:
    start = text.find(phrase)
    while start >= 0:
        end = start + len(phrase)
        if _parted(text[:start][::-1], phrase) and _parted(text[end:], phrase[::-1]):
            return True
        start = text.find(phrase, start + 1)
    return False


def _parted(beyond: str, phrase: str) -> bool:
    """Whether a border of words lies between a phrase's first character and what is beyond it, read outwards."""
    if not beyond:
        return True
    edge, next_one = phrase[0], beyond[0]
    if edge.isdigit() and next_one in ".,:" and beyond[1:2].isdigit():
        return False  # part of a longer number, price or time
    if is_unspaced(edge) or is_unspaced(next_one):
        return True
    return not (is_word(edge) and is_word(next_one))

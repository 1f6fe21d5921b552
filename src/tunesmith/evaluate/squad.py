"""Exact match and token F1 of short answers, as SQuAD's own script counts them.

Texts are compared in lower case, without punctuation, without the words a, an and the, and without surplus blanks.

Reference: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from tunesmith.evaluate.metric import Outcome, Statistics, mean_statistics

__all__ = ["exact_match", "normalise_answer", "squad_statistics", "token_f1"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """A text as SQuAD compares it.

    >>> normalise_answer("The  Cat,")
    'cat'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, *, references: Sequence[str]) -> bool:
    """Whether an answer equals one of its references once both are normalised."""
    said = normalise_answer(answer)
    return any(said == normalise_answer(reference) for reference in references)


def token_f1(answer: str, *, references: Sequence[str]) -> float:
    """The highest F1 of words in common among the references, from 0 to 1; two texts without a word are equal (SQuAD 2.0)."""
    return max(_f1(normalise_answer(answer).split(), normalise_answer(reference).split()) for reference in references)


def squad_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """Both figures, in percent of the rows with an answer."""
    hits = [None if row.answer is None else float(exact_match(row.answer, references=row.references)) for row in outcomes]
    scores = [None if row.answer is None else token_f1(row.answer, references=row.references) for row in outcomes]
    if all(hit is None for hit in hits):
        return {}
    rule = "SQuAD normalisation|best of the references|mean over rows x 100"
    return {
        "exact_match": mean_statistics(hits, signature=f"exact_match|{rule}"),
        "f1": mean_statistics(scores, signature=f"f1|words in common|{rule}"),
    }


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted))

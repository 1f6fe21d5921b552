"""Texts by nearness to a question, without a model: the cosine of TF-IDF vectors.

Terms are words, or characters where a script has no spaces; term frequencies are logarithmic.

Reference: Salton and Buckley, "Term-weighting approaches in automatic text retrieval", Information Processing & Management 24, 1988.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from tunesmith.evaluate.metric import Floats
from tunesmith.evaluate.rouge import tokenise

__all__ = ["FactSheet", "TermIndex"]


class TermIndex:
    """Texts ready to be searched."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.spelled = [tuple(tokenise(text)) for text in texts]
        """The terms of each text."""
        counts = Counter(term for terms in self.spelled for term in set(terms))
        self._rarity = {term: math.log((1 + len(texts)) / (1 + count)) + 1 for term, count in counts.items()}
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, terms in enumerate(self.spelled):
            for term, weight in self._vector(terms).items():
                self._postings[term].append((place, weight))

    def likeness(self, terms: Sequence[str]) -> Floats:
        """Cosine of a question's terms with every text, from 0 to 1, shape (T,)."""
        scores = np.zeros(len(self.spelled))
        for term, weight in self._vector(terms).items():
            for place, other in self._postings[term]:
                scores[place] += weight * other
        return scores

    def ranking(self, terms: Sequence[str]) -> list[int]:
        """Places of all texts, the nearest first; of equally near ones the earlier."""
        places: list[int] = np.argsort(-self.likeness(terms), kind="stable").tolist()
        return places

    def _vector(self, terms: Sequence[str]) -> dict[str, float]:
        """Terms that no text has are left out; the rest has length 1."""
        counts = Counter(term for term in terms if term in self._rarity)
        weights = {term: (1 + math.log(count)) * self._rarity[term] for term, count in sorted(counts.items())}
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        return {term: weight / length for term, weight in weights.items()}


class FactSheet:
    """A fact sheet to be shown to a model: whole, or the lines nearest to the question where the context is too short for it."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._lines = [line.strip() for line in text.splitlines() if tokenise(line)]
        self._index = TermIndex(self._lines)

    def shown(self, question: str, *, number: int | None = None) -> str:
        """The sheet, or so many of its lines in the order in which they stand there."""
        if number is None:
            return self._text
        return "\n".join(self._lines[place] for place in sorted(self._index.ranking(tokenise(question))[:number]))

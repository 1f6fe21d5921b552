"""Corpus chrF: character n-grams in common, whatever the script and however words are parted. Equal to sacreBLEU's.

Reference: Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith.evaluate.metric import Floats, Outcome, Statistics

__all__ = ["chrf_statistics", "corpus_chrf"]

_ORDER = 6
_BETA = 2
_WIDTH = 3 * _ORDER  # n-grams of the answer, of the reference, and in common, order by order


def chrf_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """ChrF of the rows with an answer; of several references the one with the highest chrF counts."""
    from sacrebleu import __version__ as sacrebleu_version

    counted = [row.answer is not None for row in outcomes]
    if not any(counted):
        return {}
    rows = np.zeros((len(outcomes), _WIDTH + 1))
    for place, row in enumerate(outcomes):
        if row.answer is not None:
            answer = _ngrams(row.answer)
            found = np.array([_matches(answer, _ngrams(reference)) for reference in row.references], float)
            rows[place, :_WIDTH] = found[int(corpus_chrf(found).argmax())]
            rows[place, _WIDTH] = 1
    return {
        "chrf": Statistics(
            rows=rows,
            counted=np.array(counted, dtype=np.bool_),
            figure=corpus_chrf,
            denominator=_WIDTH,
            signature=f"chrF2|case:mixed|eff:yes|nc:{_ORDER}|nw:0|space:no|as in sacreBLEU {sacrebleu_version}",
        )
    }


def corpus_chrf(sums: Floats) -> Floats:
    """ChrF from summed statistics, shape (..., 18 or more) to (...): the mean precision and recall of the orders that both have."""
    answers, references, shared = (sums[..., start:_WIDTH:3] for start in range(3))
    usable = (answers > 0) & (references > 0)
    num_orders = np.maximum(usable.sum(axis=-1), 1)
    precision, recall = (
        np.where(usable, shared / np.maximum(total, 1), 0.0).sum(axis=-1) / num_orders for total in (answers, references)
    )
    weight = _BETA**2
    below = weight * precision + recall
    chrf: Floats = np.where(below > 0, 100 * (1 + weight) * precision * recall / np.where(below > 0, below, 1), 0.0)
    return chrf


def _ngrams(text: str) -> list[dict[str, int]]:
    """How often each n-gram of each order stands in a text without its white space."""
    letters = "".join(text.split())
    orders = []
    for order in range(1, _ORDER + 1):
        counts: dict[str, int] = {}
        for start in range(len(letters) - order + 1):
            gram = letters[start : start + order]
            counts[gram] = counts.get(gram, 0) + 1
        orders.append(counts)
    return orders


def _matches(answer: Sequence[Mapping[str, int]], reference: Sequence[Mapping[str, int]]) -> list[int]:
    found = []
    for said, wanted in zip(answer, reference, strict=True):
        shared = sum(min(count, wanted.get(gram, 0)) for gram, count in said.items())
        # An order that the reference is too short for counts on neither side.
        found += [sum(said.values()) if wanted else 0, sum(wanted.values()), shared]
    return found

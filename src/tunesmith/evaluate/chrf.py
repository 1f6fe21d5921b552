"""Corpus chrF: character n-grams in common, whatever the script and however words are parted. Equal to sacreBLEU's.

Reference: Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.metric import Floats, Outcome, Statistics

__all__ = ["chrf_statistics", "corpus_chrf"]

_ORDER = 6
_BETA = 2
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
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


class _Counted(NamedTuple):
    """The different n-grams of one order, by their hashes, sorted; and how often each stands in the text."""

    grams: NDArray[np.uint64]
    counts: NDArray[np.int64]


def _ngrams(text: str) -> list[_Counted]:
    """The n-grams of each order in a text without its white space."""
    codes = np.frombuffer("".join(text.split()).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    hashes, orders = codes, []
    for order in range(1, _ORDER + 1):
        if order > 1:
            # Two different grams of one text have equal hashes of 64 bits once in some 10^13 texts.
            hashes = hashes[:-1] * _FACTOR + codes[order - 1 :] if len(hashes) > 1 else hashes[:0]
        orders.append(_Counted(*np.unique(hashes, return_counts=True)))
    return orders


def _matches(answer: Sequence[_Counted], reference: Sequence[_Counted]) -> list[int]:
    found: list[int] = []
    for said, wanted in zip(answer, reference, strict=True):
        if not len(wanted.grams):  # an order that the reference is too short for counts on neither side
            found += [0, 0, 0]
            continue
        places = np.minimum(np.searchsorted(wanted.grams, said.grams), len(wanted.grams) - 1)
        both = wanted.grams[places] == said.grams
        shared = np.minimum(said.counts[both], wanted.counts[places[both]]).sum()
        found += [int(said.counts.sum()), int(wanted.counts.sum()), int(shared)]
    return found

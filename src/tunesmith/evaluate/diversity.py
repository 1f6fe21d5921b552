"""How varied answers are, how much they repeat themselves, and how long they are beside their references.

Distinct-n (Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", NAACL 2016) is taken within each
answer and averaged, so that it does not fall merely because there are more rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from tunesmith.evaluate.metric import Floats, Outcome, Statistics, mean_statistics
from tunesmith.evaluate.rouge import tokenise

__all__ = ["diversity_statistics", "repeated_share"]

_REPEATED = 4


def diversity_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """Distinct-1 and distinct-2, the share of repeated 4-grams, and the ratio of lengths, times 100."""
    words = [None if row.answer is None else tokenise(row.answer) for row in outcomes]
    if all(row is None for row in words):
        return {}
    singles = [len(set(row)) / len(row) if row else None for row in words]
    pairs = [len(set(pairwise(row))) / (len(row) - 1) if row and len(row) > 1 else None for row in words]
    repeated = [repeated_share(row) if row is not None else None for row in words]
    lengths = np.array(
        [
            [0, 0] if said is None else [len(said), len(tokenise(row.reference))]
            for said, row in zip(words, outcomes, strict=True)
        ],
        float,
    )
    found = {
        "distinct1": mean_statistics(
            singles, signature="distinct1|different words over words of each answer|mean over rows x 100"
        ),
        "distinct2": mean_statistics(
            pairs, signature="distinct2|different word pairs over pairs of each answer|mean over rows x 100"
        ),
        "repetition": mean_statistics(
            repeated, signature="repetition|4-grams of each answer that stood in it before|mean over rows x 100"
        ),
    }
    found["length_ratio"] = Statistics(
        rows=lengths,
        counted=np.array([row is not None for row in words], dtype=np.bool_) & (lengths[:, 1] > 0),
        figure=_length_ratio,
        denominator=1,
        signature="length_ratio|words of answers over words of references x 100",
    )
    return {name: statistics for name, statistics in found.items() if statistics.counted.any()}


def repeated_share(words: Sequence[str]) -> float:
    """The share of a text's 4-grams that stood in it before, from 0 to 1; 0 for a text with fewer than four words."""
    grams = list(zip(*(words[start:] for start in range(_REPEATED)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _length_ratio(sums: Floats) -> Floats:
    ratio: Floats = 100 * sums[..., 0] / sums[..., 1]
    return ratio

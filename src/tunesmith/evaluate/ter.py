"""Corpus TER, the edits that turn an answer into its reference, counted by sacreBLEU. Lower is better.

Reference: Snover et al., "A Study of Translation Edit Rate with Targeted Human Annotation", AMTA 2006.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith.evaluate.bleu import choose_tokenizer
from tunesmith.evaluate.metric import Floats, Outcome, Statistics

__all__ = ["ter_statistics"]

_EDITS, _WORDS, _COUNTED = range(3)


def ter_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """TER of the rows with an answer: edits over words of the references, times 100; it may pass 100."""
    from sacrebleu.metrics import TER

    answered = [row for row in outcomes if row.answer is not None]
    if not answered:
        return {}
    is_asian = choose_tokenizer([reference for row in answered for reference in row.references]) != "13a"
    ter = TER(normalized=is_asian, asian_support=is_asian)
    rows = np.zeros((len(outcomes), 3))
    for place, row in enumerate(outcomes):
        if row.answer is not None:
            score = ter.corpus_score([row.answer], [[reference] for reference in row.references])
            rows[place] = [score.num_edits, score.ref_length, 1]
    return {
        "ter": Statistics(
            rows=rows,
            counted=np.array([row.answer is not None for row in outcomes], dtype=np.bool_),
            figure=_ter,
            denominator=_COUNTED,
            signature=f"TER|{ter.get_signature()}",
        )
    }


def _ter(sums: Floats) -> Floats:
    edits, words = sums[..., _EDITS], sums[..., _WORDS]
    # Without a word in the references any edit is one too many, as sacreBLEU has it.
    ter: Floats = np.where(words > 0, 100 * edits / np.where(words > 0, words, 1), np.where(edits > 0, 100.0, 0.0))
    return ter

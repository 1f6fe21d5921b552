"""Corpus BLEU, counted by sacreBLEU and stated with its signature.

Reference: Post, "A Call for Clarity in Reporting BLEU Scores", 2018.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

import numpy as np

from tunesmith.evaluate.metric import Floats, Outcome, Statistics
from tunesmith.evaluate.scripts import is_han, is_unspaced, is_word

__all__ = ["bleu_statistics", "choose_tokenizer", "corpus_bleu"]

_ORDER = 4
_SYSTEM, _REFERENCE = 0, 1  # columns of lengths; then four of matches and four of n-grams, and one that counts rows
_COUNTED = 2 + 2 * _ORDER


def choose_tokenizer(references: Sequence[str]) -> str:
    """The sacreBLEU tokenizer that suits the references: `13a`, or `zh` or `char` where most letters are unspaced.

    `13a` takes an unspaced sentence for one word, so that identical Chinese texts score 0. `char` serves Japanese as well
    as Thai: sacreBLEU's own Japanese tokenizer needs a dictionary that is not installed.
    """
    if all(map(str.isascii, references)):
        return "13a"
    letters = {letter: count for letter, count in Counter(chain.from_iterable(references)).items() if is_word(letter)}
    unspaced = {letter: count for letter, count in letters.items() if is_unspaced(letter)}
    num_unspaced = sum(unspaced.values())
    if 2 * num_unspaced <= sum(letters.values()):
        return "13a"
    # Japanese mixes kana with ideographs; a stray kana in Chinese does not make it Japanese.
    return "zh" if sum(count for letter, count in unspaced.items() if is_han(letter)) > 0.95 * num_unspaced else "char"


def bleu_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """BLEU of the rows with an answer; each row gives its lengths, matches and n-gram counts.

    How texts are split and which orders count hang on the references alone, so that arms can be compared: of several references the
    length that counts is that of the one nearest to the answer, so lengths differ between arms.
    """
    from sacrebleu.metrics import BLEU

    answered = [row for row in outcomes if row.answer is not None]
    if not answered:
        return {}
    bleu = BLEU(tokenize=choose_tokenizer([reference for row in answered for reference in row.references]))
    rows = np.zeros((len(outcomes), _COUNTED + 1))
    for place, row in enumerate(outcomes):
        if row.answer is not None:
            score = bleu.corpus_score([row.answer], [[reference] for reference in row.references])
            rows[place] = [score.sys_len, score.ref_len, *score.counts, *score.totals, 1]
    # Where each row has a reference of fewer than four words, right answers may have no four either, and plain BLEU is 0 for them.
    is_short = all(
        any(bleu.corpus_score([reference], [[reference]]).sys_len < _ORDER for reference in row.references) for row in answered
    )
    return {
        "bleu": Statistics(
            rows=rows,
            counted=np.array([row.answer is not None for row in outcomes], dtype=np.bool_),
            figure=partial(corpus_bleu, effective_order=is_short),
            denominator=_COUNTED,
            signature=f"BLEU|{bleu.get_signature()}".replace("eff:no", "eff:yes" if is_short else "eff:no"),
        )
    }


def corpus_bleu(sums: Floats, *, effective_order: bool = False) -> Floats:
    """BLEU from summed statistics, shape (..., 10 or more) to (...), with sacreBLEU's default smoothing (`exp`).

    Each order without a match counts as 1 / (2^k x its n-grams), k = 1, 2, ... over such orders (NIST mteval-v13a).

    Args:
        sums: lengths of answers and references, matches and n-grams of each order.
        effective_order: whether orders of which the answers have no n-gram at all are left out of the mean.
    """
    matches, totals = sums[..., 2 : 2 + _ORDER], sums[..., 2 + _ORDER : _COUNTED]
    halvings = np.cumsum(matches == 0, axis=-1)
    smoothed = np.where(matches == 0, 0.5**halvings, matches)
    logs = np.log(smoothed / np.maximum(totals, 1))
    num_orders = np.maximum((totals > 0).sum(axis=-1), 1)
    log_precision = np.where(totals > 0, logs, 0.0).sum(axis=-1) / num_orders if effective_order else logs.mean(axis=-1)
    log_brevity = np.minimum(0.0, 1 - sums[..., _REFERENCE] / np.maximum(sums[..., _SYSTEM], 1))
    measurable = (effective_order | (totals > 0).all(axis=-1)) & (matches > 0).any(axis=-1)
    bleu: Floats = np.where(measurable, 100 * np.exp(log_precision + log_brevity), 0.0)
    return bleu

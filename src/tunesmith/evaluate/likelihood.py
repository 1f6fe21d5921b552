"""Perplexity and bits per byte, token-weighted over the whole corpus.

Perplexity compares models with one tokenizer; bits per byte compares across tokenizers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith.errors import DataError
from tunesmith.evaluate.arms import Likelihood
from tunesmith.evaluate.metric import Floats, Outcome, Statistics

__all__ = ["bits_per_byte", "likelihood_statistics", "perplexity"]


def perplexity(likelihoods: Sequence[Likelihood]) -> float:
    """exp(sum of nll / sum of tokens); infinite where a row is impossible.

    Raises:
        DataError: there is no supervised token.

    >>> round(perplexity([Likelihood(nll=3.0, num_tokens=1, num_bytes=4), Likelihood(nll=3.0, num_tokens=5, num_bytes=9)]), 4)
    2.7183
    """
    return float(_perplexity(_columns(likelihoods, _tokens(likelihoods)).sum(axis=0)))


def bits_per_byte(likelihoods: Sequence[Likelihood]) -> float:
    """Sum of nll / (ln 2 x sum of bytes); infinite where a row is impossible.

    Raises:
        DataError: there is no supervised byte.
    """
    return float(_bits_per_byte(_columns(likelihoods, _bytes(likelihoods)).sum(axis=0)))


def likelihood_statistics(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
    """Both figures; rows without supervised tokens are not counted.

    Raises:
        DataError: no row has a supervised token.
    """
    rows = [row.likelihood or Likelihood(0.0, 0, 0) for row in outcomes]
    return {
        "perplexity": Statistics(
            rows=_columns(rows, _tokens(rows)),
            counted=np.array([row.num_tokens > 0 for row in rows], dtype=np.bool_),
            figure=_perplexity,
            denominator=1,
            signature="perplexity|exp(sum nll / sum tokens)|supervised tokens|natural log",
        ),
        "bits_per_byte": Statistics(
            rows=_columns(rows, _bytes(rows)),
            counted=np.array([row.num_bytes > 0 for row in rows], dtype=np.bool_),
            figure=_bits_per_byte,
            denominator=1,
            signature="bits_per_byte|sum nll / (ln 2 x sum bytes)|UTF-8 bytes of supervised text",
        ),
    }


def _tokens(likelihoods: Sequence[Likelihood]) -> list[int]:
    return [row.num_tokens for row in likelihoods]


def _bytes(likelihoods: Sequence[Likelihood]) -> list[int]:
    return [row.num_bytes for row in likelihoods]


def _columns(likelihoods: Sequence[Likelihood], units: Sequence[int]) -> Floats:
    """Shape (R, 3): finite nll, units, and 1 where the nll is not finite; zeros where there is no unit.

    Infinity has its own column because a resample that leaves the row out would otherwise compute 0 x inf.
    """
    if not sum(units):
        raise DataError(
            f"Nothing to score: 0 supervised tokens or bytes in {len(units)} rows. "
            "Check that test rows have an assistant turn, and that the maximum length leaves room for the answer."
        )
    rows = np.zeros((len(units), 3))
    for place, (row, count) in enumerate(zip(likelihoods, units, strict=True)):
        if count > 0:
            finite = math.isfinite(row.nll)
            rows[place] = (row.nll if finite else 0.0, count, not finite)
    return rows


def _perplexity(sums: Floats) -> Floats:
    with np.errstate(over="ignore"):  # beyond 709 nats per token the honest figure is infinite
        figure: Floats = np.where(sums[..., 2] > 0, np.inf, np.exp(sums[..., 0] / sums[..., 1]))
    return figure


def _bits_per_byte(sums: Floats) -> Floats:
    figure: Floats = np.where(sums[..., 2] > 0, np.inf, sums[..., 0] / (math.log(2) * sums[..., 1]))
    return figure

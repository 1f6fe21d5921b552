import math

import numpy as np
import pytest

from tunesmith.errors import DataError
from tunesmith.evaluate.arms import Likelihood
from tunesmith.evaluate.likelihood import bits_per_byte, likelihood_statistics, perplexity
from tunesmith.evaluate.metric import Outcome
from tunesmith.records import Record, Source

RECORD = Record(id="a", source=Source(path="x", line=1))


def test_perplexity_weighs_tokens_not_rows() -> None:
    # A uniform model over 8 tokens has perplexity 8 whatever the lengths; the second corpus mixes 2 and 8 geometrically.
    assert perplexity([Likelihood(3 * math.log(8), 3, 9), Likelihood(11 * math.log(8), 11, 40)]) == pytest.approx(8.0)
    mixed = [Likelihood(1 * math.log(2), 1, 1), Likelihood(9 * math.log(8), 9, 9)]
    assert perplexity(mixed) == pytest.approx(2**0.1 * 8**0.9)


def test_bits_per_byte_does_not_depend_on_the_number_of_tokens() -> None:
    # 256 equally likely bytes are 8 bits each, however they are cut into tokens.
    nll = 10 * math.log(256)
    assert bits_per_byte([Likelihood(nll, 10, 10)]) == pytest.approx(8.0)
    assert bits_per_byte([Likelihood(nll, 4, 10)]) == pytest.approx(8.0)


@pytest.mark.parametrize("nll", [math.inf, math.nan])
def test_an_impossible_row_makes_the_figures_infinite(nll: float) -> None:
    rows = [Likelihood(1.0, 1, 1), Likelihood(nll, 1, 1)]
    assert perplexity(rows) == math.inf
    assert bits_per_byte(rows) == math.inf


def test_an_overflowing_perplexity_is_infinite_without_a_warning() -> None:
    assert perplexity([Likelihood(1e6, 1, 1)]) == math.inf
    assert bits_per_byte([Likelihood(1e6, 1, 1)]) == pytest.approx(1e6 / math.log(2))


@pytest.mark.parametrize("rows", [[], [Likelihood(0.0, 0, 0)]])
def test_nothing_supervised_is_refused(rows: list[Likelihood]) -> None:
    for measure in (perplexity, bits_per_byte):
        with pytest.raises(DataError, match="0 supervised"):
            measure(rows)


def test_rows_with_nothing_supervised_are_not_counted() -> None:
    rows = [Outcome(RECORD, likelihood=likelihood) for likelihood in (Likelihood(math.log(8), 1, 3), Likelihood(5.0, 0, 0))]
    statistics = likelihood_statistics(rows)["perplexity"]
    assert statistics.counted.tolist() == [True, False]
    assert statistics.figure(statistics.rows.sum(axis=0)) == pytest.approx(8.0)


def test_a_resample_without_the_impossible_row_is_finite() -> None:
    rows = [Outcome(RECORD, likelihood=likelihood) for likelihood in (Likelihood(math.log(8), 1, 3), Likelihood(math.inf, 1, 1))]
    statistics = likelihood_statistics(rows)["perplexity"]
    figures = statistics.figure(np.array([[2, 0], [1, 1]]) @ statistics.rows)
    assert figures == pytest.approx([8.0, math.inf])

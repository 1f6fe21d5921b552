"""Tokens, seconds and money of a request, and when training has paid for itself: figures by hand."""

import pytest

from tunesmith.evaluate import Usage
from tunesmith.evaluate.costs import Meter, Price, break_even


def test_a_request_costs_its_tokens_at_their_prices() -> None:
    meter = Meter(prices={"other": Price(10, 40)}, price=Price(1, 2), training_price=5)
    meter.note("other", usages=[Usage(100, 10, 0.5), Usage(300, 30, 0.1), Usage(200, 20, 0.3)], num_rows=3, seconds=9)
    meter.note("tuned", usages=[Usage(50, 20)] * 2, num_rows=2, seconds=1.0)
    found = meter.table(subject="tuned")
    # 200 prompt tokens at 10 a million and 20 answer tokens at 40; 50 at 1 and 20 at 2.
    assert found["other"]["cost"] == pytest.approx(0.0028)
    assert found["tuned"]["cost"] == pytest.approx(0.00009)
    assert (found["other"]["prompt_tokens"], found["other"]["answer_tokens"], found["other"]["num_requests"]) == (200, 20, 3)
    assert found["other"]["seconds"] == 0.3  # the median of its own
    assert found["tuned"]["seconds"] == 0.5  # a row's share of its batch
    assert found["other"]["break_even_in"] == "price"
    assert found["other"]["break_even_requests"] == 1846  # 5 / 0.00271 = 1845.02
    assert "break_even_requests" not in found["tuned"]


def test_without_prices_the_seconds_are_counted() -> None:
    meter = Meter(training_s=60)
    meter.note("base+few_shot", usages=[Usage(100, 10)] * 4, num_rows=4, seconds=2.0)
    meter.note("base", usages=[Usage(9, 9)] * 4, num_rows=4, seconds=0.4)
    meter.note("tuned", usages=[Usage(9, 9)] * 4, num_rows=4, seconds=0.8)
    found = meter.table(subject="tuned")
    assert (found["base+few_shot"]["break_even_requests"], found["base+few_shot"]["break_even_in"]) == (200, "seconds")
    assert found["base"]["break_even_requests"] is None  # it is quicker: the training never pays off
    assert found["base"]["cost"] is None


def test_what_is_not_known_is_not_made_up() -> None:
    meter = Meter(price=Price(1, 1))
    meter.note("other", usages=[Usage(None, None, 0.2), Usage(5, 5, 0.4)], num_rows=2, seconds=1)
    meter.note("silent", usages=[], num_rows=4, seconds=2)
    found = meter.table(subject="tuned")
    assert found["other"]["prompt_tokens"] is found["other"]["cost"] is None
    assert found["other"]["seconds"] == pytest.approx(0.3)
    assert (found["silent"]["seconds"], found["silent"]["prompt_tokens"]) == (0.5, None)
    assert all("break_even_requests" not in row for row in found.values())


@pytest.mark.parametrize(("once", "saved", "number"), [(10, 0.5, 20), (10, 3, 4), (0, 1, 0), (10, 0, None), (10, -1, None)])
def test_break_even_is_the_first_request_after_which_nothing_is_owed(once: float, saved: float, number: int | None) -> None:
    assert break_even(once, saved=saved) == number

"""What a request costs with each arm: tokens, seconds, money; and after how many requests the training has paid for itself.

Seconds are measured while the test rows are answered. A model of ours answers many rows at once, so its seconds are a row's share of
its batch, which is less than one person alone would wait; an endpoint's are those of each request. Compare like with like.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

from tunesmith.evaluate.arms import Usage

__all__ = ["Meter", "Price", "break_even"]

_MILLION = 1e6


class Price(NamedTuple):
    """Of a million tokens; None where it is not known."""

    prompt: float | None = None
    answer: float | None = None


class Meter:
    """Collects what answers took.

    Args:
        prices: of each arm; one that is not named has `price`.
        price: of the others.
        training_s: seconds that the training took.
        training_price: what the training cost, in the prices' currency.
    """

    def __init__(
        self,
        *,
        prices: Mapping[str, Price] | None = None,
        price: Price | None = None,
        training_s: float | None = None,
        training_price: float | None = None,
    ) -> None:
        self._prices = prices or {}
        self._price = price or Price()
        self._training_s = training_s
        self._training_price = training_price
        self._usages: dict[str, list[Usage]] = defaultdict(list)

    def note(self, arm: str, *, usages: Sequence[Usage], num_rows: int, seconds: float) -> None:
        """Add some answers of an arm.

        Args:
            arm: its name.
            usages: one for each answer, as far as the arm tells.
            num_rows: answers.
            seconds: that they took together.
        """
        known = list(usages) if len(usages) == num_rows else [Usage()] * num_rows
        share = seconds / max(num_rows, 1)
        self._usages[arm] += [one if one.seconds is not None else one._replace(seconds=share) for one in known]

    def table(self, *, subject: str) -> dict[str, dict[str, Any]]:
        """For each arm tokens, seconds and price of one request, and after how many the subject's training has paid off against it.

        `break_even_in` says in what it was counted: in money where the training has a price and both arms have one, else in seconds.
        """
        found = {arm: self._row(arm, usages) for arm, usages in self._usages.items()}
        ours = found.get(subject)
        if ours is None:
            return found
        return {arm: row if arm == subject else row | self._paid_back(row, ours) for arm, row in found.items()}

    def _row(self, arm: str, usages: Sequence[Usage]) -> dict[str, Any]:
        prompts = [one.prompt_tokens for one in usages if one.prompt_tokens is not None]
        answers = [one.answer_tokens for one in usages if one.answer_tokens is not None]
        seconds = [one.seconds for one in usages if one.seconds is not None]
        is_counted = len(prompts) == len(answers) == len(usages) > 0
        price = self._prices.get(arm, self._price)
        cost = None
        if is_counted and price.prompt is not None and price.answer is not None:
            cost = (fmean(prompts) * price.prompt + fmean(answers) * price.answer) / _MILLION
        return {
            "num_requests": len(usages),
            "prompt_tokens": round(fmean(prompts), 2) if is_counted else None,
            "answer_tokens": round(fmean(answers), 2) if is_counted else None,
            "seconds": round(median(seconds), 9) if seconds else None,
            "cost": cost,
        }

    def _paid_back(self, row: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
        if self._training_price is not None and row["cost"] is not None and ours["cost"] is not None:
            number = break_even(self._training_price, saved=row["cost"] - ours["cost"])
            return {"break_even_requests": number, "break_even_in": "price"}
        if self._training_s is not None and row["seconds"] is not None and ours["seconds"] is not None:
            number = break_even(self._training_s, saved=row["seconds"] - ours["seconds"])
            return {"break_even_requests": number, "break_even_in": "seconds"}
        return {}


def break_even(once: float, *, saved: float) -> int | None:
    """Requests after which something paid once has paid for itself; None: it never does.

    Args:
        once: what was paid, in any unit.
        saved: by each request, in the same unit.

    >>> break_even(10, saved=0.3), break_even(10, saved=-1)
    (34, None)
    """
    return math.ceil(once / saved) if saved > 0 else None

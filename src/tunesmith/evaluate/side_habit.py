"""Whether people choose the left answer of a pair more often than the right one.

Sides are drawn for each person and pair, so whatever the answers are worth, somebody without a habit chooses the left one half of the time,
and a share that differs is a habit. It favours no arm, because each stands left as often as right, but it draws win rates towards a half.

Reference: Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial", Biometrika 26, 1934.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.records import Score

__all__ = ["SideHabit", "measure_sides"]

_EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True, kw_only=True)
class SideHabit:
    """How often one person chose the left answer."""

    by: str
    """Who; `everybody` where several are taken together."""
    num_left: int
    num_decided: int
    """Pairs of which a side was chosen."""
    share: Score
    """Share of the left, 0 to 1, with an exact interval; those of single persons hold all together 95 times in 100 (Bonferroni)."""

    @property
    def is_clear(self) -> bool:
        """Whether a half lies outside the interval."""
        return not (self.share.low or 0.0) <= 0.5 <= (1.0 if self.share.high is None else self.share.high)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        share = {"value": self.share.value, "low": self.share.low, "high": self.share.high}
        return {
            "by": self.by,
            "num_left": self.num_left,
            "num_decided": self.num_decided,
            "share": share,
            "is_clear": self.is_clear,
        }


def measure_sides(chosen: Sequence[tuple[str, bool]]) -> tuple[SideHabit, ...]:
    """Everybody together first, where several decided, then each person.

    Each side is drawn by itself, so the choices of one without a habit are independent even where pairs are of one cluster.

    Args:
        chosen: for each pair on which a side was chosen, who did, and whether it was the left one.
    """
    people = sorted({by for by, _ in chosen})
    found = [_habit(by, [is_left for who, is_left in chosen if who == by], num_people=len(people)) for by in people]
    return (_habit(_EVERYBODY, [is_left for _, is_left in chosen], num_people=1), *found) if len(people) > 1 else tuple(found)


def _habit(by: str, lefts: Sequence[bool], *, num_people: int) -> SideHabit:
    from scipy.special import betaincinv

    left, number, tail = sum(lefts), len(lefts), 0.025 / num_people
    low = float(betaincinv(left, number - left + 1, tail)) if left else 0.0
    high = float(betaincinv(left + 1, number - left, 1 - tail)) if left < number else 1.0
    return SideHabit(by=by, num_left=left, num_decided=number, share=Score(value=left / number, low=low, high=high))

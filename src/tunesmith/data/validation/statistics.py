"""Lengths and counts of conversations, by role. Lengths are counted, not kept, so memory grows only with how many differ."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import Any

__all__ = ["Lengths", "Statistics"]

_PERCENTS = (5, 10, 50, 90, 95)


class Lengths:
    """How often each length was met."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def as_json(self) -> dict[str, float] | None:
        """Number, least, most, mean, and percentiles by linear interpolation (`numpy.quantile`'s own rule); None for no lengths."""
        number = self.counts.total()
        if not number:
            return None
        lengths = sorted(self.counts)
        total = sum(length * count for length, count in self.counts.items())
        found: dict[str, float] = {"count": number, "min": lengths[0], "max": lengths[-1], "total": total, "mean": total / number}
        return found | {
            ("median" if q == 50 else f"p{q}"): value for q, value in zip(_PERCENTS, self._percentiles(), strict=True)
        }

    def _percentiles(self) -> list[float]:
        lengths = sorted(self.counts)
        ends: list[int] = []  # of the sorted list of all lengths, the place after the last of each
        for length in lengths:
            ends.append((ends[-1] if ends else 0) + self.counts[length])
        found = []
        for percent in _PERCENTS:
            place = (ends[-1] - 1) * percent / 100
            low = _at(lengths, ends, int(place))
            high = _at(lengths, ends, min(int(place) + 1, ends[-1] - 1))
            found.append(low + (high - low) * (place - int(place)))
        return found


class Statistics:
    """What `add` has seen of the conversations and texts of all files."""

    def __init__(self) -> None:
        self.num_conversations = 0
        self.num_missing_system = 0
        self.num_missing_user = 0
        self.messages_per_row = Lengths()
        self.characters_per_row = Lengths()
        self.answer_characters_per_row = Lengths()
        self.tokens_per_row = Lengths()
        self.learned_tokens_per_row = Lengths()
        self.characters_by_role: dict[str, Lengths] = {}

    def add(self, turns: Iterable[tuple[str, str]], *, is_conversation: bool) -> None:
        """Count one row: role and text of each message, or one text under the role `text`."""
        roles = set()
        number = total = answered = 0
        for role, text in turns:
            length = len(text)
            number += 1
            total += length
            if role == "assistant":
                answered += length
            roles.add(role)
            by_role = self.characters_by_role.get(role)
            if by_role is None:
                by_role = self.characters_by_role[role] = Lengths()
            by_role.counts[length] += 1
        self.characters_per_row.counts[total] += 1
        if is_conversation:
            self.num_conversations += 1
            self.num_missing_system += "system" not in roles
            self.num_missing_user += "user" not in roles
            self.messages_per_row.counts[number] += 1
            self.answer_characters_per_row.counts[answered] += 1

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "num_conversations": self.num_conversations,
            "num_missing_system": self.num_missing_system,
            "num_missing_user": self.num_missing_user,
            "lengths": {
                "messages_per_row": self.messages_per_row.as_json(),
                "characters_per_row": self.characters_per_row.as_json(),
                "answer_characters_per_row": self.answer_characters_per_row.as_json(),
                "tokens_per_row": self.tokens_per_row.as_json(),
                "learned_tokens_per_row": self.learned_tokens_per_row.as_json(),
            },
            "roles": {role: {"characters": lengths.as_json()} for role, lengths in sorted(self.characters_by_role.items())},
        }


def _at(lengths: list[int], ends: list[int], place: int) -> int:
    """The length at a place of the sorted list of all."""
    return lengths[bisect_right(ends, place)]

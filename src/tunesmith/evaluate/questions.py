"""From test rows to questions: which rows are answered, what is asked, what should come back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.records import Message, Record, Role

__all__ = ["Question", "choose_rows", "cluster_ids", "question_of"]


class Question(NamedTuple):
    """One test row as it is put to an arm."""

    prompt: tuple[Message, ...]
    """Every turn before the answer; never empty."""
    reference: str
    """The answer in the data."""
    tools: str = ""
    """Those that the row offers, as `Record.tools` has them."""

    @property
    def text(self) -> str:
        """What the user said last."""
        said = [message.content for message in self.prompt if message.role is Role.USER]
        return said[-1] if said else self.prompt[-1].content


def question_of(record: Record) -> Question | None:
    """Ask for the last assistant turn that is trained on (weight above 0); None where there is none to ask for."""
    for place in range(len(record.messages) - 1, 0, -1):
        message = record.messages[place]
        if message.role is Role.ASSISTANT and message.weight > 0:
            return Question(record.messages[:place], message.content, record.tools)
    return None


def choose_rows(records: Sequence[Record], *, max_rows: int) -> list[int]:
    """Choose rows by the hash of their id: each domain in proportion to its size, and at least one row where room is.

    The choice depends on the rows alone, so every arm and every run on the same snapshot answers the same questions.

    Returns:
        Places in `records`, in rising order.
    """
    domains: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for place, record in enumerate(records):
        domains[record.domain].append((sha256(record.id.encode()).hexdigest(), place))
    ranked = [(rank / len(rows), digest, place) for rows in domains.values() for rank, (digest, place) in enumerate(sorted(rows))]
    return sorted(place for _, _, place in sorted(ranked)[:max_rows])


def cluster_ids(records: Sequence[Record]) -> NDArray[np.int64]:
    """Number the clusters from 0: rows that the split kept together; where it named none, rows of one group; else the row alone."""
    numbers: dict[tuple[str, str], int] = {}
    keys = [
        ("cluster", record.cluster) if record.cluster else ("row", record.id) if record.group is None else ("group", record.group)
        for record in records
    ]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

"""Train, validation and test: whole groups, each domain with its share, the same whatever the order of the rows.

Rows move together when they share a group, their content, or their first user message (case and blanks aside): no question
of the test stands in the training rows. The groups of a domain are walked from the largest to the smallest, equal sizes in an
order drawn from the seed, and each goes to the split that lacks most, so that every domain and the whole come near
their shares.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tunesmith.data.config import SplitConfig
from tunesmith.errors import DataError
from tunesmith.records import Record, Role

__all__ = ["split"]

SPLITS = ("train", "validation", "test")


class _Group(NamedTuple):
    """Rows that stay together."""

    domain: str
    order: bytes
    rows: list[int]


def split(records: Iterable[Record], *, config: SplitConfig, seed: int) -> dict[str, list[Record]]:
    """Divide records into `train`, `validation` and `test`, each in the records' order.

    Args:
        records: cleaned records.
        config: the shares held out.
        seed: of the order in which groups are dealt.

    Raises:
        DataError: there are too few groups to give every split at least one.
    """
    rows = list(records)
    shares = (1 - config.validation - config.test, config.validation, config.test)
    groups = _groups(rows, seed=seed)
    dealt = _deal(groups, shares=shares)
    home = [0] * len(rows)
    for group, at in zip(groups, dealt, strict=True):
        for row in group.rows:
            home[row] = at
    result = {name: [record for record, at in zip(rows, home, strict=True) if at == i] for i, name in enumerate(SPLITS)}
    empty = [name for name, share in zip(SPLITS, shares, strict=True) if share > 0 and not result[name]]
    if empty:
        raise DataError(
            f"{len(groups):,} groups ({len(rows):,} rows) are too few to split: {' and '.join(empty)} would be empty. "
            f"About {max(_groups_needed(shares), len(groups) + 1):,} groups are needed with these shares; rows with one group, "
            "or one first question, count once. Add rows, or set data.split.validation or data.split.test to 0."
        )
    return result


def _groups(rows: Sequence[Record], *, seed: int) -> list[_Group]:
    """Connected components of rows, in the order in which they are dealt."""
    members: dict[int, list[int]] = {}
    for row, root in enumerate(_roots(rows)):
        members.setdefault(root, []).append(row)
    groups = []
    for together in members.values():
        domains = Counter(rows[row].domain for row in together)
        domain = min(domains, key=lambda name: (-domains[name], name))
        name = min(rows[row].id for row in together)
        groups.append(_Group(domain, hashlib.sha256(f"{seed}:{name}".encode()).digest(), together))
    return sorted(groups, key=lambda group: (group.domain, -len(group.rows), group.order))


def _roots(rows: Sequence[Record]) -> list[int]:
    """For each row one row that stands for its component (union-find with path halving)."""
    parent = list(range(len(rows)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[tuple[str, str], int] = {}
    for row, record in enumerate(rows):
        for key in _keys(record):
            a, b = root(first.setdefault(key, row)), root(row)
            parent[max(a, b)] = min(a, b)
    return [root(row) for row in range(len(rows))]


def _keys(record: Record) -> list[tuple[str, str]]:
    """What ties a record to others."""
    keys = [("id", record.id)]
    if record.group is not None:
        keys.append(("group", record.group))
    question = next((message.content for message in record.messages if message.role is Role.USER), None)
    if question is not None:
        keys.append(("question", " ".join(question.casefold().split())))
    return keys


def _deal(groups: Sequence[_Group], *, shares: Sequence[float]) -> list[int]:
    """For each group the split that, with this group's rows counted, is furthest below its share."""
    owed = [0.0] * len(shares)
    domain = None
    dealt = []
    for group in groups:
        if group.domain != domain:
            # What one domain leaves over is carried into the next, so that small domains add up to the shares;
            # but no more than a row, or one huge group would empty the next domain's training rows.
            owed = [min(1.0, max(-1.0, rest)) for rest in owed]
            domain = group.domain
        size = len(group.rows)
        owed = [rest + share * size for rest, share in zip(owed, shares, strict=True)]
        at = max((i for i, share in enumerate(shares) if share > 0), key=lambda i: (owed[i], shares[i]))
        owed[at] -= size
        dealt.append(at)
    return dealt


def _groups_needed(shares: Sequence[float]) -> int:
    """How many groups of one row it takes until every split has one."""
    wanted = {i for i, share in enumerate(shares) if share > 0}
    number = len(wanted)
    while True:
        if set(_deal([_Group("", b"", [0])] * number, shares=shares)) >= wanted:
            return number
        number += 1

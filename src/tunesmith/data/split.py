"""Train, validation and test: whole clusters, each domain and label with its share, the same whatever the order of the rows.

Rows are in one cluster when they share a group, their content, their document (texts cut from one line, rows with one tag
`document`) or their opening (case and blanks aside; see `frames`), or when they ask nearly the same (see `leakage`). The clusters of a
domain and label are walked from the largest to the smallest, equal sizes in an order drawn from the seed, and each goes to the
split that lacks most, so that every domain, every label and the whole come near their shares.

Where near-duplicates tie so many rows (sums, templates) that a split would get less than half of the rows that it gets without
them, a higher likeness is tried, and at last none. `Division.steps` then says so, and the leakage counts what was let through.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from tunesmith.data.config import SplitConfig
from tunesmith.data.frames import frames_of, opening
from tunesmith.data.shelf import Made, Mapped
from tunesmith.errors import DataError
from tunesmith.records import Leakage, Record

if TYPE_CHECKING:
    from tunesmith.data.leakage import SketchedRows

__all__ = ["Division", "divide", "split"]

SPLITS = ("train", "validation", "test")
_HIGHER_LIKENESS = (0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """Records divided, and what is known of it."""

    parts: Mapping[str, Part]
    """`train`, `validation` and `test`."""
    clusters: Mapping[str, int]
    """How many clusters each split has."""
    leakage: Leakage | None
    """None: nothing is held out, or near-duplicates are not looked for."""
    steps: tuple[str, ...]
    """What was done, for people."""


class Part(Made[Record]):
    """The records of one split in their order; every one bears the name of its cluster."""

    def __init__(self, records: Sequence[Record], *, rows: Sequence[int], clusters: Sequence[str]) -> None:
        self._records = records
        self.rows = rows
        self.clusters = clusters

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, at: int) -> Record:
        """The record at a place from 0."""
        row = self.rows[at]
        return replace(self._records[row], cluster=self.clusters[row])

    def without(self, left_out: Iterable[int]) -> Part:
        """The same part but for those at these places."""
        gone = set(left_out)
        rows = [row for place, row in enumerate(self.rows) if place not in gone]
        return Part(self._records, rows=rows, clusters=self.clusters)


def divide(records: Sequence[Record], *, homes: Sequence[str | None], config: SplitConfig, seed: int) -> Division:
    """Divide records of which some have a place already.

    Args:
        records: as of `split`.
        homes: for each source by its number the split of all its rows; None: its rows are divided.
        config: as of `split`; the shares are of the rows that are divided.
        seed: as of `split`.

    Raises:
        DataError: there are too few clusters to give every split at least one, or no row is left to train on.
    """
    if not any(homes):
        return split(records, config=config, seed=seed)
    free, names = array("q"), [""] * len(records)
    placed: dict[str, list[int]] = {name: [] for name in SPLITS}
    for row, record in enumerate(records):
        home = homes[record.origin]
        if home is None:
            free.append(row)
        else:
            placed[home].append(row)
            names[row] = record.id
    counts, steps, leakage = {name: len(rows) for name, rows in placed.items()}, [], None
    for name, number in counts.items():
        if number:
            steps.append(f"split: {number:,} rows are {name}, as their source says")
    if free:
        division = split(Mapped(records.__getitem__, free), config=config, seed=seed)
        leakage, steps = division.leakage, [*steps, *division.steps]
        for name, part in division.parts.items():
            placed[name] = sorted([*placed[name], *(free[row] for row in part.rows)])
            counts[name] += division.clusters[name]
            for row in part.rows:
                names[free[row]] = part.clusters[row]
    if not placed["train"]:
        raise DataError(
            "no row is left to train on: every source goes to validation or test. Leave one out of `split`, or add a source."
        )
    return Division(
        parts={name: Part(records, rows=rows, clusters=names) for name, rows in placed.items()},
        clusters=counts,
        leakage=leakage,
        steps=tuple(steps),
    )


class _Row(NamedTuple):
    """What dealing needs to know of a record."""

    id: str
    stratum: tuple[str, str]
    """Domain and label."""


class _Group(NamedTuple):
    """Rows that stay together: a cluster."""

    stratum: tuple[str, str]
    order: bytes
    name: str
    rows: list[int]


class _Dealt(NamedTuple):
    """Clusters, and for each row the split that its cluster went to."""

    groups: list[_Group]
    home: list[int]

    def counts(self) -> list[int]:
        return [self.home.count(i) for i in range(len(SPLITS))]


def split(records: Sequence[Record], *, config: SplitConfig, seed: int) -> Division:
    """Divide records into `train`, `validation` and `test`.

    Args:
        records: cleaned records. They may lie on disk (`data.shelf`): of each only some 0.7 kB is held here.
        config: the shares held out, and from what likeness rows stay together.
        seed: of the order in which clusters are dealt.

    Raises:
        DataError: there are too few clusters to give every split at least one.
    """
    shares = (1 - config.validation - config.test, config.validation, config.test)
    frames = frames_of(records)
    rows, roots = _read(records, frames=frames)
    dealt = _dealt(rows, roots, shares=shares, seed=seed)
    _refuse_empty(dealt, shares=shares)
    steps = [f"split: validation {config.validation:g}, test {config.test:g}, seed {seed}"]
    leakage = None
    held_out = 2 if config.test > 0 else 1
    if config.near_duplicates is not None and shares[held_out] > 0:
        from tunesmith.data.leakage import measure, sketch_rows

        again = partial(sketch_rows, records, config=config, frames=frames)
        sketched = again(likeness=config.near_duplicates)
        dealt, step, reason = _keep_near_together(rows, sketched, roots, dealt, again=again, config=config, seed=seed)
        leakage = replace(measure(sketched, dealt.home, held_out=held_out, seed=seed), reason=reason)
        steps.append(step)
    return _division(records, dealt, leakage=leakage, steps=steps)


def _keep_near_together(
    rows: Sequence[_Row],
    sketched: SketchedRows,
    roots: Sequence[int],
    plain: _Dealt,
    *,
    again: Callable[..., SketchedRows],
    config: SplitConfig,
    seed: int,
) -> tuple[_Dealt, str, str]:
    """Deal clusters that hold near-duplicates too, from the lowest likeness that leaves every split its rows.

    Returns:
        The deal; what was done; and why it is less than was asked for, if it is.
    """
    from tunesmith.data.leakage import tie

    shares = (1 - config.validation - config.test, config.validation, config.test)
    wanted = sketched.sketch.threshold
    what = "rows" if config.compare == "rows" else "questions"
    largest = 0
    for likeness in (wanted, *(level for level in _HIGHER_LIKENESS if level > wanted)):
        if likeness > wanted:
            sketched = again(likeness=likeness)
        dealt = _dealt(rows, tie(sketched, roots), shares=shares, seed=seed)
        largest = largest or max(len(group.rows) for group in dealt.groups)
        if all(2 * count >= least for count, least in zip(dealt.counts(), plain.counts(), strict=True)):
            break
    else:
        dealt, likeness = plain, 0.0
    done = f"{likeness:g} or more" if likeness else "no value: they are not kept together"
    reason = (
        ""
        if likeness == wanted
        else (
            f"From a similarity of {wanted:g} on, {largest:,} of {len(rows):,} rows hang together and cannot be divided, "
            f"so the limit is {done}; test figures flatter"
        )
    )
    return dealt, f"near-duplicates stay together: {what} with a Jaccard similarity of {done}", reason


def _division(records: Sequence[Record], dealt: _Dealt, *, leakage: Leakage | None, steps: Sequence[str]) -> Division:
    names = [""] * len(records)
    for group in dealt.groups:
        for row in group.rows:
            names[row] = group.name
    rows = [array("q") for _ in SPLITS]
    for row, at in enumerate(dealt.home):
        rows[at].append(row)
    counts = [0] * len(SPLITS)
    for group in dealt.groups:
        counts[dealt.home[group.rows[0]]] += 1
    return Division(
        parts={name: Part(records, rows=mine, clusters=names) for name, mine in zip(SPLITS, rows, strict=True)},
        clusters=dict(zip(SPLITS, counts, strict=True)),
        leakage=leakage,
        steps=tuple(steps),
    )


def _dealt(rows: Sequence[_Row], roots: Sequence[int], *, shares: Sequence[float], seed: int) -> _Dealt:
    groups = _groups(rows, roots, seed=seed)
    home = [0] * len(rows)
    for group, at in zip(groups, _deal(groups, shares=shares), strict=True):
        for row in group.rows:
            home[row] = at
    return _Dealt(groups, home)


def _refuse_empty(dealt: _Dealt, *, shares: Sequence[float]) -> None:
    empty = [name for name, share, count in zip(SPLITS, shares, dealt.counts(), strict=True) if share > 0 and not count]
    if empty:
        num_groups = len(dealt.groups)
        raise DataError(
            f"{num_groups:,} groups ({len(dealt.home):,} rows) are too few to split: {' and '.join(empty)} would be empty. "
            f"About {max(_groups_needed(shares), num_groups + 1):,} groups are needed with these shares; rows with one group, "
            "or one first question, count once. Add rows, or set data.split.validation or data.split.test to 0."
        )


def _groups(rows: Sequence[_Row], roots: Sequence[int], *, seed: int) -> list[_Group]:
    """Clusters in the order in which they are dealt."""
    members: dict[int, list[int]] = {}
    for row, root in enumerate(roots):
        members.setdefault(root, []).append(row)
    groups = []
    for together in members.values():
        strata = Counter(rows[row].stratum for row in together)
        stratum = min(strata, key=lambda name: (-strata[name], name))
        name = min(rows[row].id for row in together)
        groups.append(_Group(stratum, hashlib.sha256(f"{seed}:{name}".encode()).digest(), name, together))
    return sorted(groups, key=lambda group: (group.stratum, -len(group.rows), group.order))


def _read(records: Sequence[Record], *, frames: Collection[int]) -> tuple[list[_Row], list[int]]:
    """What dealing needs to know of each record, and a number that those tied together share, near-duplicates aside."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows: list[_Row] = []
    strata: dict[tuple[str, str], tuple[str, str]] = {}
    owners, ties = array("q"), array("Q")
    for number, record in enumerate(records):
        stratum = (record.domain, record.label or "")
        rows.append(_Row(record.id, strata.setdefault(stratum, stratum)))
        for kind, value in _keys(record, frames=frames):
            owners.append(number)
            # Two of a million with one hash of 64 bits would only stay together.
            ties.append(xxhash.xxh3_64_intdigest(f"{kind}:{value}".encode("utf-8", "surrogatepass")))
    different, keys = np.unique(np.array(ties, np.uint64), return_inverse=True)
    size = len(rows) + len(different)
    graph = coo_array((np.ones(len(keys), np.int8), (np.array(owners, np.int64), len(rows) + keys)), (size, size))
    numbers: list[int] = np.unique(connected_components(graph, directed=False)[1][: len(rows)], return_inverse=True)[1].tolist()
    return rows, numbers


def _keys(record: Record, *, frames: Collection[int]) -> list[tuple[str, str]]:
    """What ties a record to others."""
    keys = [("id", record.id)]
    document = record.tags.get("document") or (str(record.source) if record.text is not None else None)
    if document is not None:
        keys.append(("document", document))
    if record.group is not None:
        keys.append(("group", record.group))
    question = opening(record, frames=frames)
    if question is not None:
        keys.append(("question", " ".join(question.casefold().split())))
    return keys


def _deal(groups: Sequence[_Group], *, shares: Sequence[float]) -> list[int]:
    """For each group the split that, with this group's rows counted, is furthest below its share."""
    owed = [0.0] * len(shares)
    stratum = None
    dealt = []
    for group in groups:
        if group.stratum != stratum:
            # What one domain or label leaves over is carried into the next, so that small domains add up to the shares;
            # but no more than a row, or one huge group would empty the next one's training rows.
            owed = [min(1.0, max(-1.0, rest)) for rest in owed]
            stratum = group.stratum
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
        if set(_deal([_Group(("", ""), b"", "", [0])] * number, shares=shares)) >= wanted:
            return number
        number += 1

"""Which test rows an evaluation may use, what they have in common, and what of them stood in training.

A row that an arm has seen in training (to learn from, or to choose its best step by) says nothing about that arm. It is left out for
all arms, so that every figure rests on the same rows, and it is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import orjson

from tunesmith.data import SplitConfig, load_snapshot, load_split
from tunesmith.data.shelf import Joined, Mapped
from tunesmith.pipeline.versions import MODEL_FACTS
from tunesmith.records import Record, Snapshot
from tunesmith.store import Store

__all__ = ["LIKENESS", "Contaminated", "Learned", "contamination_of", "labels_of", "learned_by", "near_rows", "tied", "unseen"]

LIKENESS = 0.7
"""Jaccard similarity of character 5-grams from which two questions are nearly the same, as when rows are split."""
_MOST_ROWS = 20_000
"""Training rows, evenly drawn, that test rows are compared with to call them new."""
_NUM_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a version has seen in training."""

    snapshot: Snapshot
    train: tuple[Record, ...]
    ids: frozenset[str]
    """Of the training and the validation rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contaminated:
    """Test rows that ask nearly what a training row asks."""

    test: Record
    train: Record


def learned_by(artefact: str, *, store: Store) -> Learned:
    """What the version whose weights are this artefact has seen."""
    facts = orjson.loads((store.artefacts.get(artefact).path / MODEL_FACTS).read_bytes())
    snapshot = load_snapshot(store, facts["snapshot"])
    train, validation = (
        load_split(store, snapshot, split=split) if split in snapshot.splits else [] for split in ("train", "validation")
    )
    return Learned(snapshot=snapshot, train=tuple(train), ids=frozenset(record.id for record in (*train, *validation)))


def unseen(records: Sequence[Record], *, by: Mapping[str, Learned]) -> tuple[list[Record], dict[str, int]]:
    """Leave out rows that a version has seen.

    Args:
        records: test rows.
        by: what each version has seen, by its name.

    Returns:
        The rows left, and how many were left out, by reason.
    """
    left_out: dict[str, int] = {}
    kept = list(records)
    for name, learned in by.items():
        rest = [record for record in kept if record.id not in learned.ids]
        if len(rest) < len(kept):
            left_out[f"seen by {name} in training"] = len(kept) - len(rest)
        kept = rest
    return kept, left_out


def near_rows(records: Sequence[Record], *, train: Sequence[Record]) -> list[Contaminated]:
    """Test rows that ask nearly what a training row asks, each with the first such row."""
    from tunesmith.data.frames import frames_of
    from tunesmith.data.leakage import asked_of
    from tunesmith.data.near import copies, sketch

    if not records or not train:
        return []
    asked = partial(asked_of, frames=frames_of(records) | frames_of(train))
    compared = sketch(Joined(Mapped(asked, records), Mapped(asked, train)), threshold=LIKENESS)
    is_test = np.arange(len(records) + len(train)) < len(records)
    found = copies(compared, rows=is_test, among=~is_test)[: len(records)].tolist()
    return [
        Contaminated(test=record, train=train[at - len(records)]) for record, at in zip(records, found, strict=True) if at >= 0
    ]


def contamination_of(near: Sequence[Contaminated], *, num_rows: int, snapshot: Snapshot, are_left_out: bool) -> dict[str, Any]:
    """What is told of contamination, as plain values.

    Args:
        near: test rows that are near a training row.
        num_rows: test rows that were looked at.
        snapshot: of the version that is judged.
        are_left_out: whether such rows were left out.
    """
    what = "and were left out" if are_left_out else "and were kept"
    share = f"{len(near):,} of {num_rows:,} test rows ask nearly what a training row asks"
    return {
        "summary": f"{share} (Jaccard similarity of character 5-grams from {LIKENESS:g}), {what}." if near else f"{share}.",
        "near": len(near),
        "rows": num_rows,
        "likeness": LIKENESS,
        **({"when the rows were split": str(snapshot.leakage)} if snapshot.leakage else {}),
        "examples": [
            {"test": str(one.test.source), "asks": _short(one.test), "train": str(one.train.source), "near it": _short(one.train)}
            for one in near[:_NUM_EXAMPLES]
        ],
    }


def labels_of(records: Sequence[Record], *, train: Sequence[Record]) -> dict[str, list[str]]:
    """What test rows can be sorted by beside their own marks: whether a training row asks something like it, and their language."""
    from tunesmith.data.clean.language import language_in
    from tunesmith.data.coverage import WELL, nearness

    # By what they ask alone: one answer may serve many questions, and with it every row of a small shop is near another.
    near = nearness(_questions(train[:: max(-(-len(train) // _MOST_ROWS), 1)]), targets=_questions(records))
    languages = [language_in(record) for record in records]
    return {
        "likeness": ["near a training row" if one >= WELL else "new" for one in near],
        "language": ["" if language == "unknown" else language for language in languages],
    }


def tied(records: Sequence[Record]) -> list[Record]:
    """Name the clusters of rows that no split has named them for, or that come from several splits.

    Rows of one cluster or group stay together, and rows that ask nearly the same.
    """
    from tunesmith.data.leakage import sketch_rows, tie

    if not records:
        return []
    numbers: dict[tuple[str, str], int] = {}
    keys = [
        ("cluster", record.cluster) if record.cluster else ("group", record.group) if record.group else ("row", record.id)
        for record in records
    ]
    labels = [numbers.setdefault(key, len(numbers)) for key in keys]
    joined = tie(sketch_rows(records, config=SplitConfig(), likeness=LIKENESS), labels)
    return [replace(record, cluster=f"c{number}") for record, number in zip(records, joined, strict=True)]


def _questions(records: Sequence[Record]) -> list[Record]:
    from tunesmith.data.leakage import asked_of

    return [replace(record, messages=(), text=asked_of(record)) for record in records]


def _short(record: Record, *, limit: int = 200) -> str:
    from tunesmith.data.leakage import asked_of

    text = asked_of(record)
    return text if len(text) <= limit else text[: limit - 1] + "…"

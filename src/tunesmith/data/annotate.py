"""Which row to show to whom next: the one whose answer says most.

A row is worth asking about when those who have judged it disagree, when nothing like it has been judged yet, or when a model did badly
on it (`loss` in the row's tags). People who have judged nothing in common could not be compared, so every fifth row is one that somebody
else has judged. What others said is never shown, or agreement would mean nothing.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.annotations import Annotation, AnnotationLog, Annotations, Kind, Verdict, decide, ending_of, take_back
from tunesmith.errors import DataError, NotFound
from tunesmith.records import Dropped, Message, Record

__all__ = ["DEFAULT_LABELS", "Desk", "Progress", "labels_of"]

DEFAULT_LABELS = ("good", "bad")
MAX_LABELS = 9
"""One for each digit of the keyboard."""

_NUM_FEATURES = 256
_LOOKED_AT = 4000
"""Characters of a row, for what it is like."""
_SECOND_OPINION = 5
"""Every so manieth row of a person is one that somebody else has judged."""
_DISAGREEMENT = 5.0
"""Weight of disagreement, against 1 for a row like none before and 1 for the highest loss: what divides people in two is settled first."""
_WORD = re.compile(r"\w+")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a person is."""

    by: str
    num_done: int
    num_rows: int


def labels_of(rows: Iterable[Record], *, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels to choose from: those wanted, else the most frequent ones of the rows, else `good` and `bad`.

    Raises:
        DataError: more than there are digits, one twice, or an empty one.
    """
    labels = tuple(label.strip() for label in wanted)
    if len(labels) > MAX_LABELS or len(set(labels)) != len(labels) or not all(labels):
        raise DataError(f"labels {', '.join(labels)!r}: name 1 to {MAX_LABELS} different ones, separated by commas")
    if labels:
        return labels
    found = Counter(row.label for row in rows if row.label)
    return tuple(sorted(label for label, _ in found.most_common(MAX_LABELS))) or DEFAULT_LABELS


class Desk:
    """Rows to decide about, and the decisions so far. Safe to use from several threads."""

    def __init__(
        self,
        rows: Iterable[Record],
        *,
        log: AnnotationLog,
        labels: Sequence[str] = DEFAULT_LABELS,
        seed: int | None = None,
    ) -> None:
        """Take rows.

        Args:
            rows: what to decide about.
            log: where decisions are kept.
            labels: to choose from.
            seed: None shows the most useful row first. A number draws one order for everybody from it, and the sides of each pair:
                for decisions from which a share is estimated, which a choice of rows would bias.
        """
        self.labels = tuple(labels)
        self._seed = seed
        self._rows = {row.id: row for row in rows}
        if not self._rows:
            raise DataError("there is no row to annotate")
        self._at = {name: i for i, name in enumerate(self._rows)}
        self._log = log
        self._lock = Lock()
        self._annotations = Annotations()
        self._passed: dict[str, set[str]] = {}
        self._features = _features(list(self._rows.values()))
        self._loss = _ranks([_number(row.tags.get("loss")) for row in self._rows.values()])
        self._given = np.array([min(max(_number(row.tags.get("coverage")) or 0.0, 0.0), 1.0) for row in self._rows.values()])
        self._coverage = self._given.copy()
        self.unreadable: list[Dropped] = []
        """Lines of the log that are no decisions; they are left as they are."""
        self._refresh()

    def next(self, by: str, *, passing: Sequence[str] = ()) -> dict[str, Any] | None:
        """The row to show next, or None when a person has seen all.

        Args:
            by: who asks.
            passing: rows that were looked at and left for later, the newest last; they come again once there are no others.
        """
        with self._lock:
            self._refresh()
            passed = self._passed.setdefault(by, set())
            passed.update(passing)
            open_rows = [name for name in self._rows if by not in self._annotations.about(name)]
            left = [name for name in open_rows if name not in passed]
            if not left and open_rows:
                passed.clear()
                left = [name for name in open_rows if name not in passing[-1:]] or open_rows
            return self._task(*self._choose(left, by=by), by=by) if left else None

    def show(self, row: str, *, by: str) -> dict[str, Any]:
        """A row that was shown before.

        Raises:
            NotFound: there is no such row.
        """
        with self._lock:
            self._refresh()
            return self._task(self._row(row).id, "", by=by)

    def decide(self, row: str, *, by: str, kind: Kind, value: str) -> Annotation:
        """Keep a decision; it is on the disk when this returns.

        Raises:
            NotFound: there is no such row.
            DataError: the decision does not fit the row.
            OutOfSpace: the disk is full; nothing was kept.
        """
        with self._lock:
            found = self._row(row)
            if kind is Kind.LABEL and value not in self.labels:
                raise DataError(f"{value!r} is none of the labels {', '.join(self.labels)}")
            side = value if kind is Kind.RANK and value in {"left", "right"} else ""
            if side:
                value = Verdict.CHOSEN if (value == "left") != self._is_swapped(found, by=by) else Verdict.REJECTED
            decision = decide(found, by=by, kind=kind, value=value, side=side)
            self._log.append([decision])
            self._refresh()
            return decision

    def undo(self, by: str) -> str | None:
        """Take a person's newest decision back; the row it was about, or None when there is none."""
        with self._lock:
            self._refresh()
            last = self._annotations.last_of(by)
            if last is None:
                return None
            self._log.append([take_back(last)])
            self._refresh()
            return last.of if last.of in self._rows else None

    def progress(self, by: str) -> Progress:
        """How far a person is."""
        with self._lock:
            self._refresh()
            done = sum(by in self._annotations.about(name) for name in self._rows)
            return Progress(by=by, num_done=done, num_rows=len(self._rows))

    def _row(self, name: str) -> Record:
        if name not in self._rows:
            raise NotFound("there is no such row here; load the page again")
        return self._rows[name]

    def _refresh(self) -> None:
        """Take into account what was written since, here or by another process."""
        was_undone = False
        for entry in self._log.read_new():
            if isinstance(entry, Dropped):
                self.unreadable.append(entry)
                continue
            self._annotations.add(entry)
            was_undone = was_undone or entry.kind is Kind.UNDO
            if entry.of in self._at and entry.kind not in {Kind.UNDO, Kind.SKIP}:
                self._cover(entry.of)
        if was_undone:
            self._coverage = self._given.copy()
            for name in self._annotations.rows():
                if name in self._at:
                    self._cover(name)

    def _cover(self, name: str) -> None:
        """A row counts as covered as far as one that was judged is like it."""
        likeness = self._features @ self._features[self._at[name]]
        self._coverage = np.minimum(np.maximum(self._coverage, likeness), 1.0)  # a row's likeness to itself may round to above 1

    def _choose(self, names: Sequence[str], *, by: str) -> tuple[str, str]:
        """The most useful of some rows, or the next of a drawn order, and why."""
        if self._seed is not None:
            return min(names, key=lambda name: _drawn(f"{self._seed}:{name}")), "in a drawn order"
        opinions = {name: self._annotations.about(name) for name in names}
        is_second = len(self._done(by)) % _SECOND_OPINION == _SECOND_OPINION - 1
        if is_second and any(opinions.values()):
            names = [name for name in names if opinions[name]]
        at = np.array([self._at[name] for name in names])
        divided = np.array([_disagreement(opinions[name]) for name in names])
        scores = _DISAGREEMENT * divided + (1 - self._coverage[at]) + self._loss[at]
        best = int(np.argmax(scores))
        row = self._rows[names[best]]
        if divided[best] > 0:
            return row.id, "others disagree about it"
        if is_second and opinions[row.id]:
            return row.id, "a second opinion"
        if self._loss[at[best]] > 1 - self._coverage[at[best]]:
            return row.id, f"its loss is high ({row.tags['loss']})"
        return row.id, "unlike what has been judged so far" if self._coverage[at[best]] < 1 else "like others that were judged"

    def _done(self, by: str) -> list[str]:
        return [name for name in self._rows if by in self._annotations.about(name)]

    def _task(self, name: str, why: str, *, by: str) -> dict[str, Any]:
        """A row as the page shows it. A pair's answers change sides by chance, so that neither side is the better by habit."""
        row = self._rows[name]
        mine = {kind.value: entry.value for kind, entry in self._annotations.about(name).get(by, {}).items()}
        task: dict[str, Any] = {
            "row": name,
            "source": str(row.source),
            "domain": row.domain,
            "why": why,
            "text": row.text,
            "messages": _turns(row.messages),
        }
        if row.rejected:
            start = ending_of(row)
            sides = [_turns(row.messages[start:]), _turns(row.rejected)]
            is_swapped = self._is_swapped(row, by=by)
            task |= {"messages": _turns(row.messages[:start]), "left": sides[is_swapped], "right": sides[not is_swapped]}
            if mine.get("rank") in {Verdict.CHOSEN, Verdict.REJECTED}:
                mine["rank"] = "left" if (mine["rank"] == Verdict.CHOSEN) != is_swapped else "right"
        return task | {"mine": mine}

    def _is_swapped(self, row: Record, *, by: str) -> bool:
        name = f"{row.id}:{by}" if self._seed is None else f"{self._seed}:{row.id}:{by}"
        return bool(_drawn(name)[0] & 1)


def _turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role.value, "content": message.content} for message in messages]


def _drawn(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _disagreement(opinions: Mapping[str, Mapping[Kind, Annotation]]) -> float:
    """Share of people who do not say what most say, from 0 to below 1."""
    divided = 0.0
    for kind in (Kind.LABEL, Kind.RANK):
        said = Counter(kinds[kind].value for kinds in opinions.values() if kind in kinds)
        if said.total() > 1:
            divided = max(divided, 1 - max(said.values()) / said.total())
    return divided


def _features(rows: Sequence[Record]) -> Floats:
    """What each row is like: its words, hashed, the rarer the weightier (tf-idf), of length 1; shape (rows, features)."""
    counts = np.zeros((len(rows), _NUM_FEATURES))
    for i, row in enumerate(rows):
        said = row.text if row.text is not None else "\n".join(message.content for message in row.messages)
        for word, times in Counter(_WORD.findall(said[:_LOOKED_AT].casefold())).items():
            counts[i, zlib.crc32(word.encode("utf-8", "replace")) % _NUM_FEATURES] += times
    weights = np.log((1 + len(rows)) / (1 + (counts > 0).sum(0))) + 1
    weighted = np.sqrt(counts) * weights
    lengths: Floats = np.linalg.norm(weighted, axis=1, keepdims=True)
    return np.asarray(weighted / np.maximum(lengths, 1e-12))


def _ranks(values: Sequence[float | None]) -> Floats:
    """The share of the known values that each reaches, from above 0 to 1; 0 where there is none."""
    known = np.sort([value for value in values if value is not None])
    return np.array([0.0 if value is None else np.searchsorted(known, value, side="right") / len(known) for value in values])


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and np.isfinite(value) else None

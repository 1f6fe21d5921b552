"""What people decided about rows, in one file that is only ever appended to.

Each line is the row as the decision leaves it, with the row it came from as its parent, and under `annotation` who decided what and
when. A decision is on the disk before its caller goes on: a kill loses nothing, and writers in several processes take turns. Taking
a decision back is a line too, so nothing is ever lost.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tunesmith.data.read import content_digest
from tunesmith.data.rows import plain_record, record_of
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Message, Record, Role, Source
from tunesmith.store.folders import plain_errors
from tunesmith.store.lines import append_lines, whole_lines

__all__ = [
    "Annotation",
    "AnnotationLog",
    "Annotations",
    "Kind",
    "Resolved",
    "Verdict",
    "decide",
    "ending_of",
    "resolve",
    "take_back",
]


class Kind(StrEnum):
    """What was decided."""

    LABEL = "label"
    ANSWER = "answer"
    RANK = "rank"
    SKIP = "skip"
    UNDO = "undo"


class Verdict(StrEnum):
    """Which answer of a pair is better."""

    CHOSEN = "chosen"
    REJECTED = "rejected"
    TIE = "tie"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One decision of one person about one row."""

    by: str
    kind: Kind
    of: str
    """Id of the row as it was shown."""
    value: str
    """The label; the corrected text; a `Verdict`; of an undo the kind that is taken back."""
    at: str
    """UTC, ISO 8601."""
    record: Record | None = None
    """The row as the decision leaves it; None where it says nothing of its content (skip, undo)."""
    side: str = ""
    """Of a pair on which a side was chosen: `left` or `right`, where the better answer stood. Empty: none was, or it is not known."""


class Resolved(NamedTuple):
    """One row for each that was decided about, and those on which people did not agree, with the reason."""

    records: list[Record]
    dropped: list[Dropped]


class Annotations:
    """All decisions that stand."""

    def __init__(self) -> None:
        self._standing: dict[str, dict[tuple[str, Kind], list[Annotation]]] = {}
        """row -> (by, kind) -> what was decided, the newest last."""
        self._of_person: dict[str, list[Annotation]] = {}

    def add(self, annotation: Annotation) -> None:
        """Take one more line of the log into account."""
        mine = self._of_person.setdefault(annotation.by, [])
        if annotation.kind is not Kind.UNDO:
            mine.append(annotation)
            self._standing.setdefault(annotation.of, {}).setdefault((annotation.by, annotation.kind), []).append(annotation)
            return
        found = [entry for entry in mine if entry.of == annotation.of and entry.kind == annotation.value]
        if found:
            mine.remove(found[-1])
            self._standing[annotation.of][annotation.by, found[-1].kind].pop()

    def last_of(self, by: str) -> Annotation | None:
        """The newest decision of a person that stands."""
        mine = self._of_person.get(by, [])
        return mine[-1] if mine else None

    def about(self, row: str) -> dict[str, dict[Kind, Annotation]]:
        """What each person says of a row now."""
        said: dict[str, dict[Kind, Annotation]] = {}
        for (by, kind), entries in self._standing.get(row, {}).items():
            if entries:
                said.setdefault(by, {})[kind] = entries[-1]
        return said

    def rows(self) -> list[str]:
        """Ids of the rows about which something stands, in the order of their first decision."""
        return [row for row in self._standing if self.about(row)]

    def ratings(self, kind: Kind) -> dict[str, dict[str, str]]:
        """Person -> row -> label or verdict."""
        found: dict[str, dict[str, str]] = {}
        for row in self._standing:
            for by, said in self.about(row).items():
                if kind in said:
                    found.setdefault(by, {})[row] = said[kind].value
        return found


class AnnotationLog:
    """The file. Any number of these may write to one file at once, in this process or in others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0
        self._num_lines = 0

    def append(self, annotations: Sequence[Annotation]) -> None:
        """Write decisions; they are on the disk when this returns, all of them or none.

        Raises:
            OutOfSpace: the disk is full; the file is as it was.
        """
        content = b"".join(orjson.dumps(_plain(entry), option=orjson.OPT_APPEND_NEWLINE) for entry in annotations)
        with plain_errors(self.path, elsewhere="name another place"), self._locked() as file:
            append_lines(file, content, folder=self.path.parent)

    def read_new(self) -> Iterator[Annotation | Dropped]:
        """What was written since the last call, by anybody; a line that is no decision is told of with its place."""
        for line in whole_lines(self.path, start=self._read_to):
            self._read_to += len(line)
            self._num_lines += 1
            if line.strip():
                yield _annotation(line, path=self.path, number=self._num_lines)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def decide(row: Record, *, by: str, kind: Kind, value: str, side: str = "") -> Annotation:
    """Make a decision about a row; of a pair, `side` is where the better answer stood.

    Raises:
        DataError: the value is empty, the name is, or the kind does not fit the row.
    """
    by = by.strip()
    if not by or len(by) > 64 or not by.isprintable():
        raise DataError(f"annotator {by!r}: a name is 1 to 64 printable characters")
    if kind in {Kind.LABEL, Kind.ANSWER} and not value.strip():
        raise DataError(f"the {kind} is empty")
    if kind is Kind.RANK and (not row.rejected or value not in set(Verdict)):
        raise DataError(f"{value!r} cannot be said of this row: a pair is ranked with {', '.join(Verdict)}")
    if kind is Kind.ANSWER and row.rejected:
        raise DataError("the answers of a pair are ranked, not corrected")
    return Annotation(
        by=by,
        kind=kind,
        of=row.id,
        value=value,
        at=_now(),
        record=_decided(row, kind=kind, value=value) if kind is not Kind.SKIP else None,
        side=side,
    )


def take_back(decision: Annotation) -> Annotation:
    """The line that takes a decision back."""
    return Annotation(by=decision.by, kind=Kind.UNDO, of=decision.of, value=decision.kind, at=_now())


def ending_of(row: Record) -> int:
    """Where the answer begins: after the last thing that a user or tool says."""
    asked = [i for i, message in enumerate(row.messages) if message.role in {Role.USER, Role.TOOL, Role.SYSTEM}]
    return asked[-1] + 1 if asked else 0


def resolve(annotations: Annotations, rows: Mapping[str, Record]) -> Resolved:
    """One row for each that was decided about: the newest correction, and of labels and verdicts what most people say.

    Rows that were only skipped, tied pairs, and rows on which equally many people say different things are left out with a reason.

    Args:
        annotations: the decisions.
        rows: the rows they are about, by id, as far as they are known.
    """
    records: list[Record] = []
    dropped: list[Dropped] = []
    for name in annotations.rows():
        said = annotations.about(name)
        every = [entry for kinds in said.values() for entry in kinds.values()]
        row = rows.get(name) or next((entry.record for entry in every if entry.record is not None), None)
        if row is None:
            continue
        result = _resolved(row, every)
        if isinstance(result, Dropped):
            dropped.append(result)
        else:
            records.append(result)
    return Resolved(records, dropped)


def _resolved(row: Record, said: Sequence[Annotation]) -> Record | Dropped:
    by_kind = {kind: sorted((a for a in said if a.kind is kind), key=lambda a: a.at) for kind in Kind}
    result = row
    if by_kind[Kind.ANSWER]:
        result = _decided(result, kind=Kind.ANSWER, value=by_kind[Kind.ANSWER][-1].value)
    for kind in (Kind.LABEL, Kind.RANK):
        counts = Counter(entry.value for entry in by_kind[kind]).most_common(2)
        if len(counts) == 2 and counts[0][1] == counts[1][1]:
            detail = ", ".join(f"{entry.by}: {entry.value}" for entry in by_kind[kind])
            return Dropped(source=row.source, reason="annotators_disagree", detail=detail)
        if counts and counts[0][0] in {Verdict.TIE, Verdict.NEITHER} and kind is Kind.RANK:
            return Dropped(source=row.source, reason="no_better_answer", detail=f"the pair was ranked as {counts[0][0]}")
        if counts:
            result = _decided(result, kind=kind, value=counts[0][0])
    if not any(by_kind[kind] for kind in (Kind.ANSWER, Kind.LABEL, Kind.RANK)):
        return Dropped(source=row.source, reason="skipped", detail=f"skipped by {', '.join(entry.by for entry in said)}")
    # However many decisions made it, it comes from the one row that was shown.
    return replace(result, parents=(row.id,))


def _decided(row: Record, *, kind: Kind, value: str) -> Record:
    """The row as a decision leaves it."""
    changed = row
    if kind is Kind.LABEL:
        changed = replace(row, label=value)
    elif kind is Kind.ANSWER and row.text is not None:
        changed = replace(row, text=value)
    elif kind is Kind.ANSWER:
        last = max((i for i, m in enumerate(row.messages) if m.role is Role.ASSISTANT), default=len(row.messages))
        answer = Message(role=Role.ASSISTANT, content=value)
        changed = replace(row, messages=(*row.messages[:last], answer, *row.messages[last + 1 :]))
    elif kind is Kind.RANK and value == Verdict.REJECTED:
        start = ending_of(row)
        changed = replace(row, messages=row.messages[:start] + row.rejected, rejected=row.messages[start:])
    content = changed.text if changed.text is not None else changed.messages
    digest = content_digest(content, rejected=changed.rejected, label=changed.label, tools=changed.tools)
    return replace(changed, id=digest, parents=(row.id,))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plain(entry: Annotation) -> dict[str, Any]:
    said = {"by": entry.by, "kind": entry.kind.value, "of": entry.of, "value": entry.value, "at": entry.at}
    said |= {"side": entry.side} if entry.side else {}
    return (plain_record(entry.record) if entry.record is not None else {}) | {"annotation": said}


def _annotation(line: bytes, *, path: Path, number: int) -> Annotation | Dropped:
    try:
        plain = orjson.loads(line)
        said = {key: str(plain["annotation"][key]) for key in ("by", "kind", "of", "value", "at")}
        record = record_of(plain) if "id" in plain else None
        return Annotation(
            by=said["by"],
            kind=Kind(said["kind"]),
            of=said["of"],
            value=said["value"],
            at=said["at"],
            record=record,
            side=str(plain["annotation"].get("side", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"not a decision ({type(error).__name__}: {error}); it is left as it is and not counted"
        raw = line[:2000].decode("utf-8", "backslashreplace")
        return Dropped(source=Source(path=str(path), line=number), reason="malformed_annotation", detail=detail, raw=raw)

"""Rows from files, decisions into a file: the annotation page, what comes in and goes out, and how far people agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tunesmith.data import SourceConfig, read
from tunesmith.data.agreement import Agreement, measure_agreement
from tunesmith.data.annotate import Desk, labels_of
from tunesmith.data.annotations import AnnotationLog, Annotations, Kind, resolve
from tunesmith.data.label_studio import from_label_studio, to_label_studio
from tunesmith.data.rows import plain_record
from tunesmith.data.writing import check_outputs, open_outputs, open_rows
from tunesmith.errors import DataError, NotFound, UserError
from tunesmith.records import Dropped, Record

__all__ = ["DeskPage", "Exported", "Imported", "annotate", "export_annotations", "import_annotations", "read_agreement"]

_FORMS = ("rows", "label-studio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What of another tool's file was taken over."""

    num_decisions: int
    num_present: int
    """Decisions that were there before."""
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    num_rows: int
    dropped: tuple[Dropped, ...]
    """Rows that were decided about and are not among them, with the reason."""

    @property
    def reasons(self) -> Mapping[str, int]:
        return Counter(row.reason for row in self.dropped)


class _Decided(NamedTuple):
    annotations: Annotations
    unreadable: list[Dropped]


def annotate(
    files: Sequence[Path],
    *,
    out: Path,
    by: str,
    labels: Sequence[str] = (),
    port: int = 0,
    on_ready: Callable[[str, Sequence[Dropped]], None],
) -> None:
    """Serve the annotation page until Ctrl-C.

    Args:
        files: rows to decide about.
        out: where every decision is appended at once.
        by: the annotator whom the page greets.
        labels: to choose from; none: those of the rows, else good and bad.
        port: 0 takes any free one.
        on_ready: given the page's address, and the rows and lines that could not be read.

    Raises:
        UserError: a file cannot be read, nothing is in it, or the port cannot be had.
    """
    from tunesmith.serve import serve_annotation

    check_outputs([("--out", out)], sources=files)
    rows, bad = _rows(files)
    desk = Desk(rows, log=AnnotationLog(out), labels=labels_of(rows, wanted=labels))
    serve_annotation(DeskPage(desk), by=by, port=port, on_ready=lambda url: on_ready(url, [*bad, *desk.unreadable]))


def import_annotations(files: Sequence[Path], *, out: Path, source: Path) -> Imported:
    """Take the decisions of a Label Studio export over; those that are there already are not doubled.

    Raises:
        UserError: a file cannot be read, or it is no export.
    """
    check_outputs([("--out", out)], sources=[*files, source])
    rows, _ = _rows(files)
    try:
        tasks = orjson.loads(source.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"{source} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{source} is not Label Studio's JSON: {error}") from error
    log = AnnotationLog(out)
    present = {(a.by, a.kind, a.of, a.value, a.at) for a in log.read_new() if not isinstance(a, Dropped)}
    found = list(from_label_studio(tasks, {row.id: row for row in rows}, name=source.name))
    decisions = [entry for entry in found if not isinstance(entry, Dropped)]
    new = [a for a in decisions if (a.by, a.kind, a.of, a.value, a.at) not in present]
    if new:
        log.append(new)
    return Imported(
        num_decisions=len(new),
        num_present=len(decisions) - len(new),
        dropped=tuple(entry for entry in found if isinstance(entry, Dropped)),
    )


def export_annotations(files: Sequence[Path], *, out: Path, to: Path, form: str) -> Exported:
    """Write what was decided: `rows` that `run` reads, or `label-studio` JSON.

    Raises:
        NotFound: nothing was decided yet.
        UserError: there is no such form.
    """
    if form not in _FORMS:
        raise UserError(f"--export {form}: there is no such form. Known: {', '.join(_FORMS)}, each with a file after it")
    check_outputs([("--export", to), ("--out", out)], sources=files)
    rows, _ = _rows(files)
    annotations, unreadable = _decisions(out)
    known = {row.id: row for row in rows}
    if form == "label-studio":
        tasks = to_label_studio(list(known.values()), annotations)
        with open_outputs(to) as (file,):
            file.write(orjson.dumps(tasks, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return Exported(num_rows=len(tasks), dropped=tuple(unreadable))
    resolved = resolve(annotations, known)
    with open_rows(to) as writer:
        for record in resolved.records:
            writer.write(plain_record(record))
    return Exported(num_rows=len(resolved.records), dropped=(*unreadable, *resolved.dropped))


def read_agreement(file: Path) -> Mapping[str, Agreement]:
    """How far annotators agree, in labels and in ranked pairs, as far as there are any.

    Besides our own lines, plain ones are read: objects with `item`, `by` and `label`.

    Raises:
        NotFound: there is no such file.
        DataError: a line is neither.
    """
    if not file.is_file():
        raise NotFound(f"{file} does not exist")
    plain = _plain_ratings(file)
    if plain is not None:
        return {"label": measure_agreement(plain)}
    annotations, unreadable = _decisions(file)
    if unreadable:
        first = unreadable[0]
        raise DataError(f"{first.source}  {first.detail}\n{len(unreadable):,} lines of {file} are no decisions. Remove them.")
    ratings = {kind: annotations.ratings(kind) for kind in (Kind.LABEL, Kind.RANK)}
    return {kind.value: measure_agreement(given) for kind, given in ratings.items() if given}


class DeskPage:
    """A desk as the page speaks to it: plain values, with the labels and how far a person is."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def next(self, by: str, *, passing: Sequence[str]) -> dict[str, Any]:
        return self._with_progress(by, self._desk.next(by, passing=passing))

    def show(self, row: str, *, by: str) -> dict[str, Any]:
        return self._with_progress(by, self._desk.show(row, by=by))

    def decide(self, row: str, *, by: str, kind: str, value: str) -> dict[str, Any]:
        known = {entry.value: entry for entry in Kind if entry is not Kind.UNDO}
        if kind not in known:
            raise DataError(f"{kind!r} is no decision. Known: {', '.join(known)}")
        decision = self._desk.decide(row, by=by, kind=known[kind], value=value)
        return {"saved": True, "row": row, "at": decision.at} | asdict(self._desk.progress(by))

    def undo(self, by: str) -> dict[str, Any]:
        undone = self._desk.undo(by)
        task = self._desk.next(by) if undone is None else self._desk.show(undone, by=by)
        return self._with_progress(by, task) | {"undone": undone}

    def _with_progress(self, by: str, task: dict[str, Any] | None) -> dict[str, Any]:
        return {"task": task, "labels": self._desk.labels} | asdict(self._desk.progress(by))


def _rows(files: Sequence[Path]) -> tuple[list[Record], list[Dropped]]:
    rows: list[Record] = []
    bad: list[Dropped] = []
    for file in files:
        for row in read(SourceConfig(path=str(file)), folder=Path()).rows:
            if isinstance(row, Dropped):
                bad.append(row)
            else:
                rows.append(row)
    return rows, bad


def _decisions(file: Path) -> _Decided:
    if not file.is_file():
        raise NotFound(f"{file} does not exist: nothing was decided yet. `tunesmith data annotate` opens the page.")
    annotations, unreadable = Annotations(), []
    for entry in AnnotationLog(file).read_new():
        if isinstance(entry, Dropped):
            unreadable.append(entry)
        else:
            annotations.add(entry)
    return _Decided(annotations, unreadable)


def _plain_ratings(file: Path) -> dict[str, dict[str, str]] | None:
    """Ratings out of lines with `item`, `by` and `label`; None: the first line is none."""
    ratings: dict[str, dict[str, str]] = {}
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = orjson.loads(line) if line.strip() else None
                if row is not None:
                    ratings.setdefault(str(row["by"]), {})[str(row["item"])] = str(row["label"])
            except (ValueError, KeyError, TypeError) as error:
                if not ratings:
                    return None
                raise DataError(f"{file}:{number}  not a rating: an object with `item`, `by` and `label` is wanted") from error
    return ratings

"""Files to one file of rows: everything that can be used in one place, and beside it everything that cannot, with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from tunesmith.data.config import FormatName, SourceConfig
from tunesmith.data.nested import LOWER_RANKED
from tunesmith.data.read import read
from tunesmith.data.rows import plain_dropped, plain_record
from tunesmith.data.writing import check_outputs, open_outputs
from tunesmith.errors import DataError
from tunesmith.records import Dropped

__all__ = ["Collected", "collect", "sources_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The account of what was read."""

    out: str
    num_read: int
    num_kept: int
    dropped: Mapping[str, int]
    """Rows left out, by reason."""
    dropped_path: str | None
    """Where they are kept; None if there are none."""
    formats: Mapping[str, str]
    """For each file the detected format and its evidence."""
    skipped: tuple[str, ...]
    """Files of no kind that is read here."""
    unread_files: Mapping[str, str]
    """Files of a folder or archive of which nothing could be read, each with why."""
    examples: tuple[str, ...]
    """The first rows left out, as `file:line  why`."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def sources_of(
    paths: Sequence[str], *, layout: FormatName = "auto", names: Sequence[str] = (), encoding: str | None = None
) -> list[SourceConfig]:
    """Sources as a command line names them.

    Args:
        paths: files, folders, patterns or URLs.
        layout: as in a recipe.
        names: mappings of the form `question=q`, also several with commas.
        encoding: of text files.

    Raises:
        DataError: a mapping or the encoding is not one.
    """
    pairs = [pair.partition("=") for name in names for pair in name.split(",")]
    odd = next(("".join(pair) for pair in pairs if not (pair[0].strip() and pair[2].strip())), None)
    if odd is not None:
        raise DataError(f"--map {odd}: write NAME=KEY, such as question=q")
    mapping = {name.strip(): key.strip() for name, _, key in pairs}
    try:
        return [SourceConfig(path=path, format=layout, map=mapping, encoding=encoding) for path in paths]
    except ValidationError as error:
        raise DataError("; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())) from error


def collect(sources: Sequence[SourceConfig], *, out: Path, dropped: Path | None = None) -> Collected:
    """Read sources into one file of JSON lines, in constant memory.

    Args:
        sources: as a recipe names them; paths count from the working directory.
        out: the file of rows, which appears whole or not at all.
        dropped: the file of what was left out. Left out: `out` with `.dropped.jsonl`, if anything is.

    Raises:
        NotFound: a source names no file.
        DataError: a source is in no known format or is unreadable, or not one row can be used.
        UserError: a file cannot be written, is one of the sources, or both are to be one.
        OutOfSpace: the disk is full; nothing half-written is kept.
    """
    readings = [read(source, folder=Path()) for source in sources]
    beside = dropped or out.with_name(f"{out.name.removesuffix('.jsonl')}.dropped.jsonl")
    check_outputs([("--out", out), ("--dropped", beside)], sources=(source.path for source in sources))
    reasons: Counter[str] = Counter()
    examples: list[str] = []
    num_kept = 0
    unread = {name: why for reading in readings for name, why in reading.unread.items()}
    with open_outputs(out, beside) as (kept_file, dropped_file):
        for row in (row for reading in readings for row in reading.rows):
            if isinstance(row, Dropped):
                reasons[row.reason] += 1
                is_told = row.reason == LOWER_RANKED or row.source.path in unread  # the first is no fault that anybody could mend
                if len(examples) < 10 and not is_told:
                    examples.append(f"{row.source}  {row.detail}")
                dropped_file.write(orjson.dumps(plain_dropped(row), option=orjson.OPT_APPEND_NEWLINE))
            else:
                num_kept += 1
                kept_file.write(orjson.dumps(plain_record(row), option=orjson.OPT_APPEND_NEWLINE))
        if not num_kept:
            told = [*(f"{name}  {why}" for name, why in unread.items()), *examples]
            raise DataError("\n".join([*told, "not one row can be used, so nothing is written"]))
    if not reasons and dropped is None:
        beside.unlink()
    return Collected(
        out=str(out),
        num_read=num_kept + reasons.total(),
        num_kept=num_kept,
        dropped=dict(sorted(reasons.items())),
        dropped_path=str(beside) if reasons or dropped else None,
        formats={name: found for reading in readings for name, found in reading.formats.items()},
        unread_files=unread,
        skipped=tuple(name for reading in readings for name in reading.skipped),
        examples=tuple(examples),
    )

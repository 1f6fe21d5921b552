"""A data report: rows in, one HTML page and one JSON file with the same figures out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tunesmith import __version__
from tunesmith.data import SourceConfig, read
from tunesmith.data.profile import (
    Lengths,
    answer_of,
    characters_of,
    count_languages,
    count_leaks,
    find_repeats,
    measure_lengths,
)
from tunesmith.errors import NotFound
from tunesmith.pipeline import data_sections as sections
from tunesmith.pipeline.data_page import data_page
from tunesmith.pipeline.data_sections import Section, joined_figures
from tunesmith.records import Dropped, Record, Source
from tunesmith.store.folders import plain_errors

__all__ = ["DataReport", "Measured", "Tokens", "data_report", "report_on_files"]

SPLITS = ("train", "validation", "test")
_MOST_LANGUAGES_LOOKED_AT = 20_000
"""Rows; more change the shares by less than a per cent, and each takes a fortieth of a millisecond and more."""

CountTokens = Callable[[Iterable[Record]], Iterator[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Who counts tokens: the tokens of each record, in order."""

    name: str
    count: CountTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A data set as far as it is known."""

    splits: Mapping[str, Sequence[Record]]
    """Rows by split; a data set that is not divided has one, under any name."""
    dropped: Sequence[Dropped] = ()
    formats: Mapping[str, str] | None = None
    num_read: int | None = None
    """Rows before any was dropped; None: as many as there are and were dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What is known of a data set, as sections."""

    title: str
    sections: tuple[Section, ...]

    def as_html(self) -> str:
        """One page that needs nothing else."""
        return data_page(self.title, self.sections)

    def as_json(self) -> dict[str, Any]:
        """The same figures as plain values."""
        return {"schema": 1, "tunesmith": __version__, "title": self.title, **joined_figures(self.sections)}

    def write(self, *, html: Path, json: Path | None = None) -> None:
        """Write the page, and the figures beside it; a file is there whole or not at all.

        Raises:
            OutOfSpace: the disk is full; what was there before is still there.
        """
        written = {html: self.as_html().encode()}
        if json is not None:
            written[json] = orjson.dumps(self.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        for path, content in written.items():
            half = path.with_name(f".{path.name}.half")
            with plain_errors(path.parent):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    half.write_bytes(content)
                    half.replace(path)
                finally:
                    half.unlink(missing_ok=True)


def data_report(title: str, measured: Measured, *, tokens: Tokens | None = None, more: Sequence[Section | None] = ()) -> DataReport:
    """Measure a data set and say what it is like.

    Args:
        title: what the page is called.
        measured: the rows.
        tokens: how to count tokens; None leaves them out.
        more: sections measured elsewhere, such as mixing, the token ledger or coverage; None is left out.
    """
    records = [record for rows in measured.splits.values() for record in rows]
    num_read = measured.num_read if measured.num_read is not None else len(records) + len(measured.dropped)
    train = measured.splits.get("train", ())
    leaks = {name: count_leaks(train, rows) for name, rows in measured.splits.items() if name != "train" and train}
    step = max(-(-len(records) // _MOST_LANGUAGES_LOOKED_AT), 1)
    languages = count_languages("\n".join(m.content for m in r.messages) or r.text or "" for r in records[::step])
    found = [
        sections.counts_section(records, num_dropped=len(measured.dropped), formats=measured.formats or {}),
        sections.lengths_section(_lengths(records, tokens=tokens), tokenizer=tokens.name if tokens else None),
        sections.languages_section(languages, num_rows=len(records)),
        sections.repeats_section(find_repeats(records)),
        sections.dropped_section(measured.dropped, num_read=num_read),
        sections.splits_section(measured.splits, leaks=leaks),
        *more,
    ]
    return DataReport(title=title, sections=tuple(section for section in found if section is not None))


def report_on_files(files: Sequence[Path], *, tokens: Tokens | None = None) -> DataReport:
    """Report on data files, or folders of them.

    Files called train, validation and test are taken for splits; rows with `reason` and `detail`, as other commands write them, for
    rows that were dropped.

    Raises:
        NotFound: there is no such file.
        DataError: a file cannot be read.
    """
    splits: dict[str, list[Record]] = {}
    dropped: list[Dropped] = []
    formats: dict[str, str] = {}
    paths = [path for file in files for path in _files_of(file)]
    are_splits = {_stem(path) for path in paths} >= {"train", "test"}
    for path in paths:
        set_aside = _read_dropped(path)
        if set_aside is not None:
            dropped += set_aside
            continue
        reading = read(SourceConfig(path=str(path)), folder=Path())
        formats |= reading.formats
        name = _stem(path)
        rows = splits.setdefault(name if are_splits and name in SPLITS else "rows", [])
        for row in reading.rows:
            if isinstance(row, Dropped):
                dropped.append(row)
            else:
                rows.append(row)
    ordered = {name: splits[name] for name in sorted(splits, key=lambda name: (*SPLITS, name).index(name))}
    title = ", ".join(file.name or str(file) for file in files)
    return data_report(title, Measured(splits=ordered, dropped=dropped, formats=formats), tokens=tokens)


def _lengths(records: Sequence[Record], *, tokens: Tokens | None) -> dict[str, tuple[str, Lengths]]:
    """What is measured, in the order in which it is shown."""
    wanted = {
        "turns": ("messages", measure_lengths(len(r.messages) for r in records if r.messages)),
        "answers": ("characters", measure_lengths(len(answer_of(r)) for r in records if r.messages)),
        "rows": ("characters", measure_lengths(map(characters_of, records))),
    }
    if tokens is not None:
        wanted["rows as the model reads them"] = ("tokens", measure_lengths(tokens.count(records)))
    return {name: (unit, found) for name, (unit, found) in wanted.items() if found is not None}


def _files_of(file: Path) -> list[Path]:
    if not file.is_dir():
        return [file]
    found = sorted(path for path in file.iterdir() if path.is_file() and not path.name.startswith(".") and _is_data(path))
    if not found:
        raise NotFound(f"{file} is a folder without data files")
    return found


def _is_data(path: Path) -> bool:
    kinds = {suffix.lower() for suffix in path.suffixes}
    return bool(kinds & {".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".md", ".parquet"})


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _read_dropped(path: Path) -> list[Dropped] | None:
    """The rows of a file that other commands wrote of what they left out; None: it is none of these."""
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    rows = []
    with path.open("rb") as file:
        for line in file:
            try:
                row = orjson.loads(line)
            except ValueError:
                return None
            if not isinstance(row, dict) or not {"reason", "detail"} <= row.keys():
                return None
            rows.append(Dropped(source=_source(row), reason=str(row["reason"]), detail=str(row["detail"]), raw=_raw(row)))
    return rows or None


def _source(row: dict[str, Any]) -> Source:
    """Where a dropped row came from: `source` as `file:line`, or `path` and `line`."""
    path, _, line = str(row.get("source", "")).rpartition(":")
    if path and line.isdigit():
        return Source(path=path, line=int(line))
    number = row.get("line", 0)
    return Source(path=str(row.get("path") or row.get("source") or "unknown"), line=number if isinstance(number, int) else 0)


def _raw(row: dict[str, Any]) -> str:
    if isinstance(row.get("raw"), str):
        return str(row["raw"])
    rest = {key: value for key, value in row.items() if key not in {"reason", "detail", "source", "path", "line"}}
    return orjson.dumps(rest).decode() if rest else ""

"""A data report: rows in, one HTML page and one JSON file with the same figures out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith import __version__
from tunesmith.data import SourceConfig, read
from tunesmith.data.files import KINDS, local_files
from tunesmith.data.files.unpack import kind_of
from tunesmith.data.profile import (
    Lengths,
    answer_of,
    characters_of,
    count_languages,
    count_leaks,
    find_near,
    find_repeats,
    measure_lengths,
)
from tunesmith.data.rows import dropped_of, plain_dropped
from tunesmith.data.writing import check_outputs, open_outputs
from tunesmith.errors import DataError, NotFound
from tunesmith.pipeline import data_sections as sections
from tunesmith.pipeline.page import page
from tunesmith.pipeline.page_parts import Section, joined_figures
from tunesmith.records import Dropped, Record, Source

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat

__all__ = [
    "DataReport",
    "Measured",
    "Tokens",
    "chat_tokens",
    "data_report",
    "read_dropped",
    "report_on_files",
    "tokens_of",
]

NEAR = 0.7
"""Jaccard similarity of character 5-grams from which two rows are near-duplicates."""
SPLITS = ("train", "validation", "test")
_MOST_LOOKED_AT = {"languages": 20_000, "tokens": 20_000}
"""Rows, evenly drawn, for what takes longest; a share of so many is right to about half a per cent."""
_MOST_SEARCHED = 200_000
"""Rows, for near-duplicates: drawing some would miss most pairs, so of more none are looked for."""

CountTokens = Callable[[Iterable[Record]], Iterator[int]]
_REPORT = re.compile(
    rb"""(?s)<!doctype html>.*Content-Security-Policy" content="default-src 'none'; style-src|"""
    rb"""\{\s*"schema": \d+,\s*"tunesmith": """
)
"""How the page and the figures begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Who counts tokens: the tokens of each record, in order."""

    name: str
    digest: str
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
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it was made of, for the JSON."""

    def as_html(self) -> str:
        """One page that needs nothing else."""
        return page(self.title, self.sections)

    def as_json(self) -> dict[str, Any]:
        """The same figures as plain values."""
        return {"schema": 1, "tunesmith": __version__, "title": self.title, **self.facts, **joined_figures(self.sections)}

    def write(self, *, html: Path, json: Path | None = None) -> None:
        """Write the page, and the figures beside it; a file is there whole or not at all.

        Raises:
            OutOfSpace: the disk is full; what was there before is still there.
        """
        with open_outputs(html) as (page,):
            page.write(self.as_html().encode())
        if json is not None:
            with open_outputs(json) as (figures,):
                figures.write(orjson.dumps(self.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def data_report(
    title: str,
    measured: Measured,
    *,
    tokens: Tokens | None = None,
    more: Sequence[Section | None] = (),
    most_searched: int = _MOST_SEARCHED,
) -> DataReport:
    """Measure a data set and say what it is like.

    Args:
        title: what the page is called.
        measured: the rows.
        tokens: how to count tokens; None leaves them out.
        more: sections measured elsewhere, such as mixing, the token ledger or coverage; None is left out.
        most_searched: rows in which near-duplicates are looked for; in more of them none are.
    """
    records = [record for rows in measured.splits.values() for record in rows]
    num_read = measured.num_read if measured.num_read is not None else len(records) + len(measured.dropped)
    train = measured.splits.get("train", ())
    leaks = {name: count_leaks(train, rows) for name, rows in measured.splits.items() if name != "train" and train}
    from tunesmith.data.leakage import said_in

    languages = count_languages(map(said_in, _drawn(records, "languages")))
    near = find_near(measured.splits, threshold=NEAR) if records and len(records) <= most_searched else None
    found = [
        sections.counts_section(records, num_dropped=len(measured.dropped), formats=measured.formats or {}),
        sections.lengths_section(
            _lengths(records, tokens=tokens), tokenizer=tokens.name if tokens else None, num_rows=len(records)
        ),
        sections.languages_section(languages, num_rows=len(records)),
        sections.repeats_section(find_repeats(records)),
        sections.clusters_section(near) if near is not None else None,
        sections.unsearched_section(num_rows=len(records), most=most_searched) if len(records) > most_searched else None,
        sections.dropped_section(measured.dropped, num_read=num_read),
        sections.splits_section(measured.splits, leaks=leaks, near=near),
        *more,
    ]
    return DataReport(title=title, sections=tuple(section for section in found if section is not None))


def report_on_files(
    files: Sequence[Path], *, tokens: Tokens | None = None, outputs: Sequence[tuple[str, Path]] = ()
) -> DataReport:
    """Report on data files, or folders of them.

    Files called train, validation and test are taken for splits; rows with `reason` and `detail`, as other commands write them, for
    rows that were dropped.

    Args:
        files: what is read.
        tokens: how to count tokens; None leaves them out.
        outputs: what is going to be written, each under the name by which users know it.

    Raises:
        NotFound: there is no such file.
        DataError: a file cannot be read.
        UserError: an output would replace one of the files, or another output.
    """
    splits: dict[str, list[Record]] = {}
    dropped: list[Dropped] = []
    formats: dict[str, str] = {}
    paths = {path: file.is_dir() for file in files for path in _files_of(file)}
    check_outputs(outputs, sources=paths)
    are_splits = {_stem(path) for path in paths} >= {"train", "test"}
    for path, is_of_folder in paths.items():
        set_aside = read_dropped(path)
        if set_aside is not None:
            dropped += set_aside
            continue
        try:
            reading = read(SourceConfig(path=str(path)), folder=Path())
        except (DataError, NotFound) as error:
            if not is_of_folder:
                raise
            dropped.append(Dropped(source=Source(path=str(path), line=1), reason="unreadable_file", detail=str(error)))
            continue
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


def tokens_of(base: str | None) -> Tokens | None:
    """Count tokens as a base reads them.

    Args:
        base: a folder with a tokenizer. None: the embedded base, if there is one.

    Raises:
        ModelError: the folder holds no tokenizer that can be read.
    """
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model.base import EMBEDDED, open_base

    if base is not None:
        return chat_tokens(ChatFormat.load(Path(base)), name=base)
    try:
        folder = open_base(EMBEDDED, folder=Path(), cache=Path())
    except NotFound:
        return None
    return chat_tokens(ChatFormat.load(folder.path), name=EMBEDDED)


def chat_tokens(chat: ChatFormat, *, name: str) -> Tokens:
    """Count tokens as a chat format lays rows out; a row that its template refuses has none."""

    def count(records: Iterable[Record]) -> Iterator[int]:
        for rendered in chat.render_many(records):
            yield 0 if isinstance(rendered, Dropped) else sum(len(one.tokens) for one in rendered)

    return Tokens(name=name, digest=chat.digest, count=count)


def _lengths(records: Sequence[Record], *, tokens: Tokens | None) -> dict[str, tuple[str, Lengths]]:
    """What is measured, in the order in which it is shown."""
    wanted = {
        "turns": ("messages", measure_lengths(len(r.messages) for r in records if r.messages)),
        "answers": ("characters", measure_lengths(len(answer_of(r)) for r in records if r.messages)),
        "rows": ("characters", measure_lengths(map(characters_of, records))),
    }
    if tokens is not None:
        wanted["rows as the model reads them"] = ("tokens", measure_lengths(tokens.count(_drawn(records, "tokens"))))
    return {name: (unit, found) for name, (unit, found) in wanted.items() if found is not None}


def _files_of(file: Path) -> list[Path]:
    if not file.is_dir():
        return [file]
    found = [path for path in local_files(str(file)) if _is_data(path)]
    if not found:
        raise NotFound(f"{file} is a folder without data files")
    return found


def _is_data(path: Path) -> bool:
    """Whether a file of a folder is of a kind that is read, and no report that this command wrote beside the rows."""
    if kind_of(path.name)[0] not in KINDS and path.suffix.lower() != ".zip":
        return False
    if path.suffix not in {".html", ".json"} or not path.is_file():
        return True
    with path.open("rb") as file:
        return _REPORT.match(file.read(1000)) is None


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _drawn(records: Sequence[Record], what: str) -> Sequence[Record]:
    """As many rows, evenly drawn, as may be looked at."""
    return records[:: max(-(-len(records) // _MOST_LOOKED_AT[what]), 1)]


def read_dropped(path: Path) -> list[Dropped] | None:
    """The rows of a file that other commands wrote of what they left out; None: it is none of these."""
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    rows = []
    with path.open("rb") as file:
        for line in file:
            try:
                rows.append(_dropped(orjson.loads(line)))
            except (ValueError, KeyError, TypeError):
                return None
    return rows or None


def _dropped(plain: dict[str, Any]) -> Dropped:
    """A dropped row; of one that was written whole, with all its keys, these are its text."""
    row = dropped_of(plain)
    rest = {key: value for key, value in plain.items() if key not in {*plain_dropped(row), "path", "line"}}
    return row if row.raw or not rest else replace(row, raw=orjson.dumps(rest).decode())

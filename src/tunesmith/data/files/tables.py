"""CSV, TSV and parquet to rows.

A quote astray in a table costs its own line and no other: the line becomes a bad row, and reading goes on with the next one.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain
from typing import IO, Any

from tunesmith.data.files.rows import BadRow, RawRow, kept_text, shortened
from tunesmith.errors import DataError

__all__ = ["parquet_rows", "table_rows"]

_MAX_FIELD = 64 << 20
_MAX_AHEAD = 16 << 20
"""Characters on further lines within which a cell's quote has to be closed. Whole books fit."""
_LINE_COST = 60
"""Bytes that a held line takes beside its characters, so that many short ones do not fill the memory."""
_BATCH = 1000
_SEPARATOR = re.compile(r'"?sep=([^"\w\s]|\t)"?', re.IGNORECASE)


def table_rows(file: IO[bytes], *, delimiters: str, name: str) -> Iterator[RawRow]:
    """Read a table whose first line names its columns; the delimiter is the one that cuts that line into most.

    A line `sep=;` may stand before it, by which Excel is told the delimiter.

    Raises:
        DataError: the header lacks a name or has one twice.
    """
    csv.field_size_limit(_MAX_FIELD)
    # A byte that is not UTF-8 becomes a lone surrogate, which makes only its own row bad.
    with io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="") as text:
        header_line, number = text.readline(_MAX_FIELD), 1
        if said := _SEPARATOR.fullmatch(header_line.rstrip("\r\n")):
            header_line, number, delimiters = text.readline(_MAX_FIELD), 2, said[1]
        if not header_line.strip():
            return
        delimiter, header = max(((sign, _header(header_line, sign)) for sign in delimiters), key=lambda found: len(found[1]))
        if re.match(r'\[?\{\s*"', header_line):
            raise DataError(
                f"{name}:{number}  the file holds JSON and is named as a table. Name it .jsonl, or .json if it is one value."
            )
        header = _named(header)
        if not header or len(set(header)) != len(header):
            twice = next((column for column in header if header.count(column) > 1), "")
            what = f"`{twice}` stands twice" if twice else "it has none"
            shown = shortened(header_line.strip())
            raise DataError(f"{name}:{number}  the header needs a name for each column, and each name once: {what} in {shown}")
        yield from _rows(text, header=header, delimiter=delimiter, line=number + 1)


def _rows(lines: Iterable[str], *, header: list[str], delimiter: str, line: int) -> Iterator[RawRow]:
    """Cut a table into rows; every line that is not blank is in exactly one of them.

    A row goes on over lines as long as a quote is open. Where that quote turns out to be astray, the lines up to the one where that
    showed are read each by itself: a quote that one of them opens would lead to the same place. So no line is read more than a few
    times, however many quotes are astray.
    """
    held: list[str] = []
    again: list[str] = []
    while True:
        reader = csv.reader(_held_back(chain(again, lines), held), delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                if not any(map(str.strip, fields)):  # a blank line, or one of empty cells, as Excel writes below a table
                    line += len(held)
                    held.clear()
                    continue
                content = _columns(header, fields)
                text, num_lines = held[0], len(held)
                if num_lines > 1:
                    if isinstance(content, BadRow) and _are_rows(held[1:-1], header=header, delimiter=delimiter):
                        break  # two quotes astray in two rows
                    text = "".join(held)
                yield RawRow(line, content, _kept(text, content))
                line += num_lines
                held.clear()
            else:
                return
        except csv.Error:
            pass  # what is wrong is told below, of the line where it is
        again = held[-1:] if len(held) > 1 else []
        for text in held[: len(held) - len(again)]:
            if alone := _alone(text, header=header, delimiter=delimiter):
                yield RawRow(line, alone, _kept(text, alone))
            line += 1
        held.clear()


def _held_back(lines: Iterable[str], held: list[str]) -> Iterator[str]:
    """The same lines, each put into `held`, which whoever reads them empties behind each row.

    Raises:
        csv.Error: a row has gone on for too long.
    """
    ahead = 0
    for line in lines:
        ahead = ahead + len(line) + _LINE_COST if held else 0
        held.append(line)
        if ahead > _MAX_AHEAD:
            raise csv.Error
        yield line


def _are_rows(lines: Sequence[str], *, header: list[str], delimiter: str) -> bool:
    """Whether nine tenths of the lines that are not blank are rows, each by itself: the lines of a text hardly are."""
    contents = [content for line in lines if (content := _alone(line, header=header, delimiter=delimiter))]
    num_bad = sum(isinstance(content, BadRow) for content in contents)
    return len(contents) > 0 and 10 * num_bad <= len(contents)


def _alone(line: str, *, header: list[str], delimiter: str) -> dict[str, Any] | BadRow | None:
    """A line read by itself: what it holds, what is wrong with it, or None for a blank one."""
    try:
        fields = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        # The reader's own words for the two faults: `unexpected end of data`, and `',' expected after '"'`.
        wrong = "a quote is opened and not closed" if str(error).startswith("unexpected") else str(error)
        told = f"not valid CSV: {wrong}: {shortened(line.strip())}. Close the quote, or write one within a quoted cell twice."
        return BadRow("malformed_csv", told)
    return _columns(header, fields) if any(map(str.strip, fields)) else None


def _kept(text: str, content: dict[str, Any] | BadRow) -> str:
    """The text of a row: of a bad one all of it."""
    text = text.rstrip("\r\n")
    if isinstance(content, BadRow):
        return kept_text(text)
    return text if len(text) <= 2000 and text.isascii() else shortened(text, length=2000)


def parquet_rows(file: IO[bytes], *, name: str) -> Iterator[RawRow]:
    """Read a parquet file batch by batch; a row's line is its number.

    Raises:
        DataError: it is not sound parquet.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with tempfile.TemporaryFile() as copy:
        if not file.seekable():
            while block := file.read(1 << 20):
                copy.write(block)
            file = copy
        try:
            number = 0
            for batch in parquet.ParquetFile(pa.PythonFile(file, mode="r")).iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    content = {str(key).strip().lower(): _plain(value) for key, value in row.items()}
                    yield RawRow(number, content, shortened(content, length=2000))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{name}: the file is not sound parquet ({shortened(str(error), length=200)}). Write it again."
            ) from error


def _plain(value: Any) -> Any:
    """A value as JSON has it; times and decimals as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, datetime | date | time | Decimal) else value


def _header(line: str, delimiter: str) -> list[str]:
    try:
        columns = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
    return [column.strip().lower() for column in columns]


def _named(header: list[str]) -> list[str]:
    """Every column with a name. Empty ones on the right are none, as Excel writes them; others, such as an index, get their number."""
    while header and not header[-1]:
        header = header[:-1]
    return [column or f"column {number}" for number, column in enumerate(header, start=1)]


def _columns(header: list[str], fields: list[str]) -> dict[str, Any] | BadRow:
    if not any(map(str.strip, fields[len(header) :])):
        fields = fields[: len(header)]
    if len(fields) != len(header):
        reason = "too_many_columns" if len(fields) > len(header) else "too_few_columns"
        return BadRow(reason, f"{len(fields)} columns where the header has {len(header)}: {shortened(','.join(fields))}")
    return dict(zip(header, fields, strict=True))

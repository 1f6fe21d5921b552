"""CSV, TSV and parquet to rows."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import IO, Any

from tunesmith.data.files.rows import BadRow, RawRow, shortened
from tunesmith.errors import DataError

__all__ = ["parquet_rows", "table_rows"]

_MAX_FIELD = 64 << 20
_BATCH = 1000


def table_rows(file: IO[bytes], *, delimiters: str, name: str) -> Iterator[RawRow]:
    """Read a table whose first line names its columns; the delimiter is the one that cuts that line into most.

    Raises:
        DataError: the header lacks a name or has one twice.
    """
    csv.field_size_limit(_MAX_FIELD)
    # A byte that is not UTF-8 becomes a lone surrogate, which makes only its own row bad.
    with io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="") as text:
        header_line = text.readline(_MAX_FIELD)
        if not header_line.strip():
            return
        delimiter, header = max(((sign, _header(header_line, sign)) for sign in delimiters), key=lambda found: len(found[1]))
        if len(set(header)) != len(header) or "" in header:
            shown = shortened(header_line.strip())
            raise DataError(f"{name}:1  the header needs a name for each column, and each name once; it is {shown}")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 2  # the reader has not seen the header
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield RawRow(line, BadRow("malformed_csv", f"not valid CSV: {error}. Is a quote left open?"), "")
                continue
            if fields:
                yield RawRow(line, _columns(header, fields), shortened(delimiter.join(fields), length=2000))


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


def _columns(header: list[str], fields: list[str]) -> dict[str, Any] | BadRow:
    if len(fields) != len(header):
        reason = "too_many_columns" if len(fields) > len(header) else "too_few_columns"
        return BadRow(reason, f"{len(fields)} columns where the header has {len(header)}: {shortened(','.join(fields))}")
    return dict(zip(header, fields, strict=True))

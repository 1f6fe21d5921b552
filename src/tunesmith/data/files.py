"""Files to raw rows: JSON lines, CSV, TSV and plain text, each plain or gzipped, read in constant memory.

Knows nothing of formats. A row is an object with its keys in lower case; what cannot be one is a `BadRow` at its line.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, NamedTuple

from tunesmith.data.formats import BadRow, shortened
from tunesmith.errors import DataError

__all__ = ["RawRow", "read_rows"]

_BLOCK = 4000
"""Characters: paragraphs of a text file are joined into one record up to about this many."""

_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class RawRow(NamedTuple):
    """One row as it lies in its file: the line it starts on, its content or what is wrong with it, and its raw text."""

    line: int
    content: dict[str, Any] | BadRow
    raw: str


def read_rows(path: Path, *, name: str) -> Iterator[RawRow]:
    """Read a file's rows one by one.

    Args:
        path: the file; its kind is told by its suffix.
        name: what messages call it.

    Raises:
        DataError: the kind is unknown, or the file as a whole cannot be read (not gzip, UTF-16, a header without columns).
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    with _opened(path, name=name) as file:
        if kind in {".jsonl", ".ndjson", ".json"}:
            yield from _json_lines(file)
        elif kind in {".csv", ".tsv"}:
            yield from _table(file, delimiters="\t" if kind == ".tsv" else ",;\t", name=name)
        elif kind in {".txt", ".md"}:
            yield from _paragraphs(file)
        else:
            raise DataError(
                f"{name}: files of kind `{kind or 'no suffix'}` are not read. Known: .jsonl .ndjson .json .csv .tsv .txt .md, "
                "each also with .gz."
            )


@contextmanager
def _opened(path: Path, *, name: str) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            start = file.read(2)
            if start in _OTHER_BOMS:
                raise DataError(f"{name}: the file is {_OTHER_BOMS[start]}. Save it as UTF-8.")
            file.seek(0)
            yield file  # type: ignore[misc]  # GzipFile reads bytes like any other
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name}: the file is not sound gzip ({error}). Copy or download it again.") from error
    except OSError as error:
        raise DataError(f"{name}: the file cannot be read ({error.strerror or error})") from error


def _json_lines(file: IO[bytes]) -> Iterator[RawRow]:
    for number, line in enumerate(file, start=1):
        stripped = (line.removeprefix(_BOM) if number == 1 else line).strip()
        if stripped:
            raw = stripped[:2000].decode("utf-8", "backslashreplace")
            try:
                content: dict[str, Any] | BadRow = _object(stripped)
            except BadRow as bad:
                content = bad
            yield RawRow(number, content, raw)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        place = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
        raise BadRow("encoding", f"not UTF-8: {place}. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise BadRow(
            "malformed_json", f"not valid JSON: {error.msg} at column {error.colno}: {shortened(line.decode())}"
        ) from error
    except RecursionError as error:
        raise BadRow("malformed_json", "not valid JSON: nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BadRow("malformed_json", f"not valid JSON: {shortened(str(error))}") from error
    if not isinstance(value, dict):
        hint = " Write one object on each line, not one array around all." if isinstance(value, list) else ""
        raise BadRow("not_an_object", f"the line is {type(value).__name__}, not an object: {shortened(line.decode())}.{hint}")
    return {key.strip().lower(): item for key, item in value.items()}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow("duplicate_key", f"the key `{shortened(twice)}` stands twice in one object, so its value is not known")
    return found


def _refuse_constant(name: str) -> object:
    raise BadRow("malformed_json", f"not valid JSON: {name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def _table(file: IO[bytes], *, delimiters: str, name: str) -> Iterator[RawRow]:
    csv.field_size_limit(2**31 - 1)
    # A byte that is not UTF-8 becomes a lone surrogate, which makes only its own row bad.
    with TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        header_line = text.readline()
        if not header_line.strip():
            return
        delimiter, header = max(
            ((sign, next(csv.reader([header_line], delimiter=sign), [])) for sign in delimiters), key=lambda found: len(found[1])
        )
        header = [column.strip().lower() for column in header]
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


def _columns(header: list[str], fields: list[str]) -> dict[str, Any] | BadRow:
    if len(fields) != len(header):
        reason = "too_many_columns" if len(fields) > len(header) else "too_few_columns"
        return BadRow(reason, f"{len(fields)} columns where the header has {len(header)}: {shortened(','.join(fields))}")
    return dict(zip(header, fields, strict=True))


def _paragraphs(file: IO[bytes]) -> Iterator[RawRow]:
    """Blank lines separate paragraphs; whole paragraphs are joined while they stay within `_BLOCK` characters."""
    block: list[str] = []
    start = size = 0
    for number, paragraph in _blank_separated(file):
        if block and size + len(paragraph) > _BLOCK:
            yield _text_row(start, block)
            block, size = [], 0
        if not block:
            start = number
        block.append(paragraph)
        size += len(paragraph) + 2
    if block:
        yield _text_row(start, block)


def _blank_separated(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    lines: list[str] = []
    start = 1
    for number, line in enumerate(file, start=1):
        text = (line.removeprefix(_BOM) if number == 1 else line).decode("utf-8", "surrogateescape").rstrip("\r\n")
        if text.strip():
            if not lines:
                start = number
            lines.append(text)
        elif lines:
            yield start, "\n".join(lines)
            lines = []
    if lines:
        yield start, "\n".join(lines)


def _text_row(line: int, block: list[str]) -> RawRow:
    text = "\n\n".join(block)
    return RawRow(line, {"text": text}, shortened(text, length=2000))

"""JSON files to rows: one object a line, one array around all, objects one after another, or columns.

One value is held at a time, whatever the file's size. An array's element that is broken is a bad row, and those after it are read.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import IO, Any, NamedTuple

import orjson

from tunesmith.data.files.rows import SAVE_OR_NAME, BadRow, RawRow, kept_text, shortened
from tunesmith.data.files.strict_json import exact_json, told_of
from tunesmith.errors import DataError

__all__ = ["Layout", "json_layout", "json_rows"]

Line = tuple[int, bytes | BadRow]

_BLANK = b" \t\r\n"
_BLOCK = 1 << 20
_MAX_VALUE = 256 << 20
_KEY = re.compile(rb'"\s*:')
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},"]', re.DOTALL)
_ROWS_UNDER = frozenset({"data", "rows", "train", "test", "validation", "dev", "examples", "items", "records"})


class Layout(NamedTuple):
    """How values lie in a file, and what people are told of it; empty for the plainest."""

    name: str
    told: str = ""


_LINES = Layout("lines")
_VALUES = Layout("values")
_PYTHON = Layout("python", "Python literals, one a line, read as such")


def json_layout(file: IO[bytes], *, kind: str) -> Layout:
    """Tell from its beginning how a JSON file is laid out."""
    found = islice((line for _, line in _lines(file) if isinstance(line, bytes)), 20)
    first = next(found, b"")
    second = next(found, b"")
    if first[:1] == b"[":
        is_rows = bool(second) and _is_json(first)
        return _LINES if is_rows else _VALUES
    if first[:1] == b"{" and _is_json(first):
        return _LINES if second or kind != ".json" else _VALUES
    if first[:1] == b"{" and (first[-1:] in b"{[,:" or kind == ".json"):
        return _VALUES
    lines = [line for line in (first, second, *found) if line]
    if kind != ".json" and len(lines) > 2 and all(not _is_json(line) and _literal(line) is not None for line in lines):
        return _PYTHON
    return _LINES


def json_rows(file: IO[bytes], layout: Layout) -> Iterator[RawRow]:
    """Read rows of a known layout."""
    if layout.name == "values":
        yield from _value_rows(file)
        return
    for number, line in _lines(file):
        if isinstance(line, BadRow):
            yield RawRow(number, line, "")
        elif layout.name == "python":
            yield _row(number, line, value=_literal(line))
        else:
            yield _row(number, line)


def _lines(file: IO[bytes]) -> Iterator[Line]:
    """Every line that is not blank, with its number; one without end is passed over in pieces."""
    number = 0
    while line := file.readline(_MAX_VALUE):
        number += 1
        if len(line) == _MAX_VALUE and not line.endswith(b"\n"):
            while (rest := file.readline(_BLOCK)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow("too_long", f"the line is longer than {_MAX_VALUE:,} bytes: {shortened(line[:60])}")
            continue
        if stripped := line.strip(_BLANK):
            yield number, stripped


def _row(number: int, data: bytes, *, value: object = None, is_file: bool = False) -> RawRow:
    try:
        content = _checked(_parsed(data, is_file=is_file) if value is None else value, data)
    except BadRow as bad:
        return RawRow(number, bad, kept_text(data))
    return RawRow(number, content, data[:2000].decode("utf-8", "backslashreplace"))


def _checked(value: object, data: bytes) -> dict[str, Any]:
    if isinstance(value, list) and _is_turns(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        shown = shortened(data.decode("utf-8", "backslashreplace"))
        raise BadRow(
            "not_an_object", f"the row is {type(value).__name__}, not an object: {shown}. Write one object on each line."
        )
    return {key.strip().lower() if isinstance(key, str) else str(key): item for key, item in value.items()}


def _parsed(data: bytes, *, is_file: bool = False) -> object:
    """Parse strictly. The fast parser takes the last of two equal keys in silence, so keys are counted.

    It also forgets how a fraction is written, which a label must not: a row that has one, or a file of rows in one object, is parsed
    exactly. What lies deeper in a row is no label.
    """
    try:
        value = orjson.loads(data)
        may_be_label = is_file or (isinstance(value, dict) and float in map(type, value.values()))
        if not may_be_label and _num_keys(value) == _num_keys_written(data):
            return value
    except (orjson.JSONDecodeError, OverflowError):
        pass
    try:
        return exact_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at position {error.start + 1}"
        raise BadRow("encoding", f"not UTF-8: {place}. {SAVE_OR_NAME}") from error
    except json.JSONDecodeError as error:
        where = f"at column {error.colno}" if error.lineno == 1 else f"at column {error.colno} of its line {error.lineno}"
        raise BadRow("malformed_json", f"not valid JSON: {told_of(error)} {where}: {shortened(data.decode())}") from error
    except RecursionError as error:
        raise BadRow("malformed_json", "not valid JSON: nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BadRow("malformed_json", f"not valid JSON: {shortened(str(error))}") from error


def _num_keys(value: object) -> int:
    """Keys of all objects in a value; far below 0 if it holds numbers that only the exact parser reads exactly."""
    count = len(value) if isinstance(value, dict) else 0
    inner: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        if isinstance(item, dict | list):
            count += _num_keys(item)
        elif isinstance(item, float) and abs(item) >= 1 << 63:
            return -(1 << 40)
    return count


def _num_keys_written(data: bytes) -> int:
    """Keys that a text may hold: at least as many as it does."""
    if any(blank in data for blank in (b" :", b"\t:", b"\n:", b"\r:")):
        return len(_KEY.findall(data))
    return data.count(b'":')


def _is_json(data: bytes) -> bool:
    try:
        _parsed(data)
    except BadRow as bad:
        return bad.reason == "duplicate_key"
    return True


def _literal(data: bytes) -> dict[Any, Any] | None:
    """The mapping that a Python literal spells; nothing is run. Python joins two texts between which a comma is missing: that is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            text = data.decode("utf-8")
            value = ast.literal_eval(text)
            return value if isinstance(value, dict) and not _joins_texts(text) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
        return None


def _joins_texts(literal: str) -> bool:
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(literal.strip()).readline) if token.type != tokenize.NL]
    return any(one == other == tokenize.STRING for one, other in pairwise(kinds))


class _Piece(NamedTuple):
    """The text of one value, the line it starts on, whether it lies in an array, and what is wrong with where it stands."""

    line: int
    data: bytes
    is_element: bool
    bad: BadRow | None = None


def _value_rows(file: IO[bytes]) -> Iterator[RawRow]:
    pieces = _Cutter(file).pieces()
    first, second = next(pieces, None), next(pieces, None)
    if first and not second and not first.is_element and not first.bad:
        yield from _expanded(first.line, first.data)
        return
    for piece in chain((piece for piece in (first, second) if piece), pieces):
        yield RawRow(piece.line, piece.bad, kept_text(piece.data)) if piece.bad else _row(piece.line, piece.data)


def _expanded(line: int, data: bytes) -> Iterator[RawRow]:
    """The rows of a file that is one object: its columns, the list or lists of rows it holds, or itself."""
    whole = _row(line, data, is_file=True)
    if isinstance(whole.content, BadRow):
        yield whole
        return
    rows = list(_inner_rows(whole.content))
    places = next((found for depth in (2, 1) if len(found := _lines_of_objects(data, depth=depth)) == len(rows) > 1), None)
    for row, further in zip(rows, places or [0] * len(rows), strict=True):
        raw = whole.raw if row is whole.content else orjson.dumps(row, default=_plain)[:2000].decode("utf-8", "replace")
        yield RawRow(line + further, {str(key).strip().lower(): value for key, value in row.items()}, raw)


def _plain(value: object) -> object:
    return float(value) if isinstance(value, float) else str(value)


def _lines_of_objects(data: bytes, *, depth: int) -> list[int]:
    """How many lines further down the objects begin that lie so deep: in lists of the whole object (2), or in it itself (1)."""
    lines: list[int] = []
    level = line = seen = 0
    for token in _TOKEN.finditer(data):
        if token[0] in {b"[", b"{"}:
            if level == depth and token[0] == b"{":
                line += data.count(b"\n", seen, token.start())
                seen = token.start()
                lines.append(line)
            level += 1
        elif token[0] in {b"]", b"}"}:
            level -= 1
    return lines


def _inner_rows(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    lists = {key: item for key, item in value.items() if isinstance(item, list)}
    held = {
        key: rows for key, rows in lists.items() if key in _ROWS_UNDER and rows and all(isinstance(row, dict) for row in rows)
    }
    only = next(iter(lists.values())) if len(value) == len(lists) == 1 else []
    if held:
        yield from chain(*held.values())
    elif only and all(isinstance(row, dict) for row in only) and not _is_turns(only):
        yield from only
    elif (
        len(lists) == len(value) and len({len(item) for item in lists.values()}) == 1 and not any(map(_is_turns, lists.values()))
    ):
        yield from (dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True))
    elif len(value) > 1 and all(isinstance(item, dict) for item in value.values()):
        yield from value.values()
    else:
        yield value


def _is_turns(value: list[Any]) -> bool:
    return any(isinstance(item, dict) and {"role", "from", "speaker"} & item.keys() for item in value)


class _Cutter:
    """Cuts a stream into the values of the top level, or of an array there, without parsing them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._buffer = b""
        self._start = 0  # of the piece being read
        self._at = 0  # scanned so far
        self._line = 1  # of `_start`
        self._depth = 0
        self._in_array = False
        self._num_elements = 0
        self._num_closed = 0

    def pieces(self) -> Iterator[_Piece]:
        """Every value in order, and what stands where none may."""
        while True:
            while match := _TOKEN.search(self._buffer, self._at):
                if match[0] == b'"':
                    break  # the string goes on in the next block
                self._at = match.end()
                yield from self._taken(match[0])
            block = self._file.read(max(_BLOCK, len(self._buffer)))
            if not block:
                break
            self._at = match.start() - self._start if match else len(self._buffer) - self._start
            self._buffer = self._buffer[self._start :] + block
            self._start = 0
            if len(self._buffer) > _MAX_VALUE + _BLOCK and self._at > _MAX_VALUE:
                raise DataError(
                    f"line {self._line}: one JSON value is longer than {_MAX_VALUE:,} bytes. Write one object a line."
                )
        rest = self._cut(len(self._buffer))
        if self._in_array or self._depth:
            shown = shortened(rest.data[:300].decode("utf-8", "backslashreplace"))
            yield rest._replace(bad=BadRow("malformed_json", f"not valid JSON: the file ends inside a value: {shown}"))
        elif rest.data:
            yield rest

    def _taken(self, token: bytes) -> Iterator[_Piece]:
        is_outer = self._depth == 0
        if token in b"[{":
            if is_outer and not self._in_array and token == b"[" and not self._text_before(1):
                yield from self._entered()
            else:
                self._depth += 1
        elif token in b"]}":
            if not is_outer:
                self._depth -= 1
                if self._depth == 0 and not self._in_array:
                    yield self._cut(self._at)
                    self._num_closed += 1
            elif self._in_array and token == b"]":
                yield from self._left()
        elif token == b"," and is_outer and self._in_array:
            yield from self._element()

    def _text_before(self, width: int) -> bytes:
        return self._buffer[self._start : self._at - width].strip(_BLANK)

    def _entered(self) -> Iterator[_Piece]:
        gap = self._buffer[self._start : self._at - 1]
        if self._num_closed and b"\n" not in gap:
            bad = BadRow("malformed_json", "not valid JSON: an array begins right behind another value")
            yield _Piece(self._line, gap.strip(_BLANK), is_element=False, bad=bad)
        self._skip()
        self._in_array, self._num_elements = True, 0

    def _left(self) -> Iterator[_Piece]:
        if self._num_elements or self._text_before(1):
            yield from self._element()
        self._skip()
        self._in_array = False
        self._num_closed += 1

    def _element(self) -> Iterator[_Piece]:
        self._num_elements += 1
        piece = self._cut(self._at - 1, skip=1)
        missing = BadRow("malformed_json", "not valid JSON: a value is missing before a comma or the end of the array")
        yield piece if piece.data else piece._replace(bad=missing)

    def _skip(self) -> None:
        self._cut(self._at)

    def _cut(self, end: int, *, skip: int = 0) -> _Piece:
        """Take the text up to `end` and go on behind it."""
        text = self._buffer[self._start : end]
        data = text.strip(_BLANK)
        before = text[: len(text) - len(text.lstrip(_BLANK))]
        line = self._line + before.count(b"\n")
        self._line += text.count(b"\n")
        self._start = end + skip
        if data and self._num_closed and not self._in_array and b"\n" not in before:
            shown = shortened(text.decode("utf-8", "backslashreplace"))
            bad = BadRow("malformed_json", f"not valid JSON: more on the line behind a value: {shown}")
            return _Piece(line, data, self._in_array, bad)
        return _Piece(line, data, self._in_array)

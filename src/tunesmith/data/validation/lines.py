"""A file to raw rows, with everything that can be wrong with a line.

JSON lines are parsed by orjson; only a line that it refuses, or whose count of keys does not add up, goes to the slower parser
that knows why. Other kinds of files come from `data.files`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from tunesmith.data.files import BadRow, File, examine, find_parts, shortened
from tunesmith.data.files.strict_json import WrittenFloat, exact_json, told_of
from tunesmith.data.files.unpack import open_part
from tunesmith.data.validation.codes import CODES
from tunesmith.data.validation.finding import Found, kind_of
from tunesmith.data.validation.tolerant import Slip, parse
from tunesmith.errors import DataError

__all__ = ["Line", "exact_row", "files_of", "lines_of", "mended_line"]

_BOM = b"\xef\xbb\xbf"
_LINE_KINDS = {".jsonl", ".ndjson", ".json"}
_SPACED_KEY = re.compile(rb'"\s+:')


class Line(NamedTuple):
    """One row as it stands in its file. `row` is None where it is no object; `found` says what is wrong with the line itself."""

    number: int
    row: dict[str, Any] | None
    found: tuple[Found, ...]
    raw: bytes
    """The line without its end and without blanks around it."""
    num_bytes: int = 0
    """Bytes of the file up to the end of this line; 0 where nobody counts."""
    is_json: bool = False
    """Whether `raw` is the whole row, as JSON."""

    @property
    def text(self) -> str:
        """The line as text from which its bytes can be had again."""
        return self.raw.decode("utf-8", "surrogateescape")


def files_of(given: str) -> tuple[list[File], tuple[str, ...]]:
    """Find and look at the files that a path, a folder, a pattern, an archive or a URL names; and name those of no known kind.

    Raises:
        NotFound: there is none.
        DataError: one cannot be read, or is of no known kind.
    """
    found = find_parts(given, folder=Path())
    if found.refused:
        first = found.refused[0]
        raise DataError(f"{first.source.path}: {first.detail}")
    is_one = len(found.parts) == 1 and Path(given).is_file()
    return [examine(part._replace(name=given) if is_one else part) for part in found.parts], found.skipped


def lines_of(file: File) -> Iterator[Line]:
    """Read a file row by row.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    if _is_plain_lines(file):
        with open_part(file.part) as opened:
            yield from _json_lines(opened, counts_bytes=not file.part.packing)
        return
    for raw in file.rows:
        shown = raw.raw.encode("utf-8", "backslashreplace")
        if isinstance(raw.content, BadRow):
            yield Line(raw.line, None, (_reader_found(raw.content),), shown)
        else:
            yield Line(raw.line, raw.content, (), shown)


def _is_plain_lines(file: File) -> bool:
    """Whether a file has one JSON object on each line, in UTF-8: then each line is looked at as it stands."""
    kind, layout = file.part.kind, file.layout.name
    if kind not in _LINE_KINDS or not file.encoding.name.startswith("utf-8"):
        return False
    if layout in {"lines", "python"} or kind == ".json":
        return layout == "lines"
    # A file of lines whose first is the only one, or is broken, may be taken for one value over many lines.
    with open_part(file.part) as opened:
        first = next((line for line in islice(opened, 1000) if line.strip()), b"").removeprefix(_BOM).strip()
    if first.startswith(b"["):
        with suppress(ValueError):
            return not any(isinstance(row, dict) for row in orjson.loads(first))
        return False
    return not first.endswith((b"{", b"[", b":"))


def exact_row(line: Line) -> dict[str, Any]:
    """The row with its numbers as they are written: orjson turns what is beyond 64 bits into a float, and `1.50` into 1.5."""
    if line.is_json:
        with suppress(BadRow, ValueError, RecursionError):
            value = exact_json(line.text)
            if isinstance(value, dict):
                return value
    return dict(line.row or {})


def mended_line(line: Line) -> tuple[dict[str, Any], list[Slip]] | None:
    """The object that a broken line was surely meant to be, and the slips in it (`tolerant.parse`); None if nobody can be sure."""
    with suppress(ValueError, RecursionError):
        value, slips = parse(line.text.strip())
        return (value, slips) if isinstance(value, dict) else None
    return None


def _json_lines(file: IO[bytes], *, counts_bytes: bool) -> Iterator[Line]:
    num_bytes = 0
    for number, line in enumerate(file, start=1):
        found: tuple[Found, ...] = ()
        num_bytes += len(line)
        if number == 1 and line.startswith(_BOM):
            found = (Found("byte_order_mark", "the file opens with a byte order mark", value="U+FEFF"),)
        raw = (line.removeprefix(_BOM) if found else line).strip()
        if not raw:
            yield Line(number, None, (*found, Found("blank_line", "the line is blank")), b"", num_bytes * counts_bytes)
            continue
        row, problem = _parsed(raw)
        if problem is not None:
            found = (*found, problem)
        yield Line(number, row, found, raw, num_bytes * counts_bytes, is_json=True)


def _parsed(raw: bytes) -> tuple[dict[str, Any] | None, Found | None]:
    try:
        value = orjson.loads(raw)
        if type(value) is dict and _shows_keys_once(raw, value):
            return value, None
    except ValueError:
        pass
    return _parsed_with_care(raw)


def _shows_keys_once(raw: bytes, value: dict[str, Any]) -> bool:
    """Whether a line shows as many keys as its value has. Inside a string, what looks like the end of a key has a backslash."""
    if raw.count(b'":') - raw.count(b'\\":') != _num_keys(value) or b'\\\\":' in raw:
        return False
    return not ((b" :" in raw or b"\t:" in raw or b"\r:" in raw) and _SPACED_KEY.search(raw))


def _num_keys(value: Any) -> int:
    """How many keys the objects in a value have together. Where the text of it shows more, some stand twice."""
    number = 0
    if type(value) is dict:
        number, value = len(value), value.values()
    for item in value:
        if type(item) is dict or type(item) is list:
            number += _num_keys(item)
    return number


def _parsed_with_care(raw: bytes) -> tuple[dict[str, Any] | None, Found | None]:
    """Parse a line that the fast parser would not, and say why."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
        return None, Found("not_utf8", what, value=raw[max(error.start - 20, 0) :][:60].decode("utf-8", "backslashreplace"))
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=WrittenFloat)
    except BadRow as bad:
        is_fixable = bad.reason == "duplicate_key" and _has_equal_duplicates(text)
        return None, Found(bad.reason, bad.detail, value=text, is_fixable=is_fixable)
    except (ValueError, RecursionError) as error:  # ValueError too: an integer of thousands of digits
        told = f"{told_of(error)} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else shortened(str(error))
        told = "nested too deeply" if isinstance(error, RecursionError) else told
        is_fixable = mended_line(Line(0, None, (), raw)) is not None
        return None, Found("malformed_json", f"not valid JSON: {told}", value=text, is_fixable=is_fixable)
    if isinstance(value, dict):
        return value, None
    hint = ". Write one object on each line, not one array around all" if isinstance(value, list) else ""
    return None, Found("data_type", f"the line is {kind_of(value)}, not an object{hint}", value=text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow("duplicate_key", f"the key `{shortened(twice)}` stands twice in one object, so its value is not known")
    return found


def _equal_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As above, but two equal values are one."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(key)
        found[key] = value
    return found


def _has_equal_duplicates(text: str) -> bool:
    try:
        json.loads(text, object_pairs_hook=_equal_duplicates)
    except ValueError:
        return False
    return True


def _refuse_constant(name: str) -> object:
    raise BadRow("malformed_json", f"not valid JSON: {name} is not a JSON value")


def _reader_found(bad: BadRow) -> Found:
    """What the reader of another kind of file says, under a code of ours."""
    names = {"encoding": "not_utf8", "not_an_object": "data_type"}
    code = names.get(bad.reason, bad.reason)
    code = code if code in CODES else "unusable"
    return Found(code, bad.detail.removesuffix(CODES[code].mend).rstrip(), is_fixable=False)  # the mend is told once, behind all

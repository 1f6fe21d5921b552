"""Files to raw rows, in constant memory: what is found, how it is unpacked, decoded and cut into rows. Knows no formats.

A row is an object with its keys in lower case; what cannot be one is a `BadRow` at its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from tunesmith.data.files import documents, tables
from tunesmith.data.files.encoding import UTF8, Encoding, as_utf8, encoding_of
from tunesmith.data.files.find import KINDS, Found, find_files, find_parts, local_files
from tunesmith.data.files.rows import BadRow, RawRow, shortened
from tunesmith.data.files.strict_json import strict_json
from tunesmith.data.files.unpack import Part, open_part
from tunesmith.data.files.values import Layout, json_layout, json_rows
from tunesmith.errors import DataError
from tunesmith.records import Source

__all__ = [
    "KINDS",
    "BadRow",
    "File",
    "Found",
    "Part",
    "RawRow",
    "examine",
    "find_files",
    "find_parts",
    "local_files",
    "made_of_rows",
    "read_rows",
    "shortened",
    "strict_json",
]

_BINARY = frozenset({".parquet", ".pdf", ".docx"})
_JSON = frozenset({".jsonl", ".ndjson", ".json"})
_SIGNATURES = {
    b"PK\x03\x04": "a zip, such as a workbook of Excel or a document of Word",
    b"\xd0\xcf\x11\xe0": "a workbook or document of an old Office",
    b"%PDF-": "a PDF",
    b"\x1f\x8b": "packed by gzip",
    b"(\xb5/\xfd": "packed by Zstandard",
    b"PAR1\x15": "parquet",
    b"SQLite f": "a data base of SQLite",
}
_MAX_SHOWN = 10
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that was looked at. `rows` reads it, anew each time.

    Raises:
        DataError: while reading, if the file as a whole is not sound.
    """

    part: Part
    encoding: Encoding
    layout: Layout

    @property
    def told(self) -> str:
        """What is worth telling of how it is read; empty for what everybody expects."""
        plain = self.encoding.name == "utf-8" and "not" not in self.encoding.evidence
        return "; ".join(filter(None, ("" if plain else str(self.encoding), self.layout.told)))

    @property
    def rows(self) -> Iterator[RawRow]:
        """Every row in order, in constant memory."""
        name, kind = self.part.name, self.part.kind
        with open_part(self.part) as raw:
            if kind == ".parquet":
                yield from tables.parquet_rows(raw, name=name)
            elif kind == ".pdf":
                yield from documents.pdf_rows(raw, name=name)
            elif kind == ".docx":
                yield from documents.docx_rows(raw, name=name)
            elif kind in {".html", ".htm"}:
                yield from documents.html_rows(raw, encoding=self.encoding, name=name)
            else:
                yield from self._text_rows(as_utf8(raw, self.encoding))

    def _text_rows(self, file: IO[bytes]) -> Iterator[RawRow]:
        kind = self.part.kind
        if kind in _JSON:
            return json_rows(file, self.layout)
        if kind in {".csv", ".tsv"}:
            return tables.table_rows(file, delimiters="\t" if kind == ".tsv" else ",;\t|", name=self.part.name)
        return documents.markdown_rows(file) if kind == ".md" else documents.text_rows(file)


def examine(part: Part, *, encoding: str | None = None) -> File:
    """Look at a file's encoding and layout.

    Args:
        part: the file.
        encoding: the encoding that the user names, if any.

    Raises:
        DataError: it cannot be read.
    """
    found = UTF8
    if part.kind not in _BINARY:
        _refuse_binary(part)
        if encoding:
            found = Encoding(encoding, "as data.sources[].encoding says")
            with open_part(part) as raw:  # a packed file that breaks off is told before any row of it is taken
                while part.is_packed and raw.read(1 << 20):
                    pass
        else:
            with open_part(part) as raw:
                found = encoding_of(raw)
    layout = Layout("")
    if part.kind in _JSON:
        with _text(part, found) as file:
            layout = json_layout(file, kind=part.kind)
    return File(part=part, encoding=found, layout=layout)


def read_rows(path: Path) -> Iterator[RawRow]:
    """Rows of a local file of any kind, its encoding and layout found out; a part of an archive that cannot be read is a bad row.

    Raises:
        NotFound: there is no such file.
        DataError: it cannot be read.
    """
    found = find_parts(str(path.absolute()), folder=Path())
    for part in found.parts:
        yield from examine(part).rows
    for refused in found.refused:
        yield RawRow(refused.source.line, BadRow(refused.reason, f"{refused.source.path}: {refused.detail}"), "")


def made_of_rows(path: Path, make: Callable[[dict[str, Any], Source], Made], *, what: str) -> list[Made]:
    """Make something of every row of a local file, or of none: for small files that people write by hand and must know the faults of.

    Args:
        path: the file.
        make: what is made of a row and its place; raises `BadRow` where it cannot be.
        what: ends the sentence about rows that are not as they should be, such as `cannot be scored`.

    Raises:
        DataError: a row is not as it should be; the first ten of them are named with their lines.
    """
    made: list[Made] = []
    wrong: list[str] = []
    for raw in read_rows(path):
        try:
            if isinstance(raw.content, BadRow):
                raise raw.content
            made.append(make(raw.content, Source(path=str(path), line=raw.line)))
        except BadRow as bad:
            wrong.append(f"{path}:{raw.line}  {bad.detail}")
    if wrong:
        more = [f"… and {len(wrong) - _MAX_SHOWN:,} more"] if len(wrong) > _MAX_SHOWN else []
        raise DataError("\n".join([*wrong[:_MAX_SHOWN], *more, f"{len(wrong):,} of {len(wrong) + len(made):,} rows {what}."]))
    return made


def _refuse_binary(part: Part) -> None:
    """Refuse a file of another kind than its name says, by the signature that it begins with."""
    with open_part(part) as raw:
        head = raw.read(8)
    kind = next((kind for signature, kind in _SIGNATURES.items() if head.startswith(signature)), None)
    if kind is not None:
        raise DataError(
            f"{part.name}: the file is {kind}, and no {part.kind or 'text'} as its name says. "
            "Give it its right name; a sheet of Excel has to be saved as `CSV UTF-8`."
        )


@contextmanager
def _text(part: Part, encoding: Encoding) -> Iterator[IO[bytes]]:
    with open_part(part) as raw:
        yield as_utf8(raw, encoding)

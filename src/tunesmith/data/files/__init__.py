"""Files to raw rows, in constant memory: what is found, how it is unpacked, decoded and cut into rows. Knows no formats.

A row is an object with its keys in lower case; what cannot be one is a `BadRow` at its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from tunesmith.data.files import documents, tables
from tunesmith.data.files.encoding import UTF8, Encoding, as_utf8, encoding_of
from tunesmith.data.files.find import KINDS, Found, find_files, find_parts
from tunesmith.data.files.rows import BadRow, RawRow, shortened
from tunesmith.data.files.unpack import Part, open_part
from tunesmith.data.files.values import Layout, json_layout, json_rows

__all__ = ["KINDS", "BadRow", "File", "Found", "Part", "RawRow", "examine", "find_files", "find_parts", "shortened"]

_BINARY = frozenset({".parquet", ".pdf", ".docx"})
_JSON = frozenset({".jsonl", ".ndjson", ".json"})


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
        if encoding:
            found = Encoding(encoding, "as data.sources[].encoding says")
        else:
            with open_part(part) as raw:
                found = encoding_of(raw)
    layout = Layout("")
    if part.kind in _JSON:
        with _text(part, found) as file:
            layout = json_layout(file, kind=part.kind)
    return File(part=part, encoding=found, layout=layout)


@contextmanager
def _text(part: Part, encoding: Encoding) -> Iterator[IO[bytes]]:
    with open_part(part) as raw:
        yield as_utf8(raw, encoding)

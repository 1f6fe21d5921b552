"""Documents to passages: plain text, Markdown, HTML, PDF and Word, cut on sentence boundaries.

A passage is whole paragraphs up to `PASSAGE` characters; a longer paragraph is cut between its sentences, and a sentence is never
cut. Its line is where it starts: in PDF the page, in Word the paragraph.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, Any, NamedTuple

from tunesmith.data.files.encoding import Encoding, decoded
from tunesmith.data.files.pages import page_text
from tunesmith.data.files.rows import BadRow, RawRow, shortened
from tunesmith.errors import DataError, MissingExtra

__all__ = ["docx_rows", "html_rows", "html_text", "markdown_rows", "pdf_rows", "text_rows"]

PASSAGE = 4000
"""Characters; about a thousand tokens of English."""
_MAX_PARAGRAPH = 1 << 20
_MAX_DOCUMENT = 256 << 20
_DAMAGE = re.compile("[\udc80-\udcff]")
# The extractor takes no lone surrogates and leaves out private characters: in a damaged page, hieroglyphs stand for its odd bytes.
_SHOWN = {0xDC80 + i: 0x13000 + i for i in range(128)}
_DAMAGED = {shown: damage for damage, shown in _SHOWN.items()}


class _Paragraph(NamedTuple):
    line: int
    text: str


def text_rows(file: IO[bytes]) -> Iterator[RawRow]:
    """Read plain text; blank lines separate paragraphs."""
    yield from _passages(_blank_separated(_lines(file)), between="\n\n")


def markdown_rows(file: IO[bytes]) -> Iterator[RawRow]:
    """Read Markdown as text; what its front matter says becomes tags of every passage."""
    numbered = _lines(file)
    held: list[tuple[int, str]] = []
    tags: dict[str, str] = {}
    for number, line in numbered:
        held.append((number, line))
        if number == 1 and line.strip() != "---":
            break
        if number > 1 and line.strip() in {"---", "..."}:
            tags, held = _front_matter([text for _, text in held[1:-1]]), []
            break
        if number > 200:
            break
    for row in _passages(_blank_separated(chain(held, numbered)), between="\n\n"):
        if tags and isinstance(row.content, dict):
            row.content["tags"] = tags
        yield row


def html_rows(file: IO[bytes], *, encoding: Encoding, name: str) -> Iterator[RawRow]:
    """Read a page's article: what is not menu, notice or advertisement. A passage with a byte that is no text becomes a bad row.

    Raises:
        MissingExtra: trafilatura is not installed.
    """
    page = decoded(_whole(file, name=name), encoding=encoding)
    text = html_text(page)
    if not text:
        yield RawRow(
            1, BadRow("no_text", "no article was found on this page; is its text made by scripts?"), shortened(page, length=2000)
        )
        return
    paragraphs = (_Paragraph(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip())
    at = 0
    for row in _passages(paragraphs, between="\n"):
        # The extractor keeps no positions: the first words of a passage are looked for in the page.
        found = page.find(row.raw.lstrip("#-*| ")[:24].split("\n")[0], at)
        at = max(at, found)
        yield row._replace(line=page.count("\n", 0, at) + 1)


def html_text(page: str) -> str:
    """The text of a page's article, its lone surrogates kept; empty if there is none.

    Raises:
        MissingExtra: trafilatura is not installed.
    """
    try:
        return page_text(page.translate(_SHOWN)).translate(_DAMAGED) if _DAMAGE.search(page) else page_text(page)
    except ImportError as error:
        raise _missing("HTML", "trafilatura", error) from error


def pdf_rows(file: IO[bytes], *, name: str) -> Iterator[RawRow]:
    """Read a PDF page by page; a page without text is a bad row.

    Raises:
        MissingExtra: pypdf is not installed.
        DataError: the file is encrypted or not sound.
    """
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise _missing("PDF", "pypdf", error) from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = _sound(lambda: PdfReader(io.BytesIO(_whole(file, name=name))), name=name, what="PDF")
    if _sound(lambda: reader.is_encrypted and not reader.decrypt(""), name=name, what="PDF"):
        raise DataError(f"{name}: the PDF is encrypted. Save it without a password.")
    paragraphs = []
    for number in range(1, _sound(lambda: len(reader.pages), name=name, what="PDF") + 1):
        try:
            text = _sound(lambda n=number: reader.pages[n - 1].extract_text(), name=name, what="PDF")  # type: ignore[misc]
        except DataError as error:
            yield RawRow(number, BadRow("unreadable_page", f"page {number} cannot be read: {error}"), "")
            continue
        if text.strip():
            paragraphs.append(_Paragraph(number, text.strip()))
        else:
            yield RawRow(number, BadRow("no_text", f"page {number} has no text. Is it a scanned picture?"), "")
    yield from _passages(iter(paragraphs), between="\n")


def docx_rows(file: IO[bytes], *, name: str) -> Iterator[RawRow]:
    """Read a Word document's paragraphs and tables.

    Raises:
        MissingExtra: python-docx is not installed.
        DataError: the file is not sound.
    """
    try:
        import docx
        from docx.table import Table
    except ImportError as error:
        raise _missing("DOCX", "python-docx", error) from error

    def texts() -> list[str]:
        data = _whole(file, name=name)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unfolded = sum(member.file_size for member in archive.infolist())
        if unfolded > _MAX_DOCUMENT:
            raise DataError(f"it unfolds to {unfolded:,} bytes, more than {_MAX_DOCUMENT:,}")
        blocks = docx.Document(io.BytesIO(data)).iter_inner_content()
        return ["\n".join(_cells(block)) if isinstance(block, Table) else block.text for block in blocks]

    found = _sound(texts, name=name, what="DOCX")
    paragraphs = (_Paragraph(i, text) for i, text in enumerate(found, start=1) if text.strip())
    yield from _passages(paragraphs, between="\n\n")


def _cells(table: Any) -> Iterator[str]:
    for row in table.rows:
        yield " | ".join(cell.text.strip() for cell in row.cells)


def _passages(paragraphs: Iterator[_Paragraph], *, between: str) -> Iterator[RawRow]:
    """Join paragraphs, or the sentences of long ones, while they stay within `PASSAGE` characters."""
    block = ""
    start = 0
    for paragraph in paragraphs:
        parts = [(paragraph.line, paragraph.text)] if len(paragraph.text) <= PASSAGE else _sentences(paragraph)
        for i, (line, text) in enumerate(parts):
            sign = between if i == 0 else ""  # a sentence brings its own space
            if block and len(block) + len(sign) + len(text) > PASSAGE:
                yield _text_row(start, block)
                block = ""
            if not block:
                start = line
            block = f"{block}{sign}{text}" if block else text
    if block:
        yield _text_row(start, block)


def _sentences(paragraph: _Paragraph) -> Iterator[tuple[int, str]]:
    from sentencex import segment

    text, line, start, at = paragraph.text, paragraph.line, 0, 0
    for sentence in segment("en", text):
        # The sentences may lack blanks that stand between them, so they are looked for; nothing of the text is left out.
        found = text.find(sentence.strip(), at)
        if found > start:
            yield line, text[start:found]
            line += text.count("\n", start, found)
            start = found
        at = max(at, found + len(sentence.strip()))
    yield line, text[start:]


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends; one longer than any paragraph comes in pieces, cut at blanks."""
    number, rest = 1, b""
    while line := rest + file.readline(_MAX_PARAGRAPH):
        rest = b""
        if len(line) >= _MAX_PARAGRAPH and not line.endswith(b"\n"):
            cut = max(line.rfind(b" "), line.rfind(b"\t")) + 1
            # No blank: before the last byte that begins a character.
            cut = cut or next(i for i in range(len(line) - 1, -1, -1) if line[i] & 0xC0 != 0x80 or i == 0) or len(line)
            line, rest = line[:cut], line[cut:]
        yield number, line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        number += line.endswith(b"\n")


def _blank_separated(numbered: Iterator[tuple[int, str]]) -> Iterator[_Paragraph]:
    lines: list[str] = []
    start = size = last = 0
    for number, text in numbered:
        if lines and number == last:  # another piece of one line
            lines[-1] += text
            size += len(text)
            continue
        last = number
        if not text.strip() or size > _MAX_PARAGRAPH:
            if lines:
                yield _Paragraph(start, "\n".join(lines))
            lines, size = [], 0
        if text.strip():
            start = start if lines else number
            lines.append(text)
            size += len(text)
    if lines:
        yield _Paragraph(start, "\n".join(lines))


def _front_matter(lines: list[str]) -> dict[str, str]:
    import yaml

    try:
        found = yaml.safe_load("\n".join(lines))
    except (yaml.YAMLError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(key): str(value) for key, value in found.items() if isinstance(value, str | int | float) and str(value)}


def _text_row(line: int, text: str) -> RawRow:
    return RawRow(line, {"text": text.rstrip()}, shortened(text, length=2000))


def _whole(file: IO[bytes], *, name: str) -> bytes:
    data = file.read(_MAX_DOCUMENT + 1)
    if len(data) > _MAX_DOCUMENT:
        raise DataError(f"{name}: the document is larger than {_MAX_DOCUMENT:,} bytes. Split it.")
    return data


def _sound(read: Callable[[], Any], *, name: str, what: str) -> Any:
    """Call a library whose errors on broken files are of every kind."""
    try:
        return read()
    except MissingExtra:
        raise
    except Exception as error:
        why = shortened(str(error) or type(error).__name__, length=200)
        raise DataError(f"{name}: the file is not sound {what} ({why}). Save it again.") from error


def _missing(kind: str, package: str, error: ImportError) -> MissingExtra:
    return MissingExtra(f"reading {kind} needs {package}: pip install 'tunesmith[docs-in]' ({shortened(str(error), length=120)})")

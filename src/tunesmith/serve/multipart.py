"""A form with one file, taken from the socket to the disk as it arrives: no more than a piece of it is ever in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from tunesmith.serve.refusal import Refusal, clipped

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["Form", "receive_form"]

_MAX_FIELD_BYTES = 4096
_MAX_HEADER_BYTES = 2048
_MAX_PARTS = 16
_MAX_OVERHEAD = 256 * 1024
"""Bytes of a form beside its file."""
_MAX_DISCARDED = 64 * 1024 * 1024
"""Of a file over the limit, read and thrown away, so that its client sees the 413 and no broken connection."""


class Form(NamedTuple):
    """What a form held; its file lies where it was told to."""

    fields: dict[str, str]
    filename: str | None
    """None: there was no file."""


async def receive_form(request: Request, *, file: Path, max_bytes: int) -> Form:
    """Read a form whose file is the field `file`.

    Args:
        request: its body has not been read.
        file: where to write the file; it is flushed to the disk. What was written stays there when the form is refused.
        max_bytes: of the file.

    Raises:
        Refusal: 415, no form; 413, too large; 400, broken off or malformed.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        message = "Send a form, with Content-Type: multipart/form-data; boundary=..."
        raise Refusal(message, status=415, code="unsupported_media_type")
    num_bytes = 0
    with file.open("wb") as out:
        reader = _Reader(out, max_bytes=max_bytes)
        parser = MultipartParser(boundary, reader.callbacks())
        try:
            async for piece in request.stream():
                num_bytes += len(piece)
                if num_bytes <= max_bytes + _MAX_OVERHEAD and not reader.is_too_large:
                    parser.write(piece)
                elif num_bytes > max_bytes + _MAX_DISCARDED:
                    break
            if num_bytes > max_bytes + _MAX_OVERHEAD or reader.is_too_large:
                message = f"The file is larger than {max_bytes:,} bytes."
                raise Refusal(message, status=413, param="file", code="request_too_large", headers={"Connection": "close"})
            parser.finalize()
        except (FormParserError, UnicodeDecodeError) as error:
            raise Refusal(f"The form is malformed: {clipped(str(error), 200)}", code="invalid_form") from error
        if not reader.is_complete:
            raise Refusal("The form breaks off before its end.", code="invalid_form")
        out.flush()
        os.fsync(out.fileno())
    return Form(reader.fields, reader.filename)


class _Reader:
    """Hears what the parser finds, and keeps the fields; a file goes straight to `out`."""

    def __init__(self, out: IO[bytes], *, max_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.is_complete = False
        self.is_too_large = False
        self._out = out
        self._room = max_bytes
        self._num_parts = 0
        self._name, self._header, self._disposition = "", b"", b""
        self._value: bytearray | None = None

    def callbacks(self) -> MultipartCallbacks:
        """By the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > _MAX_PARTS:
            raise Refusal(f"The form has more than {_MAX_PARTS} parts.", code="invalid_form")
        self._field, self._header, self._disposition = b"", b"", b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._field = self._grown(self._field, data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = self._grown(self._header, data[start:end])

    def _grown(self, text: bytes, more: bytes) -> bytes:
        if len(text) + len(more) > _MAX_HEADER_BYTES:
            raise Refusal(f"A header of the form is longer than {_MAX_HEADER_BYTES:,} bytes.", code="invalid_form")
        return text + more

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._header
        self._field, self._header = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._value = bytearray()
        if self._name == "file" and b"filename" in options:
            if self.filename is not None:
                raise Refusal("The form holds more than one file.", param="file", code="invalid_form")
            self.filename = options[b"filename"].decode("utf-8", "replace")
            self._value = None

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self._room -= end - start
            if self._room < 0:
                self.is_too_large = True
            elif not self.is_too_large:
                self._out.write(data[start:end])
        elif len(self._value) + end - start > _MAX_FIELD_BYTES:
            message = f"longer than {_MAX_FIELD_BYTES:,} bytes."
            raise Refusal(f"{clipped(self._name)}: {message}", param=clipped(self._name), code="invalid_value")
        else:
            self._value += data[start:end]

    def _end(self) -> None:
        if self._value is not None:
            if self._name in self.fields:
                name = clipped(self._name)
                raise Refusal(f"{name}: stands twice in the form.", param=name, code="invalid_form")
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.is_complete = True

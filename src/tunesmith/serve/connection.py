"""A connection that cannot be held for nothing: headers come within seconds, a body goes on coming, an answer is taken.

uvicorn's own protocol waits for ever in each case. What it cannot parse it answers in plain text; here it is the error object.

A client may end its sending side and read on (`shutdown(SHUT_WR)`, as netcat does): it has its answer. From here that looks like a
client that has gone, until something is sent: whoever has gone resets the connection then. So an answer that has not begun says
102 (Processing) at once, which HTTP/1.1 lets every client skip; HTTP/1.0 knows no such thing, and is taken to have gone.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from tunesmith.serve.envelope import MAX_HEADER_BYTES, headers_too_large
from tunesmith.serve.refusal import Refusal, error_object

__all__ = ["GuardedProtocol"]


class GuardedProtocol(H11Protocol):
    """Counts connections, and ends those that do nothing."""

    headers_within_s: ClassVar[float] = 15.0
    """From the first moment of a connection, or the first byte of its next request, to the end of the headers."""
    body_silence_s: ClassVar[float] = 30.0
    """Longest pause in a body."""
    reader_silence_s: ClassVar[float] = 60.0
    """How long a client may take nothing of its answer."""
    reset_within_s: ClassVar[float] = 0.1
    """Between two looks whether a client that sends nothing any more has gone."""
    max_connections: ClassVar[int] = 1000
    max_unwanted_bytes: ClassVar[int] = 64 * 1024 * 1024
    """Of a body that is answered already. It is read at first: a client that only sends would never see the answer."""

    _num_unwanted_bytes = 0
    _patience: asyncio.TimerHandle | None = None
    _reader_patience: asyncio.TimerHandle | None = None
    _awaits_headers = False
    _has_all = False
    """The client sends nothing any more, and may still read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(Refusal("There are too many connections.", status=503, code="overloaded", headers={"Retry-After": "5"}))
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self.transport.is_closing():
            return
        is_answered = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        self._num_unwanted_bytes = self._num_unwanted_bytes + len(data) if is_answered else 0
        if self._num_unwanted_bytes > self.max_unwanted_bytes:
            self.transport.abort()
            return
        super().data_received(data)
        self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Called by asyncio: the client sends nothing any more. True where it may wait for an answer."""
        is_asked = self.conn.their_state in {h11.DONE, h11.MUST_CLOSE, h11.CLOSED} and not self.cycle.response_complete
        if not is_asked or self.scope["http_version"] != "1.1":
            return False
        if not self._has_all:
            self._has_all = True
            if not self.cycle.response_started:
                processing = h11.InformationalResponse(status_code=102, headers=[], reason=b"Processing")
                self.transport.write(self.conn.send(processing) or b"")
            self._notice_reset()
        return True

    def on_response_complete(self) -> None:
        """Called by uvicorn; until the next request its own timer runs."""
        self._stop_watching()
        super().on_response_complete()
        if self._has_all and self.cycle.response_complete:  # nothing waits behind it
            self.timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._stop_watching()
        if self._reader_patience is not None:
            self._reader_patience.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called by asyncio: the client takes less than we send."""
        self.flow.pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        if self._reader_patience is not None:
            self._reader_patience.cancel()
        self.flow.resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is no HTTP, or does not come to the end of its headers."""
        is_too_large = len(self.conn.trailing_data[0]) > MAX_HEADER_BYTES
        self._refuse(headers_too_large() if is_too_large else Refusal(msg, code="invalid_http"))

    def _watch(self) -> None:
        """Set the clock for what must come next."""
        state = self.conn.their_state
        if state is h11.IDLE:
            if not self._awaits_headers:  # a header more does not set it back
                self._stop_watching()
                self._awaits_headers = True
                self._patience = self.loop.call_later(self.headers_within_s, self._give_up)
            return
        self._stop_watching()
        if state is h11.SEND_BODY:
            self._patience = self.loop.call_later(self.body_silence_s, self._give_up)

    def _stop_watching(self) -> None:
        self._awaits_headers = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _notice_reset(self) -> None:
        """Asyncio reads no more after the end, and would not see one before the next piece is sent."""
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.loop.call_later(self.reset_within_s, self._notice_reset)

    def _watch_reader(self, num_left: float = float("inf")) -> None:
        size = self.transport.get_write_buffer_size()
        if size >= num_left:
            self.transport.abort()
        else:
            self._reader_patience = self.loop.call_later(self.reader_silence_s, self._watch_reader, size)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused:
            self.transport.abort()
        elif self._awaits_headers:
            self._refuse(Refusal("The request did not come in time.", status=408, code="timeout"))

    def _refuse(self, refusal: Refusal) -> None:
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.abort()
            return
        cycle = getattr(self, "cycle", None)
        if cycle is not None and not cycle.response_complete:  # whoever works at an answer learns that nobody waits
            cycle.disconnected = True
            cycle.message_event.set()
        body = orjson.dumps(error_object(refusal))
        headers: list[Any] = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *refusal.headers.items(),
        ]
        for event in (h11.Response(status_code=refusal.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

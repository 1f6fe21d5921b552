"""One line of JSON for each request, and for whatever else the server has to say. Never a prompt, an answer or a key.

Lines are written by a thread of their own: a log that nobody reads must not hold the server. What it cannot take is counted and told.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.serve.refusal import clipped

__all__ = ["JsonLines", "with_access_log"]

_MAX_WAITING = 10_000
"""Lines."""
_MAX_PATH = 200
_LEFT = 499
"""The client went away before there was an answer. No status of HTTP; nginx made it known."""
Write = Callable[[Mapping[str, Any]], None]


def with_access_log(app: ASGIApp, *, write: Write) -> ASGIApp:
    """Tell each request when it has ended: who (the key's beginning), what, how it went and how long it took."""

    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began = time.monotonic()
        status, version = _LEFT, None

        async def noting(message: Message) -> None:
            nonlocal status, version
            if message["type"] == "http.response.start":
                status = message["status"]
                version = Headers(raw=message["headers"]).get("x-model-version")
            await send(message)

        try:
            await app(scope, receive, noting)
        finally:
            state = scope.get("state", {})
            key = state.get("key")
            write(
                {
                    "event": "request",
                    "request_id": state.get("request_id"),
                    "method": clipped(scope["method"]),
                    "path": clipped(scope["path"], _MAX_PATH),
                    "status": status,
                    "ms": round((time.monotonic() - began) * 1000, 1),
                    "model": None if state.get("model") is None else clipped(state["model"]),
                    "version": version,
                    "key": None if key is None else key.prefix,
                }
            )

    return logged


class JsonLines(logging.Handler):
    """Writes lines to a stream; as a handler of `logging` it writes records too, with their tracebacks."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: queue.Queue[bytes] = queue.Queue(_MAX_WAITING)
        self._num_lost = 0
        threading.Thread(target=self._work, name="log", daemon=True).start()

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line; never waits."""
        told = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **line}
        try:
            # What a client sent may hold surrogates, which are no text: they are spelled out.
            self._waiting.put_nowait(orjson.dumps(_printable(told)))
        except queue.Full:
            self._num_lost += 1

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else None
        line = {"event": "message", "level": record.levelname.lower(), "message": record.getMessage()}
        self.write(line | ({"error": error} if error else {}))

    def drain(self, *, patience_s: float = 1.0) -> None:
        """Wait until everything is written, but no longer than this."""
        until = time.monotonic() + patience_s
        while self._waiting.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)

    def _work(self) -> None:
        while True:
            line = self._waiting.get()
            if self._num_lost:
                line += b'\n{"event":"lost","lines":%d}' % self._num_lost
                self._num_lost = 0
            try:
                self._stream.write(line.decode() + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads the log any more
                return
            finally:
                self._waiting.task_done()


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return {name: _printable(one) for name, one in value.items()} if isinstance(value, dict) else value

"""The outermost layer: every answer carries a request id, and no exception leaves without the error object."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.serve.refusal import Refusal, refusal_of, refusal_response

__all__ = ["MAX_HEADER_BYTES", "headers_too_large", "with_request_id"]

_LOG = logging.getLogger("tunesmith.serve")
_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
"""Whatever could break out of a header or forge a line of a log."""

MAX_HEADER_BYTES = 32 * 1024
"""Of a request line and its headers together."""


def headers_too_large() -> Refusal:
    """431, of RFC 6585."""
    message = f"The request line and its headers are larger than {MAX_HEADER_BYTES // 1024} KiB together."
    return Refusal(message, status=431, code="headers_too_large")


def _num_header_bytes(scope: Scope) -> int:
    """As they came: each with its colon, a blank and a line end."""
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return target + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def with_request_id(app: ASGIApp) -> ASGIApp:
    """Take the client's `x-request-id`, made harmless, or create one; echo it, and keep it in `scope["state"]`."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request_id = _UNSAFE.sub("", HTTPConnection(scope).headers.get("x-request-id", ""))[:128] or f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        has_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            if _num_header_bytes(scope) > MAX_HEADER_BYTES:  # the parser counts only what comes bit by bit
                raise headers_too_large()
            await app(scope, receive, send_with_id)
        except Exception as error:
            refusal = refusal_of(error, request_id=request_id)
            if has_started or refusal.status >= 500:  # what a client did wrong is told to the client
                _LOG.exception("request %s failed", request_id)
            if has_started:
                raise  # the connection breaks, which a client does notice
            await refusal_response(refusal)(scope, receive, send_with_id)

    return wrapped

"""The one error object of the wire: `{"error": {"message", "type", "param", "code"}}`.

A message never carries a traceback, a path or a memory address, and never more than 1,000 characters of a client's own input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Scope

from tunesmith.errors import DataError
from tunesmith.serve.engine import Unanswerable

__all__ = [
    "MAX_MESSAGE",
    "Refusal",
    "clipped",
    "error_object",
    "json_response",
    "no_such_path",
    "refusal_of",
    "refusal_response",
    "without_paths",
]

MAX_MESSAGE = 1000
"""Characters of one problem's text: vLLM once answered a 4 kB body with 23 MB of validation errors."""

_SECRETS = re.compile(r"0x[0-9a-fA-F]{6,}|(?<![\w/])(?:[A-Za-z]:)?(?:[\\/][\w.@+-]+){2,}")


class Refusal(Exception):
    """A request is not answered, and why. Raised anywhere between the socket and the engine."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


def refusal_of(error: Exception, *, request_id: str) -> Refusal:
    """Turn any exception into what a client may know of it."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, DataError):
        field = error.field if isinstance(error, Unanswerable) else "messages"
        return Refusal(without_paths(clipped(str(error), MAX_MESSAGE)), param=field, code="invalid_value")
    return Refusal(
        f"The server failed to answer. Its log has the reason under the request id {request_id}.", status=500, code="server_error"
    )


def no_such_path(scope: Scope, *, headers: Mapping[str, str] | None = None) -> Refusal:
    """404: what is asked for is not here."""
    return Refusal(f"There is no {scope['method']} {clipped(scope['path'])} here.", status=404, code="not_found", headers=headers)


def error_object(refusal: Refusal) -> dict[str, Any]:
    """The JSON body."""
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}


def refusal_response(refusal: Refusal) -> Response:
    """The HTTP answer."""
    return json_response(error_object(refusal), status=refusal.status, headers=refusal.headers)


def json_response(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer, written by orjson."""
    return Response(orjson.dumps(content), status_code=status, headers=headers, media_type="application/json")


def without_paths(text: str) -> str:
    """A text with dots in place of paths and memory addresses."""
    return _SECRETS.sub("...", text)


def clipped(text: str, length: int = 64) -> str:
    """At most `length` characters of a text."""
    return text if len(text) <= length else text[: length - 3] + "..."

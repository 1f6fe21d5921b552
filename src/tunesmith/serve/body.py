"""What every endpoint does with a request: read its JSON body, and notice when the client goes away."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.types import Receive

from tunesmith.serve.admission import deadline_of
from tunesmith.serve.lane import ClientGone, Generation
from tunesmith.serve.own_names import require_json
from tunesmith.serve.refusal import Refusal

__all__ = ["read_body", "watch_client"]

_MAX_DISCARDED = 64 * 1024 * 1024
"""Bytes of a body over the limit that are read and thrown away: closing at once would reset the connection, and the client
would see that and not the 413."""

_MAX_BODY_S = 60.0
"""For a whole body to come, however slowly it drips."""


async def watch_client(receive: Receive, generation: Generation[Any]) -> None:
    """Abandon the answer when the client goes away. The body is read already, so only that can arrive."""
    while (await receive())["type"] != "http.disconnect":
        pass
    generation.fail(ClientGone())


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Read a JSON body, counting the bytes that really arrive.

    Raises:
        Refusal: 415, not JSON; 413, too large; 408, too slow.
    """
    require_json(request.headers.getlist("content-type"))
    patience_s = min(_MAX_BODY_S, deadline_of(request.scope) - time.monotonic())
    try:
        async with asyncio.timeout(patience_s):
            return await _read(request, max_bytes=max_bytes)
    except TimeoutError:
        message = "The body did not come in time."
        raise Refusal(message, status=408, code="timeout", headers={"Connection": "close"}) from None


async def _read(request: Request, *, max_bytes: int) -> bytes:
    body = bytearray()
    num_bytes = 0
    async for piece in request.stream():
        num_bytes += len(piece)
        if num_bytes <= max_bytes:
            body += piece
        elif num_bytes > max_bytes + _MAX_DISCARDED:
            break
    if num_bytes > max_bytes:
        message = f"The body is larger than {max_bytes:,} bytes."
        raise Refusal(message, status=413, code="request_too_large", headers={"Connection": "close"})
    return bytes(body)

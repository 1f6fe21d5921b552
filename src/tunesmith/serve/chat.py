"""`POST /v1/chat/completions`, as a plain ASGI endpoint: whoever goes away while waiting frees the engine at the next piece."""

from __future__ import annotations

import asyncio
import time
import uuid

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tunesmith.serve.answer import Head, completion, usage
from tunesmith.serve.lane import Ask, ClientGone, Generation
from tunesmith.serve.refusal import Refusal, json_response
from tunesmith.serve.service import Service
from tunesmith.serve.stream import send_events, sse_events
from tunesmith.serve.wire import read_chat_request, read_json

__all__ = ["ChatCompletions"]

_MAX_DISCARDED = 64 * 1024 * 1024
"""Bytes of a body over the limit that are read and thrown away: closing at once would reset the connection, and the client
would see that and not the 413."""


class ChatCompletions:
    """The endpoint. `keep_alive_s` is the longest silence of a stream."""

    def __init__(self, service: Service, *, max_body_bytes: int, keep_alive_s: float) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = time.monotonic()
        try:
            body = await _read_body(Request(scope, receive), max_bytes=self._max_body_bytes)
        except ClientDisconnect:
            return
        request = read_chat_request(read_json(body))
        target = self._service.find(request.model)
        ask = Ask(id=f"chatcmpl-{uuid.uuid4().hex}", deployment=target.deployment, request=request, received=received)
        with self._service.submit(ask) as generation:
            watch = asyncio.create_task(_watch(receive, generation))
            try:
                await self._answer(generation, scope, receive, send, ref=target.lane.engine.ref)
            except ClientGone:
                return
            finally:
                watch.cancel()

    async def _answer(self, generation: Generation, scope: Scope, receive: Receive, send: Send, *, ref: str) -> None:
        request = generation.ask.request
        head = Head(generation.ask.id, int(time.time()), ref)
        headers = {"x-model-version": ref}
        if request.stream:
            events = sse_events(generation, head, include_usage=request.include_usage, keep_alive_s=self._keep_alive_s)
            await send_events(events, send, headers=headers, request_id=scope["state"]["request_id"])
        else:
            response = json_response(await _whole(generation, head), headers=headers)
            await response(scope, receive, send)


async def _whole(generation: Generation, head: Head) -> dict[str, object]:
    """Wait for the end of an answer."""
    texts: list[str] = []
    num_prompt_tokens = num_completion_tokens = 0
    while True:
        event = await generation.event()
        if isinstance(event, int):
            num_prompt_tokens = event
        elif event is not None:
            texts.append(event.text)
            num_completion_tokens += event.num_tokens
            if event.finish_reason is not None:
                counts = usage(num_prompt_tokens=num_prompt_tokens, num_completion_tokens=num_completion_tokens)
                return completion(head, text="".join(texts), finish_reason=event.finish_reason, usage=counts)


async def _watch(receive: Receive, generation: Generation) -> None:
    """Abandon the answer when the client goes away. The body is read already, so only that can arrive."""
    while (await receive())["type"] != "http.disconnect":
        pass
    generation.fail(ClientGone())


async def _read_body(request: Request, *, max_bytes: int) -> bytes:
    """Read a JSON body, counting the bytes that really arrive.

    Raises:
        Refusal: 415, not JSON; 413, too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal("Send the body as JSON, with Content-Type: application/json.", status=415, code="unsupported_media_type")
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

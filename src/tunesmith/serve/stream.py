"""Server-sent events: the streamed answer, byte for byte.

The first event is awaited before the headers go out, so that an early failure has its own HTTP status; after `keep_alive_s`
of silence they go out with a comment, because proxies cut silent connections. A failure in the middle becomes an error event:
a stream that just ends looks like success to the openai client.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import Send

from tunesmith.serve.answer import Head, TextPart, chunk, text_choice, text_completion, usage, usage_chunk
from tunesmith.serve.engine import Piece
from tunesmith.serve.lane import ClientGone
from tunesmith.serve.observed import Events
from tunesmith.serve.refusal import error_object, refusal_of

__all__ = ["KEEP_ALIVE", "send_events", "sse_events", "text_events"]

P = TypeVar("P", Piece, TextPart)
"""A part of an answer."""

_LOG = logging.getLogger("tunesmith.serve")
KEEP_ALIVE = b": keep-alive\n\n"
_DONE = b"data: [DONE]\n\n"
_LINE_END = re.compile("\x85|\u2028|\u2029".encode())
"""No end of a line to this format nor within JSON, but to readers that cut lines as Unicode has them, such as httpx's."""
_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}


def sse_events(
    generation: Events[int | Piece], head: Head, *, num_answers: int, include_usage: bool, keep_alive_s: float
) -> AsyncGenerator[bytes, None]:
    """The events of good answers: for each its role, texts and finish reason; then usage if asked for, and `[DONE]`.

    Raises:
        Exception: what went wrong with the generation.
    """
    begun: set[int] = set()

    def said(piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.answer not in begun:
            begun.add(piece.answer)
            yield chunk(head, delta={"role": "assistant", "content": ""}, index=piece.answer)
        if piece.text or piece.logprobs:
            yield chunk(head, delta={"content": piece.text}, index=piece.answer, logprobs=piece.logprobs)
        if piece.finish_reason is not None:
            yield chunk(head, delta={}, index=piece.answer, finish_reason=piece.finish_reason)

    counted = (lambda counts: usage_chunk(head, usage=counts)) if include_usage else None
    return _events(generation, said, num_answers=num_answers, counted=counted, keep_alive_s=keep_alive_s)


def text_events(
    generation: Events[int | TextPart], head: Head, *, num_answers: int, include_usage: bool, keep_alive_s: float
) -> AsyncGenerator[bytes, None]:
    """The events of good completions of plain prompts: their parts as they come, usage if asked for, and `[DONE]`.

    Raises:
        Exception: what went wrong with the generation.
    """

    def said(part: TextPart) -> Iterator[dict[str, Any]]:
        if part.text or part.finish_reason is not None:
            choice = text_choice(part.answer, text=part.text, logprobs=part.logprobs, finish_reason=part.finish_reason)
            yield text_completion(head, choices=[choice])

    counted = (lambda counts: text_completion(head, choices=[], usage=counts)) if include_usage else None
    return _events(generation, said, num_answers=num_answers, counted=counted, keep_alive_s=keep_alive_s)


async def _events(
    generation: Events[int | P],
    said: Callable[[P], Iterator[dict[str, Any]]],
    *,
    num_answers: int,
    counted: Callable[[dict[str, Any]], dict[str, Any]] | None,
    keep_alive_s: float,
) -> AsyncGenerator[bytes, None]:
    """What is said of each part until every answer has ended; then what was `counted`, if it is asked for, and `[DONE]`."""
    extra = {} if counted is None else {"usage": None}
    num_prompt_tokens = num_completion_tokens = 0
    num_cached_tokens: int | None = None
    num_open = num_answers
    while num_open:
        event = await generation.event(patience_s=keep_alive_s)
        if event is None:
            yield KEEP_ALIVE
        elif isinstance(event, int):
            num_prompt_tokens = event
        else:
            num_completion_tokens += event.num_tokens
            if event.answer == 0 and event.num_cached_tokens is not None:
                num_cached_tokens = event.num_cached_tokens
            num_open -= event.finish_reason is not None
            for value in said(event):
                yield _data(value | extra)
    if counted is not None:
        counts = usage(
            num_prompt_tokens=num_prompt_tokens,
            num_completion_tokens=num_completion_tokens,
            num_cached_tokens=num_cached_tokens,
        )
        yield _data(counted(counts))
    yield _DONE


async def send_events(events: AsyncGenerator[bytes, None], send: Send, *, headers: Mapping[str, str], request_id: str) -> None:
    """Send events as they come.

    Raises:
        Exception: `events` failed before its first event. Later failures are sent as an event.
    """
    async with aclosing(events):
        data = await anext(events)
        start = {"type": "http.response.start", "status": 200, "headers": MutableHeaders(_HEADERS | dict(headers)).raw}
        await send(start)
        try:
            await _send_body(data, send)
            async for data in events:
                await _send_body(data, send)
        except ClientGone:
            raise
        except Exception as error:
            refusal = refusal_of(error, request_id=request_id)
            if refusal.status == 500:
                _LOG.error("request %s failed in mid-stream", request_id, exc_info=error)
            await _send_body(_data(error_object(refusal)), send)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_body(data: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + _LINE_END.sub(_escaped, orjson.dumps(value)) + b"\n\n"


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())

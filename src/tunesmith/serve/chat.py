"""`POST /v1/chat/completions`, as a plain ASGI endpoint: whoever goes away while waiting frees the engine at the next piece."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tunesmith.serve.admission import admit
from tunesmith.serve.answer import Head, Told, completion, usage
from tunesmith.serve.answer_id import new_id
from tunesmith.serve.arms import sticky_key
from tunesmith.serve.body import read_body, watch_client
from tunesmith.serve.engine import Piece
from tunesmith.serve.json_body import read_json
from tunesmith.serve.lane import Ask, ClientGone
from tunesmith.serve.observed import Events, observed
from tunesmith.serve.refusal import json_response
from tunesmith.serve.service import Service
from tunesmith.serve.stream import send_events, sse_events
from tunesmith.serve.wire import ChatRequest, read_chat_request

__all__ = ["ChatCompletions"]


class ChatCompletions:
    """The endpoint. `keep_alive_s` is the longest silence of a stream."""

    def __init__(self, service: Service, *, max_body_bytes: int, keep_alive_s: float) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = time.monotonic()
        try:
            body = await read_body(Request(scope, receive), max_bytes=self._max_body_bytes)
        except ClientDisconnect:
            return
        request = read_chat_request(read_json(body))
        target = self._service.find(request.model, sticky=sticky_key(scope, user=request.user))
        ask = Ask(id=new_id(request.num_answers), deployment=target.deployment, request=request, received=received)
        load = admit(
            scope,
            model=request.model,
            prompts=[message.content for message in request.messages],
            max_tokens=request.params.max_tokens,
            num_answers=request.num_answers,
            max_length=target.lane.engine.max_length,
        )
        with self._service.submit(ask, load, target) as generation:
            watch = asyncio.create_task(watch_client(receive, generation))
            try:
                events = observed(generation, scope, target=target, received=received)
                await self._answer(ask, events, scope, receive, send, ref=target.lane.engine.ref)
            except ClientGone:
                return
            finally:
                watch.cancel()

    async def _answer(
        self, ask: Ask, generation: Events[int | Piece], scope: Scope, receive: Receive, send: Send, *, ref: str
    ) -> None:
        request = ask.request
        head = Head(ask.id, int(time.time()), ref)
        headers = {"x-model-version": ref}
        if request.stream:
            events = sse_events(
                generation,
                head,
                num_answers=request.num_answers,
                include_usage=request.include_usage,
                keep_alive_s=self._keep_alive_s,
            )
            await send_events(events, send, headers=headers, request_id=scope["state"]["request_id"])
        else:
            response = json_response(await _whole(ask.request, generation, head), headers=headers)
            await response(scope, receive, send)


async def _whole(request: ChatRequest, generation: Events[int | Piece], head: Head) -> dict[str, object]:
    """Wait for the end of all answers."""
    pieces: list[list[Piece]] = [[] for _ in range(request.num_answers)]
    num_prompt_tokens, num_open = 0, request.num_answers
    while num_open:
        event = await generation.event()
        if isinstance(event, int):
            num_prompt_tokens = event
        elif event is not None:
            pieces[event.answer].append(event)
            num_open -= event.finish_reason is not None
    answers = [_told(own) for own in pieces]
    counts = usage(
        num_prompt_tokens=num_prompt_tokens,
        num_completion_tokens=sum(piece.num_tokens for own in pieces for piece in own),
        num_cached_tokens=next((piece.num_cached_tokens for piece in pieces[0] if piece.num_cached_tokens is not None), None),
    )
    return completion(head, answers=answers, usage=counts, with_logprobs=request.params.num_logprobs is not None)


def _told(pieces: Sequence[Piece]) -> Told:
    logprobs = tuple(one for piece in pieces for one in piece.logprobs)
    return Told("".join(piece.text for piece in pieces), str(pieces[-1].finish_reason), logprobs)

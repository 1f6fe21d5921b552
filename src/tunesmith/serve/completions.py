"""`POST /v1/completions`: plain prompts gone on with, or scored, so that anybody can hold a model against what it should say.

With `echo`, `logprobs` and `max_tokens: 0` a text is scored without going on. Likelihoods come from one pass over prompt and answer
when the answer is complete, so a stream has them in its last part. Nothing is kept of a completion: an `Interaction` is a chat.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tunesmith.data.growing_text import GrowingText
from tunesmith.serve.admission import admit
from tunesmith.serve.answer import Head, TextPart, text_choice, text_completion, usage
from tunesmith.serve.arms import sticky_key
from tunesmith.serve.body import read_body, watch_client
from tunesmith.serve.engine import BatchingEngine, DescribedEngine, Engine, Piece, Scored, TokenEngine, Wait
from tunesmith.serve.json_body import read_json
from tunesmith.serve.lane import ClientGone, Generation
from tunesmith.serve.observed import Events, observed
from tunesmith.serve.refusal import Refusal, json_response
from tunesmith.serve.service import Service
from tunesmith.serve.stops import cut_at_stops
from tunesmith.serve.stream import send_events, text_events
from tunesmith.serve.turns import in_turns
from tunesmith.serve.wire_tokens import CompletionRequest, read_completion_request

__all__ = ["Completions"]

_MAX_TOLD = 2**20
"""Likelihoods in one answer, about 40 MB."""


class Completions:
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
        request = read_completion_request(read_json(body))
        target = self._service.find(request.model, sticky=sticky_key(scope, user=request.user))
        engine = target.lane.engine
        if not isinstance(engine, TokenEngine):
            raise Refusal(f"The model {engine.ref} answers chats only.", code="unsupported_parameter", param="model")
        load = admit(
            scope,
            model=request.model,
            prompts=request.prompts,
            max_tokens=request.max_tokens or 1,
            num_answers=len(request.prompts) * request.num_answers,
            max_length=engine.max_length,
        )
        queued: Generation[int | TextPart] = self._service.queue(target, partial(_completed, request), load)
        with queued as generation:
            watch = asyncio.create_task(watch_client(receive, generation))
            try:
                events = observed(generation, scope, target=target, received=received)
                await self._answer(request, events, scope, receive, send, ref=engine.ref)
            except ClientGone:
                return
            finally:
                watch.cancel()

    async def _answer(
        self, request: CompletionRequest, events: Events[int | TextPart], scope: Scope, receive: Receive, send: Send, *, ref: str
    ) -> None:
        head = Head(f"cmpl-{uuid.uuid4().hex}", int(time.time()), ref)
        headers = {"x-model-version": ref}
        num_answers = len(request.prompts) * request.num_answers
        if request.stream:
            sent = text_events(
                events, head, num_answers=num_answers, include_usage=request.include_usage, keep_alive_s=self._keep_alive_s
            )
            await send_events(sent, send, headers=headers, request_id=scope["state"]["request_id"])
        else:
            whole = await _whole(events, head, num_answers=num_answers)
            await json_response(whole, headers=headers)(scope, receive, send)


async def _whole(events: Events[int | TextPart], head: Head, *, num_answers: int) -> dict[str, Any]:
    """Wait for the end of all answers."""
    texts: list[list[str]] = [[] for _ in range(num_answers)]
    choices: dict[int, dict[str, Any]] = {}
    num_prompt_tokens = num_generated = 0
    while len(choices) < num_answers:
        event = await events.event()
        if isinstance(event, int):
            num_prompt_tokens = event
        elif event is not None:
            texts[event.answer].append(event.text)
            num_generated += event.num_tokens
            if event.finish_reason is not None:
                text = "".join(texts[event.answer])
                choices[event.answer] = text_choice(
                    event.answer, text=text, logprobs=event.logprobs, finish_reason=event.finish_reason
                )
    counts = usage(num_prompt_tokens=num_prompt_tokens, num_completion_tokens=num_generated)
    return text_completion(head, choices=[choices[index] for index in range(num_answers)], usage=counts)


def _completed(request: CompletionRequest, engine: Engine, _: Callable[[], bool]) -> Generator[int | TextPart | Wait, None, None]:
    """The prompts' number of tokens, then the parts of all answers."""
    assert isinstance(engine, TokenEngine)
    prompts = [engine.encode_text(p, begun=True) if isinstance(p, str) else list(p) for p in request.prompts]
    for prompt in prompts:
        _check(prompt, engine=engine, max_tokens=request.max_tokens)
    _check_size(prompts, request=request)
    yield sum(map(len, prompts))
    begun = [prompt for prompt in prompts for _ in range(request.num_answers)]
    tokens: list[list[int]] = [[] for _ in begun]
    answers = [_parts(engine, index, prompt, request, tokens[index]) for index, prompt in enumerate(begun)]
    complete, lengths = [], [-len(_shown(engine, prompt)) if request.echo else 0 for prompt in begun]
    for event in in_turns(answers):
        if isinstance(event, TextPart):
            lengths[event.answer] += len(event.text)
        if isinstance(event, TextPart) and event.finish_reason is not None and request.params.num_logprobs is not None:
            complete.append(event)
        else:
            yield event
    for part in complete:
        if isinstance(engine, BatchingEngine):  # a long list of texts to score holds nobody up
            yield Wait.FOR_STEP
        index = part.answer
        told = _logprobs(engine, begun[index], tokens[index], request=request, length=lengths[index])
        yield part._replace(logprobs=told)


def _check(prompt: Sequence[int], *, engine: TokenEngine, max_tokens: int) -> None:
    if not prompt:
        raise Refusal("prompt: has no tokens.", code="invalid_value", param="prompt")
    if (largest := max(prompt)) >= engine.num_tokens:
        message = (
            f"prompt: there is no token {largest}; this model's vocabulary has {engine.num_tokens:,} tokens, the first is 0."
        )
        raise Refusal(message, code="invalid_value", param="prompt")
    if len(prompt) + min(max_tokens, 1) > engine.max_length:  # of more the engine writes as many as there is room for
        message = f"The prompt has {len(prompt):,} tokens; the context holds {engine.max_length:,}, the answer included."
        raise Refusal(message, code="context_length_exceeded", param="prompt")


def _check_size(prompts: Sequence[Sequence[int]], *, request: CompletionRequest) -> None:
    """64 prompts of a long context with 20 likelihoods a token would be an answer of hundreds of megabytes."""
    if not request.echo or request.params.num_logprobs is None:
        return
    num_told = sum(map(len, prompts)) * request.num_answers * (1 + request.params.num_logprobs)
    if num_told > _MAX_TOLD:
        message = (
            f"{num_told:,} likelihoods would be told; {_MAX_TOLD:,} is the most. Send fewer prompts, or ask for fewer logprobs."
        )
        raise Refusal(message, code="invalid_value", param="logprobs")


def _parts(
    engine: TokenEngine, index: int, prompt: list[int], request: CompletionRequest, tokens: list[int]
) -> Generator[TextPart | Wait, None, None]:
    """One answer; its tokens are noted in `tokens`."""
    if request.echo:
        yield TextPart(index, _shown(engine, prompt), 0, None)
    with closing(cut_at_stops(_written(engine, index, prompt, request, tokens), stops=request.stop)) as pieces:
        for piece in pieces:
            yield piece if isinstance(piece, Wait) else TextPart(index, piece.text, piece.num_tokens, piece.finish_reason)


def _written(
    engine: TokenEngine, index: int, prompt: list[int], request: CompletionRequest, tokens: list[int]
) -> Generator[Piece | Wait, None, None]:
    """The model's own tokens as text, in whole characters."""
    text = GrowingText(engine.text)
    finish = "length"
    for token in engine.go_on(prompt, replace(request.params, row=index)) if request.max_tokens else ():
        if isinstance(token, Wait):
            yield token
        elif token is None:
            finish = "stop"
        else:
            tokens.append(token)
            yield Piece(text.add(token), 1, None)
    yield Piece(text.rest(), 0, finish)


def _shown(engine: TokenEngine, tokens: Sequence[int]) -> str:
    """A prompt's text, in whole characters, control tokens by their names."""
    return engine.full_text(tokens) if isinstance(engine, DescribedEngine) else "".join(engine.texts(tokens))


def _logprobs(
    engine: TokenEngine, prompt: list[int], answer: list[int], *, request: CompletionRequest, length: int
) -> dict[str, Any]:
    """Of the tokens that are shown; none of those that begin behind the `length` at which a stop string has cut the answer."""
    starts, whole = _starts(engine.text, answer)
    kept = answer if length == whole else answer[: sum(start < length for start in starts)]
    shown, offsets = kept, starts[: len(kept)]
    if request.echo:
        before, whole = _starts(partial(_shown, engine), prompt)
        shown, offsets = [*prompt, *kept], [*before, *(whole + start for start in offsets)]
    scored = engine.score([*prompt, *kept], num_top=request.params.num_logprobs or 0)
    return _older_shape(engine, shown, scored[len(scored) - len(shown) :]) | {"text_offset": offsets}


def _starts(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> tuple[list[int], int]:
    """Where in their text each token begins, and the text's length; the parts of one character all begin where it does."""
    growing, starts, length = GrowingText(decode), [], 0
    for token in tokens:
        added = growing.add(token)
        own = decode([token]) if len(added) > 1 else ""
        # Bytes that waited for the rest of their character, and it never came: this token begins behind their sign.
        is_behind = own and "\ufffd" not in own and added != own and added.endswith("\ufffd" + own)
        starts.append(length + len(added) - len(own) if is_behind else length)
        length += len(added)
    return starts, length + len(growing.rest())


def _older_shape(engine: TokenEngine, tokens: Sequence[int], scored: Sequence[Scored]) -> dict[str, Any]:
    """OpenAI's older shape, the token itself among the likeliest. Two with one text share an entry: the likelier one's."""
    texts = engine.texts(tokens)
    tops: list[dict[str, float] | None] = []
    for token, one in zip(texts, scored, strict=True):
        top: dict[str, float] = {}
        for text, (_, value) in zip(engine.texts([token for token, _ in one.top]), one.top, strict=True):
            top.setdefault(text, value)
        if one.log_likelihood is not None:
            top.setdefault(token, one.log_likelihood)
        tops.append(None if one.log_likelihood is None else top)
    return {"tokens": texts, "token_logprobs": [one.log_likelihood for one in scored], "top_logprobs": tops}

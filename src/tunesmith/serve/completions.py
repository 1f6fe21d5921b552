"""`POST /v1/completions` and `POST /tokenize`: the model asked token by token, so that anybody can hold it against what it should say.

With `echo`, `logprobs` and `max_tokens: 0` the first scores a text without going on. Answers are not streamed, and nothing is kept
of them: an `Interaction` is a chat.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tunesmith.serve.admission import admit
from tunesmith.serve.answer import Head, text_completion, usage
from tunesmith.serve.arms import sticky_key
from tunesmith.serve.body import read_body, watch_client
from tunesmith.serve.engine import Engine, Scored, TokenEngine, Wait
from tunesmith.serve.lane import ClientGone, Load, Produce
from tunesmith.serve.refusal import Refusal, json_response
from tunesmith.serve.service import Service
from tunesmith.serve.wire import read_json
from tunesmith.serve.wire_tokens import CompletionRequest, TokenizeRequest, read_completion_request, read_tokenize_request

__all__ = ["Completions", "Tokenize"]

_MAX_TOLD = 2**20
"""Likelihoods in one answer, about 40 MB."""

R = TypeVar("R", CompletionRequest, TokenizeRequest)
Events = Generator[dict[str, Any] | Wait | None, None, None]
"""None while something goes on, so that a client that is gone is noticed; the answer at last."""


class Completions:
    """The endpoint that goes on with a prompt, or scores it."""

    def __init__(self, service: Service, *, max_body_bytes: int) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = Request(scope, receive)
        await _respond(ask, send, self._service, read_completion_request, _completed, max_bytes=self._max_body_bytes)


class Tokenize:
    """The endpoint that says which tokens a text or a conversation becomes."""

    def __init__(self, service: Service, *, max_body_bytes: int) -> None:
        self._service = service
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ask = Request(scope, receive)
        await _respond(ask, send, self._service, read_tokenize_request, _tokenized, max_bytes=self._max_body_bytes)


async def _respond(
    ask: Request,
    send: Send,
    service: Service,
    read: Callable[[object], R],
    answer: Callable[[TokenEngine, R], Events],
    *,
    max_bytes: int,
) -> None:
    try:
        body = await read_body(ask, max_bytes=max_bytes)
    except ClientDisconnect:
        return
    request = read(read_json(body))
    target = service.find(request.model, sticky=sticky_key(ask.scope, user=request.user))
    engine = target.lane.engine
    if not isinstance(engine, TokenEngine):
        raise Refusal(f"The model {engine.ref} answers chats only.", code="unsupported_parameter", param="model")
    load = _load(request, ask.scope)
    with service.queue(target, _on_engine(request, answer), load) as generation:
        watch = asyncio.create_task(watch_client(ask.receive, generation))
        try:
            while (content := await generation.event()) is None:
                pass
        except ClientGone:
            return
        finally:
            watch.cancel()
        await json_response(content, headers={"x-model-version": engine.ref})(ask.scope, ask.receive, send)


def _load(request: CompletionRequest | TokenizeRequest, scope: Scope) -> Load:
    if isinstance(request, CompletionRequest):
        max_tokens, num_prompts = request.max_tokens, len(request.prompts)
        return admit(scope, model=request.model, prompts=request.prompts, max_tokens=max_tokens or 1, num_answers=num_prompts)
    content = request.content
    return admit(scope, model=request.model, prompts=[content] if isinstance(content, str) else [one.content for one in content])


def _on_engine(request: R, answer: Callable[[TokenEngine, R], Events]) -> Produce[dict[str, Any] | None]:
    def produce(engine: Engine, _: Callable[[], bool]) -> Events:
        assert isinstance(engine, TokenEngine)
        yield from answer(engine, request)

    return produce


def _tokenized(engine: TokenEngine, request: TokenizeRequest) -> Events:
    content, begun = request.content, request.begun
    tokens = engine.encode_text(content, begun=begun) if isinstance(content, str) else engine.encode_prompt(content)
    texts = engine.texts(tokens) if request.with_texts else None
    yield {"count": len(tokens), "max_model_len": engine.max_length, "tokens": tokens, "token_strs": texts}


def _completed(engine: TokenEngine, request: CompletionRequest) -> Events:
    prompts = [engine.encode_text(p, begun=True) if isinstance(p, str) else list(p) for p in request.prompts]
    for prompt in prompts:
        _check(prompt, engine=engine, max_tokens=request.max_tokens)
    _check_size(prompts, request=request)
    choices, num_generated = [], 0
    for index, prompt in enumerate(prompts):
        answer: list[int] = []
        finish = "length"
        for token in _steps(engine, prompt, request=request, row=index):
            if isinstance(token, Wait):
                yield token
                continue
            if token is None:
                finish = "stop"
                break
            answer.append(token)
            yield None
        num_generated += len(answer)
        choices.append(_choice(engine, index, prompt=prompt, answer=answer, finish=finish, request=request))
        yield None
    head = Head(f"cmpl-{uuid.uuid4().hex}", int(time.time()), engine.ref)
    counts = usage(num_prompt_tokens=sum(map(len, prompts)), num_completion_tokens=num_generated)
    yield text_completion(head, choices=choices, usage=counts)


def _steps(
    engine: TokenEngine, prompt: Sequence[int], *, request: CompletionRequest, row: int
) -> Generator[int | Wait | None, None, None]:
    if request.max_tokens:
        yield from engine.go_on(prompt, replace(request.params, row=row))


def _check(prompt: Sequence[int], *, engine: TokenEngine, max_tokens: int) -> None:
    if not prompt:
        raise Refusal("prompt: has no tokens.", code="invalid_value", param="prompt")
    if (largest := max(prompt)) >= engine.num_tokens:
        message = (
            f"prompt: there is no token {largest}; this model's vocabulary has {engine.num_tokens:,} tokens, the first is 0."
        )
        raise Refusal(message, code="invalid_value", param="prompt")
    if len(prompt) + max_tokens > engine.max_length:
        message = (
            f"The prompt has {len(prompt):,} tokens and max_tokens is {max_tokens:,}; the context holds {engine.max_length:,}."
        )
        raise Refusal(message, code="context_length_exceeded", param="prompt")


def _check_size(prompts: Sequence[Sequence[int]], *, request: CompletionRequest) -> None:
    """64 prompts of a long context with 20 likelihoods a token would be an answer of hundreds of megabytes."""
    if not request.echo or request.params.num_logprobs is None:
        return
    num_told = sum(map(len, prompts)) * (1 + request.params.num_logprobs)
    if num_told > _MAX_TOLD:
        message = (
            f"{num_told:,} likelihoods would be told; {_MAX_TOLD:,} is the most. Send fewer prompts, or ask for fewer logprobs."
        )
        raise Refusal(message, code="invalid_value", param="logprobs")


def _choice(
    engine: TokenEngine, index: int, *, prompt: list[int], answer: list[int], finish: str, request: CompletionRequest
) -> dict[str, Any]:
    text = engine.text(answer)
    shown = [*prompt, *answer] if request.echo else answer
    if request.echo:
        text = "".join(engine.texts(prompt)) + text
    logprobs = None
    if request.params.num_logprobs is not None:
        scored = engine.score([*prompt, *answer], num_top=request.params.num_logprobs)
        logprobs = _logprobs(engine, shown, scored[len(scored) - len(shown) :])
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(engine: TokenEngine, tokens: Sequence[int], scored: Sequence[Scored]) -> dict[str, Any]:
    """OpenAI's older shape. Two tokens with one text share an entry of `top_logprobs`: the likelier one's."""
    texts = engine.texts(tokens)
    tops: list[dict[str, float] | None] = []
    for one in scored:
        top: dict[str, float] = {}
        for text, (_, value) in zip(engine.texts([token for token, _ in one.top]), one.top, strict=True):
            top.setdefault(text, value)
        tops.append(None if one.log_likelihood is None else top)
    return {
        "tokens": texts,
        "token_logprobs": [one.log_likelihood for one in scored],
        "top_logprobs": tops,
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=0)) if texts else [],
    }

"""From a request that was read to its place in a queue: what it will cost, by when it must be done, and whether its key may."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.serve.lane import Load
from tunesmith.serve.quotas import charge_of

__all__ = ["admit", "deadline_of", "with_deadline"]

_BYTES_PER_TOKEN = 4
"""Of English. Prompts are counted exactly by the engine, on its own thread and in their turn: too late to bound the queue."""
_TOKENS_PER_MESSAGE = 4
_UNSAID_TOKENS = 256
"""Reserved for an answer whose length the client leaves open."""


def with_deadline(app: ASGIApp, *, request_timeout_s: float) -> ASGIApp:
    """Note by when each request must be done: the time in the queue counts, and that of a slow body."""

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"]["deadline"] = time.monotonic() + request_timeout_s
        await app(scope, receive, send)

    return timed


def deadline_of(scope: Scope) -> float:
    """By when a request must be done, as `time.monotonic()` tells it."""
    return float(scope["state"].get("deadline", math.inf))


def admit(
    scope: Scope,
    *,
    model: str,
    prompts: Iterable[str | Sequence[int]],
    max_tokens: int | None = 0,
    num_answers: int = 1,
    max_length: int | None = None,
) -> Load:
    """Reserve what a request will use, before it is queued.

    Args:
        scope: the request's.
        model: the name that it asks for; the log tells it.
        prompts: messages, texts or token ids.
        max_tokens: of each answer; None where the client leaves it open.
        num_answers: how many are wanted.
        max_length: of the model's context: no answer becomes longer, however much it may.

    Raises:
        Refusal: 429, the key has used up its tokens.
    """
    scope["state"]["model"] = model
    num_prompt_tokens = sum(map(_estimate, prompts))
    charge = charge_of(scope)
    if max_tokens != 0:
        most = _UNSAID_TOKENS if max_tokens is None else max_tokens
        most = most if max_length is None else min(most, max_length)
        charge.reserve(num_prompt_tokens=num_prompt_tokens, num_new_tokens=most * num_answers)
    return Load(num_prompt_tokens, deadline_of(scope), charge.spend)


def _estimate(prompt: str | Sequence[int]) -> int:
    if isinstance(prompt, str):
        return len(prompt.encode()) // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE
    return len(prompt)

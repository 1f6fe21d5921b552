"""A streamed answer of another server, from bytes to pieces.

The stream is believed when it says how it ended: a finish reason, and then `[DONE]`. One that only ends was cut. Text is counted as a
token a piece until `usage` says better, and the last piece makes up the difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import orjson

from tunesmith.serve.engine import Piece, TokenLogprob
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.upstream_faults import refusal_of_event, unreadable

__all__ = ["Answer", "events"]

_MAX_EVENT_BYTES = 4 * 1024 * 1024
_FINISHES = {"stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length"}
_DONE = b"[DONE]"


async def events(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    """The fields `data` and `error` of server-sent events; comments are passed over.

    Lines end in line feeds, with or without a carriage return: JSON texts may hold any other separator of Unicode.

    Raises:
        Refusal: a line without end.
    """
    held = b""
    async for part in parts:
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            name, _, value = line.rstrip(b"\r").partition(b":")
            if name in (b"data", b"error"):
                yield name.decode(), value.removeprefix(b" ")
        if len(held) > _MAX_EVENT_BYTES:
            raise unreadable("it sent a line without end")


class Answer:
    """One answer on its way. Feed it with events; it is whole when `is_done`."""

    def __init__(self, *, num_logprobs: int | None, key: str | None) -> None:
        self.is_done = False
        self._num_logprobs = num_logprobs
        self._key = key
        self._num_told = 0
        self._num_completion: int | None = None
        self._num_prompt: int | None = None
        self._finish: str | None = None

    def take(self, name: str, data: bytes) -> Iterator[Piece]:
        """The pieces that an event makes.

        Raises:
            Refusal: it is an error, or nothing that can be read.
        """
        if data == _DONE:
            yield self._last()
            return
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise unreadable("it sent an event that is no JSON") from None
        if not isinstance(content, dict):
            raise unreadable("it sent an event that is no object")
        if name == "error" or content.get("error"):
            raise refusal_of_event(content, key=self._key)
        self._count(content.get("usage"))
        choices = content.get("choices")
        if isinstance(choices, list) and choices:
            yield from self._piece(choices[0])

    def _piece(self, choice: object) -> Iterator[Piece]:
        if not isinstance(choice, dict):
            raise unreadable("it sent a choice that is no object")
        delta = choice.get("delta")
        text = (delta.get("content") if isinstance(delta, dict) else choice.get("text")) or ""
        if not isinstance(text, str):
            raise unreadable("it sent a text that is none")
        if isinstance(delta, dict) and delta.get("tool_calls"):
            raise unreadable("it calls a tool, and none was offered")
        logprobs = _logprobs(choice.get("logprobs"), num_top=self._num_logprobs)
        if self._num_logprobs is not None and text and not logprobs and not self._num_told:
            message = "logprobs: the server behind this model tells no likelihoods"
            raise Refusal(message, code="unsupported_parameter", param="logprobs")
        if finish := choice.get("finish_reason"):
            if finish not in _FINISHES:
                raise unreadable("it gave the answer up" if finish in ("abort", "error") else "it ended for an unknown reason")
            self._finish = _FINISHES[finish]
        if text or logprobs:
            num_new = len(logprobs) or 1
            if self._num_completion is not None:
                num_new = max(self._num_completion - self._num_told, 0)
            self._num_told += num_new
            yield Piece(text, num_new, None, logprobs, num_prompt_tokens=self._num_prompt)

    def _last(self) -> Piece:
        if self._finish is None:
            raise unreadable("its answer ended without a finish reason")
        self.is_done = True
        more = max((self._num_completion or 0) - self._num_told, 0)
        return Piece("", more, self._finish, num_prompt_tokens=self._num_prompt)

    def _count(self, usage: object) -> None:
        if not isinstance(usage, dict):
            return
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int) and prompt > 0:
            self._num_prompt = prompt
        if isinstance(completion, int) and completion >= 0:
            self._num_completion = completion


def _logprobs(told: object, *, num_top: int | None) -> tuple[TokenLogprob, ...]:
    """Of a chat (`content`), or of a completion in OpenAI's older shape."""
    if num_top is None or not isinstance(told, dict):
        return ()
    try:
        if told.get("content") is not None:
            return tuple(_of_chat(one, num_top=num_top) for one in told["content"])
        tops = told.get("top_logprobs") or [{}] * len(told["tokens"])
        return tuple(
            TokenLogprob(str(token), float(value), _likeliest(top or {}, num_top=num_top))
            for token, value, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise unreadable("it sent likelihoods that cannot be read") from None


def _of_chat(one: Mapping[str, Any], *, num_top: int) -> TokenLogprob:
    top = {str(other["token"]): float(other["logprob"]) for other in one.get("top_logprobs") or ()}
    return TokenLogprob(str(one["token"]), float(one["logprob"]), _likeliest(top, num_top=num_top))


def _likeliest(top: Mapping[str, float], *, num_top: int) -> tuple[TokenLogprob, ...]:
    """Servers may send one more than asked for: the token itself, where it is not among them."""
    found = sorted((TokenLogprob(token, float(value)) for token, value in top.items()), key=lambda one: -one.logprob)
    return tuple(found[:num_top])

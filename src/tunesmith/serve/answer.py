"""The bodies of good answers, in the shapes of the OpenAI API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tunesmith.serve.engine import TokenLogprob

__all__ = [
    "Head",
    "TextPart",
    "Told",
    "chunk",
    "completion",
    "embeddings",
    "model_card",
    "text_choice",
    "text_completion",
    "usage",
    "usage_chunk",
]


class Head(NamedTuple):
    """What every part of one answer repeats."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    """The version that answers, not the alias that was asked for."""


class Told(NamedTuple):
    """One whole answer."""

    text: str
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...]


class TextPart(NamedTuple):
    """A bit of a completion. Only the last one of an answer has a `finish_reason`, and its likelihoods where they were asked for."""

    answer: int
    text: str
    num_tokens: int
    finish_reason: str | None
    logprobs: dict[str, Any] | None = None
    num_cached_tokens: int | None = None


def completion(head: Head, *, answers: Sequence[Told], usage: dict[str, Any], with_logprobs: bool) -> dict[str, Any]:
    """All answers to one request."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": told.text, "refusal": None},
            "logprobs": _logprobs(told.logprobs) if with_logprobs else None,
            "finish_reason": told.finish_reason,
        }
        for index, told in enumerate(answers)
    ]
    return {**_common(head, "chat.completion"), "choices": choices, "usage": usage}


def chunk(
    head: Head,
    *,
    delta: dict[str, str],
    index: int = 0,
    finish_reason: str | None = None,
    logprobs: Sequence[TokenLogprob] = (),
) -> dict[str, Any]:
    """A part of a streamed answer."""
    told = _logprobs(logprobs) if logprobs else None
    choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
    return {**_common(head, "chat.completion.chunk"), "choices": [choice]}


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    content = [
        {
            **_logprob(one),
            "top_logprobs": [_logprob(other) for other in one.top],
        }
        for one in tokens
    ]
    return {"content": content, "refusal": None}


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    """`bytes` puts characters together that are spread over tokens; null where they are not known."""
    known = one.raw if one.raw is not None or "\ufffd" in one.token else one.token.encode()
    return {"token": one.token, "logprob": one.logprob, "bytes": None if known is None else list(known)}


def usage_chunk(head: Head, *, usage: dict[str, Any]) -> dict[str, Any]:
    """The extra part of a streamed answer that `stream_options.include_usage` asks for."""
    return {**_common(head, "chat.completion.chunk"), "choices": [], "usage": usage}


def usage(*, num_prompt_tokens: int, num_completion_tokens: int, num_cached_tokens: int | None = None) -> dict[str, Any]:
    """Token counts; those of the prompt that needed no reading only where they are known."""
    counts = {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_completion_tokens,
        "total_tokens": num_prompt_tokens + num_completion_tokens,
    }
    return counts if num_cached_tokens is None else {**counts, "prompt_tokens_details": {"cached_tokens": num_cached_tokens}}


def text_choice(index: int, *, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None) -> dict[str, Any]:
    """One completion of a plain prompt, or a part of it."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def text_completion(head: Head, *, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> dict[str, Any]:
    """Completions of plain prompts, or a part of them, which tells no usage."""
    whole = {**_common(head, "text_completion"), "choices": choices}
    return whole if usage is None else whole | {"usage": usage}


def embeddings(vectors: Sequence[Sequence[float] | str], *, model: str, num_tokens: int) -> dict[str, Any]:
    """Vectors, each as numbers or as their bytes in base64."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens}}


def model_card(name: str, *, ref: str, created: int, max_length: int) -> dict[str, Any]:
    """One item of `/v1/models`. `root` and `max_model_len` as in vLLM."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "tunesmith",
        "root": ref,
        "parent": None,
        "max_model_len": max_length,
    }


def _common(head: Head, kind: str) -> dict[str, Any]:
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model, "system_fingerprint": None}

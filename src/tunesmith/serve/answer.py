"""The bodies of good answers, in the shapes of the OpenAI API."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Head", "chunk", "completion", "model_card", "text_completion", "usage", "usage_chunk"]


class Head(NamedTuple):
    """What every part of one answer repeats."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    """The version that answers, not the alias that was asked for."""


def completion(head: Head, *, text: str, finish_reason: str, usage: dict[str, Any]) -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return {**_common(head, "chat.completion"), "choices": [choice], "usage": usage}


def chunk(head: Head, *, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    """A part of a streamed answer."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**_common(head, "chat.completion.chunk"), "choices": [choice]}


def usage_chunk(head: Head, *, usage: dict[str, Any]) -> dict[str, Any]:
    """The extra part of a streamed answer that `stream_options.include_usage` asks for."""
    return {**_common(head, "chat.completion.chunk"), "choices": [], "usage": usage}


def usage(*, num_prompt_tokens: int, num_completion_tokens: int) -> dict[str, Any]:
    """Token counts."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_completion_tokens,
        "total_tokens": num_prompt_tokens + num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def text_completion(head: Head, *, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
    """Completions of plain prompts."""
    return {**_common(head, "text_completion"), "choices": choices, "usage": usage}


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

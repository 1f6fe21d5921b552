"""What another server is asked, in its own fields.

Values that change nothing are sent too: servers take what is absent from the model's `generation_config.json`, or from their own command
line, and the same request would be answered otherwise there than here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.records import Message
from tunesmith.serve.engine import SamplingParams
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.upstream_driver import Driver

__all__ = ["PromptFormat", "Question", "question"]

_NEUTRAL = SamplingParams()
_PARAM = {"schema": "response_format", "num_logprobs": "logprobs"}
"""Names of our parameters on our own wire, where they differ."""


class PromptFormat(NamedTuple):
    """How training laid conversations out."""

    encode: Callable[[Sequence[Message]], Sequence[int]]
    """The tokens up to the answer."""
    stop_tokens: tuple[int, ...]
    """Each ends an answer."""


class Question(NamedTuple):
    """A path and a body."""

    path: str
    body: dict[str, Any]


def question(
    messages: Sequence[Message],
    params: SamplingParams,
    *,
    driver: Driver,
    model: Mapping[str, str],
    max_length: int,
    layout: PromptFormat | None,
) -> Question:
    """What to ask.

    Args:
        messages: the conversation.
        params: how its answer is chosen.
        driver: of the server.
        model: the fields that name the model there.
        max_length: the context in tokens.
        layout: as in training; the server is then given token ids, if it reads them, and its own template has no say.

    Raises:
        Refusal: 400, a field that this server is not known to understand.
    """
    body: dict[str, Any] = {
        **model,
        **_sampling(params, driver),
        "stream": True,
        "stream_options": {"include_usage": True} | ({"continuous_usage_stats": True} if driver.tells_usage_on_the_way else {}),
    }
    if layout is not None and driver.reads_tokens:
        prompt = list(layout.encode(messages))
        room = max(max_length - len(prompt), 1)
        body |= {
            "prompt": prompt,
            "max_tokens": min(params.max_tokens or room, room),
            "stop_token_ids": list(layout.stop_tokens),
        }
        if params.num_logprobs is not None:
            body["logprobs"] = params.num_logprobs
        return Question("/v1/completions", body)
    body["messages"] = [{"role": turn.role.value, "content": turn.content} for turn in messages]
    if params.max_tokens is not None and params.max_tokens < max_length:
        body["max_tokens"] = params.max_tokens
    if params.num_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": params.num_logprobs}
    return Question("/v1/chat/completions", body)


def _sampling(params: SamplingParams, driver: Driver) -> dict[str, Any]:
    for name in ("top_k", "min_p", "repetition_penalty", "logit_bias", "seed", "num_logprobs", "schema"):
        if getattr(params, name) != getattr(_NEUTRAL, name) and name not in driver.understands:
            param = _PARAM.get(name, name)
            message = f"{param}: the server behind this model is not known to understand it ({driver.name}); leave it out."
            raise Refusal(message, code="unsupported_parameter", param=param)
    there = driver.understands
    asked: dict[str, Any] = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
    }
    if "top_k" in there:
        asked[there["top_k"]] = params.top_k or driver.all_tokens
    if "min_p" in there:
        asked[there["min_p"]] = params.min_p
    if "repetition_penalty" in there:
        asked[there["repetition_penalty"]] = params.repetition_penalty
    if params.logit_bias:
        asked[there["logit_bias"]] = {str(token): bias for token, bias in params.logit_bias.items()}
    if params.seed is not None:
        asked[there["seed"]] = (params.seed + params.row) & (2**driver.seed_bits - 1)
    if params.schema is not None:
        schema = {"name": "answer", "schema": dict(params.schema), "strict": True}
        asked[there["schema"]] = {"type": "json_schema", "json_schema": schema}
    return asked

"""The fields that say how tokens are chosen, which chats and plain completions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.serve.engine import SamplingParams
from tunesmith.serve.fields import Fields
from tunesmith.serve.refusal import clipped

__all__ = ["SAMPLING", "read_params"]

SAMPLING = frozenset(
    [
        "temperature",
        "top_p",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        # Fields that vLLM and SGLang share.
        "top_k",
        "min_p",
        "repetition_penalty",
    ]
)
MAX_BIASES = 300
LEAST_REPETITION_PENALTY = 0.01
"""Scores divided by next to nothing would be infinite."""


def read_params(
    fields: Fields, *, max_tokens: int | None, num_logprobs: int | None, schema: Mapping[str, Any] | None = None
) -> SamplingParams:
    """Read them; the rest is given."""
    top_k = fields.whole("top_k", low=-1, high=2**31)
    repetition = fields.number("repetition_penalty", default=1.0, low=0.0, high=2.0)
    if repetition < LEAST_REPETITION_PENALTY:
        fields.wrong("repetition_penalty", f"must be {LEAST_REPETITION_PENALTY} or more; 1 changes nothing")
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=fields.number("temperature", default=1.0, low=0.0, high=2.0),
        top_p=_read_top_p(fields),
        top_k=max(top_k or 0, 0),
        min_p=fields.number("min_p", default=0.0, low=0.0, high=1.0),
        presence_penalty=fields.number("presence_penalty", default=0.0, low=-2.0, high=2.0),
        frequency_penalty=fields.number("frequency_penalty", default=0.0, low=-2.0, high=2.0),
        repetition_penalty=repetition,
        logit_bias=_read_biases(fields),
        seed=fields.whole("seed", low=-(2**63), high=2**63 - 1),
        num_logprobs=num_logprobs,
        schema=schema,
    )


def _read_top_p(fields: Fields) -> float:
    top_p = fields.number("top_p", default=1.0, low=0.0, high=1.0)
    if top_p == 0:
        fields.wrong("top_p", "must be above 0; for the likeliest token at each step, set temperature to 0")
    return top_p


def _read_biases(fields: Fields) -> dict[int, float]:
    """Token ids are names of fields in JSON, so they come as text."""
    value = fields.of_type("logit_bias", dict, "an object") or {}
    if len(value) > MAX_BIASES:
        fields.wrong("logit_bias", f"at most {MAX_BIASES} tokens, not {len(value):,}")
        return {}
    biases: dict[int, float] = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            fields.wrong("logit_bias", f"{clipped(token)!r} is no token id", code="invalid_type")
        elif isinstance(bias, bool) or not isinstance(bias, (int, float)) or not -100 <= bias <= 100:
            fields.wrong("logit_bias", f"the bias of token {token} must be a number between -100 and 100")
        else:
            biases[int(token)] = float(bias)
    return biases

"""The document's part on chats: what `wire` reads, and what is answered."""

from __future__ import annotations

from typing import Any

from tunesmith.serve import wire
from tunesmith.serve.answer_id import MAX_ANSWERS
from tunesmith.serve.openapi import ApiPart, Operation, Schema, either, maybe, neutral, record, ref, shown, whole
from tunesmith.serve.wire_sampling import LEAST_REPETITION_PENALTY, MAX_BIASES

__all__ = ["CHAT", "FLAG", "MODEL", "SAMPLING_FIELDS", "STREAM_OPTIONS", "TEXT", "only_with", "stops", "streams_only"]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
MODEL: Schema = {"type": "string", "description": "An alias or a version; GET /v1/models lists them."}
SAMPLING_FIELDS: dict[str, Schema] = {
    "temperature": maybe({"type": "number", "minimum": 0, "maximum": 2}),
    "top_p": maybe({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    "seed": maybe(whole(-(2**63), 2**63 - 1)),
    "frequency_penalty": maybe({"type": "number", "minimum": -2, "maximum": 2}),
    "presence_penalty": maybe({"type": "number", "minimum": -2, "maximum": 2}),
    "logit_bias": maybe(
        {
            "type": "object",
            "maxProperties": MAX_BIASES,
            "patternProperties": {"^[0-9]{1,9}$": {"type": "number", "minimum": -100, "maximum": 100}},
            "additionalProperties": False,
        }
    ),
    "top_k": maybe(whole(-1, 2**31)),
    "min_p": maybe({"type": "number", "minimum": 0, "maximum": 1}),
    "repetition_penalty": maybe({"type": "number", "minimum": LEAST_REPETITION_PENALTY, "maximum": 2}),
}
STREAM_OPTIONS = maybe(record({"include_usage": maybe(FLAG), **neutral({"include_obfuscation": (False,)})}))


def stops(most: int) -> dict[str, Any]:
    """The field `stop`."""
    one = {"type": "string", "minLength": 1, "maxLength": wire.MAX_STOP_LENGTH}
    return maybe(either(one, {"type": "array", "items": one, "maxItems": most}))


def only_with(fields: dict[str, Schema], *, unless: dict[str, Schema]) -> dict[str, Any]:
    """A rule over several fields: those that are absent or as `unless` says, or else these are set."""
    return either({"properties": unless}, {"properties": fields, "required": list(fields)})


def streams_only() -> dict[str, Any]:
    """`stream_options` needs `stream`."""
    return only_with({"stream": {"const": True}}, unless={"stream_options": {"type": "null"}})


def _usage() -> dict[str, Any]:
    """Token counts of an answer."""
    count = {"type": "integer", "minimum": 0}
    counts = shown({"prompt_tokens": count, "completion_tokens": count, "total_tokens": count})
    known = {"prompt_tokens_details": shown({"cached_tokens": count})}  # told where it is known how much was kept
    return counts | {"properties": counts["properties"] | known}


_PART = record({"type": {"const": "text"}, "text": TEXT}, required=["type", "text"])
_MESSAGE = record(
    {
        "role": {"enum": sorted(wire.ROLES)},
        "content": either(TEXT, {"type": "array", "items": _PART, "minItems": 1}),
        **neutral(wire.NEUTRAL_IN_MESSAGE),
    },
    required=["role", "content"],
)
_SHAPE = record(
    {"name": TEXT, "schema": {"type": "object"}, "strict": maybe(FLAG), "description": maybe(TEXT)}, required=["name", "schema"]
)
_RESPONSE_FORMAT = either(
    record({"type": {"enum": ["text", "json_object"]}}, required=["type"]),
    record({"type": {"const": "json_schema"}, "json_schema": _SHAPE}, required=["type", "json_schema"]),
)
_REQUEST = record(
    {
        "model": MODEL,
        "messages": ref("Messages"),
        "max_tokens": maybe(whole(1, 2**31)),
        "max_completion_tokens": maybe(whole(1, 2**31)),
        "stop": stops(wire.MAX_STOPS),
        "stream": maybe(FLAG),
        "stream_options": STREAM_OPTIONS,
        "n": maybe(whole(1, MAX_ANSWERS)),
        "user": maybe(TEXT),
        "safety_identifier": maybe({**TEXT, "description": "As `user`, where that is absent."}),
        "prompt_cache_key": maybe({**TEXT, "description": "Accepted; prompts are found without it."}),
        "metadata": maybe({"type": "object"}),
        "logprobs": maybe(FLAG),
        "top_logprobs": maybe(whole(0, wire.MAX_LOGPROBS)),
        "response_format": maybe(_RESPONSE_FORMAT),
        **SAMPLING_FIELDS,
        **neutral(wire.NEUTRAL),
    },
    required=["model", "messages"],
    allOf=[
        streams_only(),
        only_with({"logprobs": {"const": True}}, unless={"top_logprobs": maybe({"const": 0})}),
        # Both may also be set to one number, which a schema cannot say.
        either({"properties": {"max_tokens": {"type": "null"}}}, {"properties": {"max_completion_tokens": {"type": "null"}}}),
    ],
)
_LOGPROB = {"token": TEXT, "logprob": {"type": "number"}, "bytes": {"type": ["array", "null"], "items": whole(0, 255)}}
_LOGPROBS = shown(
    {
        "content": {
            "type": "array",
            "items": shown({**_LOGPROB, "top_logprobs": {"type": "array", "items": shown(_LOGPROB)}}),
        }
    }
)
_HEAD: dict[str, Schema] = {
    "id": TEXT,
    "created": {"type": "integer"},
    "model": TEXT,
    "system_fingerprint": {"type": ["string", "null"]},
}
_INDEX = {"type": "integer", "minimum": 0}
_SAID = shown({"role": {"const": "assistant"}, "content": TEXT, "refusal": {"type": ["string", "null"]}})
_DELTA = {"type": "object", "properties": {"role": TEXT, "content": TEXT}}
_FINISH: Schema = {"enum": ["stop", "length"]}


def _answer(kind: str, choice: dict[str, Schema], *, finish: Schema) -> dict[str, Any]:
    item = shown({"index": _INDEX, **choice, "logprobs": maybe(_LOGPROBS), "finish_reason": finish})
    return shown({**_HEAD, "object": {"const": kind}, "choices": {"type": "array", "items": item}})


_COMPLETION = _answer("chat.completion", {"message": _SAID}, finish=_FINISH)
_COMPLETION["properties"]["usage"] = ref("Usage")
_COMPLETION["required"].append("usage")
_CHUNK = _answer("chat.completion.chunk", {"delta": _DELTA}, finish=maybe(_FINISH))
_CHUNK["properties"]["usage"] = maybe(ref("Usage"))

CHAT = ApiPart(
    operations=[
        Operation(
            path="/v1/chat/completions",
            method="post",
            name="createChatCompletion",
            summary="Answer a conversation.",
            request=ref("ChatRequest"),
            answer=ref("ChatCompletion"),
            events=ref("ChatCompletionChunk"),
            refusals=(404, 504),
        )
    ],
    schemas={
        "ChatCompletion": _COMPLETION,
        "ChatCompletionChunk": _CHUNK,
        "ChatRequest": _REQUEST,
        "Messages": {"type": "array", "items": _MESSAGE, "minItems": 1, "maxItems": wire.MAX_MESSAGES},
        "Usage": _usage(),
    },
)

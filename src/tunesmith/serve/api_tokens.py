"""The document's part on plain prompts, tokens and vectors: what `wire_tokens` and `embeddings` read, and what is answered."""

from __future__ import annotations

from typing import Any

from tunesmith.serve import wire_tokens
from tunesmith.serve.answer_id import MAX_ANSWERS
from tunesmith.serve.api_chat import FLAG, MODEL, SAMPLING_FIELDS, STREAM_OPTIONS, TEXT, only_with, stops, streams_only
from tunesmith.serve.embeddings import MAX_INPUTS
from tunesmith.serve.openapi import ApiPart, Operation, Schema, either, maybe, neutral, record, ref, shown, whole

__all__ = ["TOKENS"]

_ID = whole(0, wire_tokens.MAX_TOKEN_ID)
_IDS: Schema = {"type": "array", "items": _ID}
_ONLY_MODEL = maybe(MODEL)


def _texts(most: int) -> dict[str, Any]:
    text, ids = {"type": "string", "minLength": 1}, {**_IDS, "minItems": 1}
    return either(text, ids, {"type": "array", "items": either(text, ids), "minItems": 1, "maxItems": most})


_NO_CHOOSING = either(
    {"properties": {"best_of": {"type": "null"}}},
    # It may also be set to `n`, which a schema cannot say.
    {"properties": {"best_of": {"const": 1}, "n": maybe({"const": 1})}},
)
_COMPLETION_REQUEST = record(
    {
        "model": MODEL,
        "prompt": _texts(wire_tokens.MAX_PROMPTS),
        "max_tokens": maybe(whole(0, 2**31)),
        "echo": maybe(FLAG),
        "logprobs": maybe(whole(0, wire_tokens.MAX_LOGPROBS)),
        "user": maybe(TEXT),
        "n": maybe(whole(1, MAX_ANSWERS)),
        "best_of": maybe(whole(1, MAX_ANSWERS)),
        "stop": stops(wire_tokens.MAX_STOPS),
        "stream": maybe(FLAG),
        "stream_options": STREAM_OPTIONS,
        **SAMPLING_FIELDS,
        **neutral(wire_tokens.COMPLETION_NEUTRAL),
    },
    required=["model", "prompt"],
    allOf=[
        streams_only(),
        only_with({"echo": {"const": True}}, unless={"max_tokens": either({"type": "null"}, {"minimum": 1, "type": "integer"})}),
        _NO_CHOOSING,
    ],
)
_TOKENIZE_FIELDS = {"model": _ONLY_MODEL, "return_token_strs": maybe(FLAG), **neutral(wire_tokens.TOKENIZE_NEUTRAL)}
_TOKENIZE_REQUEST = either(
    record(
        {**_TOKENIZE_FIELDS, "prompt": TEXT, "messages": {"type": "null"}, "add_special_tokens": maybe(FLAG)}, required=["prompt"]
    ),
    record(
        {
            **_TOKENIZE_FIELDS,
            "messages": ref("Messages"),
            "prompt": {"type": "null"},
            "add_special_tokens": {"enum": [None, False]},
        },
        required=["messages"],
    ),
)
_EMBEDDING_REQUEST = record(
    {
        "model": MODEL,
        "input": _texts(MAX_INPUTS),
        "encoding_format": {"enum": [None, "float", "base64"]},
        "user": maybe(TEXT),
        # It may also be as many as the model's vectors have, which a schema cannot say.
        **neutral({"dimensions": ()}),
    },
    required=["model", "input"],
)
_COUNT: Schema = {"type": "integer", "minimum": 0}
_LOGPROBS = shown(
    {
        "tokens": {"type": "array", "items": TEXT},
        "token_logprobs": {"type": "array", "items": {"type": ["number", "null"]}},
        "top_logprobs": {
            "type": "array",
            "items": {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
        },
        "text_offset": {"type": "array", "items": _COUNT},
    }
)
_CHOICE = shown(
    {"index": _COUNT, "text": TEXT, "logprobs": maybe(_LOGPROBS), "finish_reason": {"enum": ["stop", "length", None]}}
)
_COMPLETION = shown(
    {
        "id": TEXT,
        "object": {"const": "text_completion"},
        "created": {"type": "integer"},
        "model": TEXT,
        "system_fingerprint": {"type": ["string", "null"]},
        "choices": {"type": "array", "items": _CHOICE},
    }
)
_COMPLETION["properties"]["usage"] = maybe(ref("Usage"))
_VECTOR = either({"type": "array", "items": {"type": "number"}}, {"type": "string", "contentEncoding": "base64"})
_EMBEDDINGS = shown(
    {
        "object": {"const": "list"},
        "data": {"type": "array", "items": shown({"object": {"const": "embedding"}, "index": _COUNT, "embedding": _VECTOR})},
        "model": TEXT,
        "usage": shown({"prompt_tokens": _COUNT, "total_tokens": _COUNT}),
    }
)

TOKENS = ApiPart(
    operations=[
        Operation(
            path="/v1/completions",
            method="post",
            name="createCompletion",
            summary="Go on with plain prompts, or score them.",
            request=ref("CompletionRequest"),
            answer=ref("Completion"),
            events=ref("Completion"),
            refusals=(404, 504),
        ),
        Operation(
            path="/v1/embeddings",
            method="post",
            name="createEmbedding",
            summary="Turn texts into vectors of length 1.",
            request=ref("EmbeddingRequest"),
            answer=ref("EmbeddingList"),
            refusals=(404, 504),
        ),
        Operation(
            path="/tokenize",
            method="post",
            name="tokenize",
            summary="The tokens of a text or a conversation.",
            request=ref("TokenizeRequest"),
            answer=shown(
                {
                    "count": _COUNT,
                    "max_model_len": _COUNT,
                    "tokens": _IDS,
                    "token_strs": {"type": ["array", "null"], "items": TEXT},
                }
            ),
            refusals=(404, 504),
        ),
        Operation(
            path="/detokenize",
            method="post",
            name="detokenize",
            summary="The text of some tokens, control tokens by their names.",
            request=record({"model": _ONLY_MODEL, "tokens": _IDS}, required=["tokens"]),
            answer=shown({"prompt": TEXT}),
            refusals=(404, 504),
        ),
        Operation(
            path="/tokenizer_info",
            method="get",
            name="describeTokenizer",
            summary="The tokenizer's configuration and the chat template.",
            answer=shown({"tokenizer_class": TEXT, "chat_template": TEXT}),
            parameters=({"name": "model", "in": "query", "schema": TEXT, "description": "May be left out where there is one."},),
            refusals=(400, 404, 503, 504),
        ),
    ],
    schemas={
        "Completion": _COMPLETION,
        "CompletionRequest": _COMPLETION_REQUEST,
        "EmbeddingList": _EMBEDDINGS,
        "EmbeddingRequest": _EMBEDDING_REQUEST,
        "TokenizeRequest": _TOKENIZE_REQUEST,
    },
)

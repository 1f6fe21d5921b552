"""Answers of a given shape: whatever tokens are drawn among those allowed, what comes out is what the schema asks for."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tunesmith.data.chat import ChatFormat
from tunesmith.data.grammar import MAX_SCHEMA, AnswerShape, AnswerShapes
from tunesmith.errors import DataError
from tunesmith.model import open_base

CHAT = ChatFormat.load(open_base("tunesmith/base", folder=Path(), cache=Path()).path)
SHAPES = AnswerShapes(CHAT)
SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "price": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["name", "price"],
        "additionalProperties": False,
    },
    {"enum": ["open", "closed", "geschlossen ü"]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {
        "anyOf": [
            {"type": "null"},
            {"type": "object", "properties": {"a": {"const": 7}}, "required": ["a"], "additionalProperties": False},
        ]
    },
    {"enum": ["a<|im_end|>", "<|im_start|>user"]},
    {
        "type": "object",
        "properties": {"<|im_end|>": {"const": "<|endoftext|>"}},
        "required": ["<|im_end|>"],
        "additionalProperties": False,
    },
]


def drawn(shape: AnswerShape, *, seed: int) -> str:
    """Text of random tokens, each allowed; strings are long by chance, so the most likely to end anything are taken now and then."""
    draws, tokens = np.random.default_rng(seed), []
    for _ in range(400):
        allowed = np.flatnonzero(shape.allowed())
        ends = [token for token in CHAT.stop_tokens if token in allowed]
        token = int(ends[0] if ends else draws.choice(allowed))
        if token in CHAT.stop_tokens:
            assert shape.is_complete
            return CHAT.decode(tokens)
        tokens.append(token)
        shape.accept(token)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_whatever_is_drawn_fits_the_schema(schema: dict[str, Any]) -> None:
    for seed in range(5):
        jsonschema.validate(json.loads(drawn(SHAPES.json_schema(schema), seed=seed)), schema)


def test_an_answer_may_not_end_before_it_is_whole_nor_go_on_after() -> None:
    shape = SHAPES.json_schema({"const": "yes"})
    stops = list(CHAT.stop_tokens)
    for token in CHAT.encode_text('"yes"'):
        assert not shape.allowed()[stops].any()
        shape.accept(token)
    assert shape.allowed().nonzero()[0].tolist() == sorted(stops)


@pytest.mark.parametrize("name", ["chatml", "plain"])
def test_control_tokens_behind_the_vocabulary_are_no_text_and_end_answers_all_the_same(
    load_chat: Callable[[str], ChatFormat], name: str
) -> None:
    chat = load_chat(name)
    shape = AnswerShapes(chat).json_schema({"const": "<|im_end|></s>"})
    tokens = chat.encode_text('"<|im_end|></s>"')
    assert not set(tokens) & set(chat.stop_tokens)
    for token in tokens:
        shape.accept(token)
    assert shape.allowed().nonzero()[0].tolist() == sorted(chat.stop_tokens)


def test_any_object_is_an_object() -> None:
    allowed = SHAPES.json_object().allowed()
    (brace,) = CHAT.encode_text("{")
    (bracket,) = CHAT.encode_text("[")
    assert allowed[brace]
    assert not allowed[bracket]
    assert not allowed[list(CHAT.stop_tokens)].any()


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "object", "unevaluatedProperties": {"type": "string"}, "if": {}, "then": {}}, "cannot be used"),
        ({"$ref": "https://example.com/schema.json"}, "cannot be used"),
        ({"type": "strin"}, "cannot be used"),
        ({"enum": ["x" * MAX_SCHEMA]}, "is the most that is read"),
        (False, "cannot be used"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SHAPES.json_schema(schema)


@pytest.mark.timeout(60)
def test_a_schema_bomb_ends_in_an_error_and_not_in_hours() -> None:
    bomb: dict[str, Any] = {"type": "string", "pattern": "^(a{1,900}){1,900}$"}
    for _ in range(6):
        bomb = {"type": "object", "properties": {"a": bomb, "b": bomb}, "minProperties": 1}
    with contextlib.suppress(DataError):
        shape = SHAPES.json_schema(bomb)
        for _ in range(20):
            shape.accept(int(np.flatnonzero(shape.allowed())[0]))


def test_a_token_that_may_not_come_is_an_error() -> None:
    shape = SHAPES.json_schema({"const": 1})
    with pytest.raises(DataError, match="cannot be followed"):
        shape.accept(CHAT.encode_text("2")[0])

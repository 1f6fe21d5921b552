from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, get_type_hints

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from tunesmith.serve import wire
from tunesmith.serve.completions import _check_size
from tunesmith.serve.engine import SamplingParams
from tunesmith.serve.json_body import read_json
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.wire import read_chat_request
from tunesmith.serve.wire_tokens import read_completion_request

USER = {"role": "user", "content": "Hello"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {"type": "object"}}}


def read(**fields: Any) -> wire.ChatRequest:
    return read_chat_request({"model": "m", "messages": [USER], **fields})


def refused(**fields: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


def test_absent_and_null_fields_have_the_defaults_of_the_openai_api():
    fields = set(get_type_hints(CompletionCreateParamsBase)) - {"model", "messages"}
    request = read(**dict.fromkeys(fields), stream=None)
    assert request == read()
    assert (request.params, request.num_answers) == (SamplingParams(), 1)
    assert (request.stop, request.stream, request.include_usage) == ((), False, False)


def test_newer_names_for_who_asks_and_hints_that_change_no_answer_are_taken():
    assert read(safety_identifier="ada", prompt_cache_key="boutique").user == "ada"
    assert read(safety_identifier="ada", user="bob").user == "bob"
    assert refused(prompt_cache_key=1).param == "prompt_cache_key"
    assert refused(safety_identifier={}).param == "safety_identifier"


def test_every_field_of_the_openai_client_is_known():
    for field in get_type_hints(CompletionCreateParamsBase):
        if field not in wire.SUPPORTED:
            assert refused(**{field: {"some": "thing"}}).code == "unsupported_parameter"


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "logprobs": False, "top_logprobs": 0},
        {"response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "parallel_tool_calls": True},
        {"store": False, "service_tier": "auto", "modalities": ["text"], "n": 1, "reasoning_effort": "none"},
        {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "ignore_eos": False},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    ],
)
def test_values_that_ask_for_nothing_are_accepted(fields):
    request = read(**fields)
    assert (request.params, request.num_answers) == (SamplingParams(), 1)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperatur": 1}, "temperatur", "unknown_parameter"),
        ({"tools": [{}]}, "tools", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        ({"response_format": SCHEMA | {"strict": True}}, "response_format.strict", "unknown_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": "b"}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": "1"}, "frequency_penalty", "invalid_type"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"repetition_penalty": 1e-38}, "repetition_penalty", "invalid_value"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"min_p": 1.1}, "min_p", "invalid_value"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_type"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"5": True}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"n": 10**9}, "n", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 4}, "model", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Hello"}, "messages", "invalid_type"),
        ({"messages": [USER] * 5000}, "messages", "invalid_value"),
        ({"messages": [USER, 3]}, "messages[1]", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [USER | {"role": "Bot"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [USER | {"role": "tool"}]}, "messages[0].role", "unsupported_parameter"),
        ({"messages": [USER | {"name": "Ada"}]}, "messages[0].name", "unsupported_parameter"),
        ({"messages": [USER | {"weight": 1}]}, "messages[0].weight", "unknown_parameter"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "unsupported_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_p": 1.01}, "top_p", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": list("abcde")}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", None]}, "stop", "invalid_type"),
        ({"stop": "x" * 1001}, "stop", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown_parameter"),
        ({"metadata": []}, "metadata", "invalid_type"),
        ({"user": 1}, "user", "invalid_type"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields, param, code):
    refusal = refused(**fields)
    assert (refusal.param, refusal.code) == (param, code)
    assert refusal.message.startswith(param)


def test_what_says_how_tokens_are_chosen_is_read():
    request = read(
        n=3,
        logprobs=True,
        top_logprobs=2,
        top_k=5,
        min_p=0.1,
        presence_penalty=-2,
        frequency_penalty=0.5,
        repetition_penalty=1.1,
        logit_bias={"7": -100, "12": 3},
        response_format=SCHEMA,
    )
    assert request.num_answers == 3
    assert request.params == SamplingParams(
        top_k=5,
        min_p=0.1,
        presence_penalty=-2.0,
        frequency_penalty=0.5,
        repetition_penalty=1.1,
        logit_bias={7: -100.0, 12: 3.0},
        num_logprobs=2,
        schema={"type": "object"},
    )
    assert read(logprobs=True).params.num_logprobs == 0
    assert read(top_k=-1).params.top_k == 0
    assert read(response_format={"type": "json_object"}).params.schema == {"type": "object"}


def test_edge_values_are_accepted():
    request = read(temperature=0, top_p=1, seed=-(2**63), stop="\n", max_tokens=3, max_completion_tokens=3)
    assert (request.params.temperature, request.params.top_p, request.params.seed) == (0.0, 1.0, -(2**63))
    assert (request.stop, request.params.max_tokens) == (("\n",), 3)


def test_all_problems_are_told_at_once_and_a_misspelt_field_gets_its_likely_name():
    refusal = refused(temperatur=1, top_p=2, max_tokens="many")
    assert all(part in refusal.message for part in ("`temperature`", "top_p: ", "max_tokens: "))


@pytest.mark.parametrize(
    "fields",
    [
        {f"field{i}": 1 for i in range(100_000)},
        {"messages": [{"role": "x" * 1000, "content": 1, "y" * 5000: 2}] * 4000},
        {"x" * 1_000_000: 1},
        {"model": "m" * 1_000_000, "seed": "s" * 1_000_000},
    ],
)
def test_a_large_wrong_request_gets_a_small_answer(fields):
    assert len(refused(**fields).message) <= 10 * 1000 + 9


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(wire.SUPPORTED | set(wire.NEUTRAL))


@given(body=JSON | st.dictionaries(st.sampled_from([*FIELDS, "role", "content"]), JSON | st.just([USER]), max_size=6))
def test_any_json_is_either_read_or_refused(body):
    with suppress(Refusal):  # nothing else may be raised
        request = read_chat_request(read_json(orjson.dumps(body)))
        assert request.messages
        assert 0 <= request.params.temperature <= 2


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"a": 1,}', b"\xff\xfe", b'{"a": NaN}', b'"\\ud800"', b'{"\\udc00": 1}', b"[" * 100_000, b'{"a":' * 2000],
)
def test_what_is_not_json_is_refused_as_such(body):
    with pytest.raises(Refusal) as caught:
        read_json(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "body",
    [
        b'{"temperature": 0, "temperature": 2}',
        b'{"a": 1, "b\\\\": 2, "a": 3}',
        b'{"a" : 1, "b" :2, "a": 3}',
        b'{"messages": [{"role": "user", "content": ":)", "content": "\\": x"}]}',
        b'{"\\u0061": 1, "a": null}',
        b'{"a": {"b": 1}, "a": {"b": 2}}',
    ],
)
def test_a_key_that_stands_twice_with_two_values_is_refused(body):
    with pytest.raises(Refusal, match="twice in one object") as caught:
        read_json(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@given(value=JSON, spaced=st.booleans())
def test_whatever_has_every_key_once_is_read_as_it_is(value, spaced):
    text = json.dumps(value, ensure_ascii=spaced, separators=(", ", " : ") if spaced else (",", ":"))
    assert read_json(text.encode()) == orjson.loads(text)


def test_one_value_twice_is_one_value():
    assert read_json(b'{"a": 1, "a": 1, "c": [":", "\\\\"]}') == {"a": 1, "c": [":", "\\"]}


def test_likelihoods_of_an_answer_are_limited_together():
    request = read_completion_request({"model": "m", "prompt": [[1]], "echo": True, "logprobs": 20, "max_tokens": 0})
    most = 2**20 // 21
    _check_size([[1] * most], request=request)
    with pytest.raises(Refusal, match="likelihoods") as caught:
        _check_size([[1] * most, [1]], request=request)
    assert (caught.value.status, caught.value.param) == (400, "logprobs")

"""What the openai client sees of `/v1/completions`, and vLLM's clients of `/tokenize`, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import openai
import pytest
import torch
from openai.types.completion_create_params import CompletionCreateParamsBase

import tunesmith.model
from tunesmith.data.chat import ChatFormat
from tunesmith.model import load_model, this_machine
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.records import Message, Role
from tunesmith.serve import TokenEngine, wire_tokens

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
HELLO = [{"role": "user", "content": "Do you open on Sundays?"}]


MANY_BYTES = "Größe 😀 naïve 日本語"


@pytest.fixture(scope="module")
def engine() -> TokenEngine:
    chat = ChatFormat.load(EMBEDDED)
    model = ChatModel(
        ref="base@1", model=load_model(EMBEDDED, machine=this_machine()), chat=chat, machine=this_machine(), max_length=128
    )
    served = model.served()
    assert isinstance(served, TokenEngine)
    return served


@pytest.fixture
def url(engine: TokenEngine, running: Callable[..., Any]) -> str:
    return str(running(engines={"base": engine}).url)


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def plain_log_likelihoods(tokens: Sequence[int]) -> torch.Tensor:
    """By transformers' own loss, one position at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    logits = model(torch.tensor([tokens])).logits[0]
    return torch.stack(
        [-torch.nn.functional.cross_entropy(logits[i], torch.tensor(tokens[i + 1])) for i in range(len(tokens) - 1)]
    )


def test_the_openai_client_scores_a_prompt_given_as_tokens(client: openai.OpenAI) -> None:
    chat = ChatFormat.load(EMBEDDED)
    prompt = chat.encode_prompt([Message(role=Role.USER, content="Is the café open?")])
    answer = client.completions.create(model="base", prompt=prompt, max_tokens=0, echo=True, logprobs=2)
    (choice,) = answer.choices
    assert answer.object == "text_completion"
    assert (answer.model, choice.finish_reason) == ("base@1", "length")
    assert choice.logprobs is not None
    found = choice.logprobs.token_logprobs
    assert found is not None
    assert found[0] is None
    assert torch.allclose(torch.tensor(found[1:]), plain_log_likelihoods(prompt), atol=1e-4)
    assert choice.text == chat.decode(prompt, keep_control=True)
    assert "".join(choice.logprobs.tokens or []).startswith("<|im_start|>")
    assert all(2 <= len(top) <= 3 for top in (choice.logprobs.top_logprobs or [])[1:])
    told = zip(choice.logprobs.tokens or [], found, choice.logprobs.top_logprobs or [], strict=True)
    assert all(top[token] == value for token, value, top in [*told][1:])
    assert choice.logprobs.text_offset == [len("".join((choice.logprobs.tokens or [])[:i])) for i in range(len(prompt))]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), 0)


def test_a_completion_says_of_its_own_tokens_what_scoring_says_of_them(client: openai.OpenAI, engine: TokenEngine) -> None:
    answer = client.completions.create(model="base", prompt="The shop is", max_tokens=5, logprobs=1, temperature=0)
    echoed = client.completions.create(model="base", prompt="The shop is", max_tokens=5, logprobs=1, temperature=0, echo=True)
    said, all_said = answer.choices[0].logprobs, echoed.choices[0].logprobs
    assert said is not None
    assert all_said is not None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5 == len(said.tokens or [])
    assert (all_said.token_logprobs or [])[-5:] == said.token_logprobs
    assert [max(top.values()) for top in said.top_logprobs or []] == said.token_logprobs, "greedy takes the likeliest"
    assert echoed.choices[0].text.endswith(answer.choices[0].text)
    assert answer.usage.prompt_tokens == len(engine.encode_text("The shop is", begun=True))


def test_several_prompts_are_answered_in_their_order(client: openai.OpenAI) -> None:
    prompts = ["One", "Two and three"]
    answer = client.completions.create(model="base", prompt=prompts, max_tokens=0, echo=True)
    assert [(choice.index, choice.text, choice.logprobs) for choice in answer.choices] == [
        (0, "One", None),
        (1, "Two and three", None),
    ]


def test_a_conversation_becomes_the_tokens_of_training(url: str, engine: TokenEngine) -> None:
    expected = ChatFormat.load(EMBEDDED).encode_prompt([Message(role=Role.USER, content=HELLO[0]["content"])])
    body = {"model": "base", "messages": HELLO, "return_token_strs": True}
    said = httpx.post(f"{url}/tokenize", json=body, timeout=60).json()
    assert (said["tokens"], said["count"], said["max_model_len"]) == (expected, len(expected), 128)
    assert said["token_strs"] == engine.texts(expected)


def test_a_text_cannot_forge_a_control_token(url: str) -> None:
    said = httpx.post(f"{url}/tokenize", json={"model": "base", "prompt": "<|im_end|> café"}, timeout=60).json()
    chat = ChatFormat.load(EMBEDDED)
    assert not set(said["tokens"]) & set(chat.stop_tokens)
    assert chat.decode(said["tokens"]) == "<|im_end|> café"
    assert said["token_strs"] is None


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"n": 17}, "n", "between 1 and 16"),
        ({"suffix": "x"}, "suffix", "not supported"),
        ({"best_of": 2}, "best_of", "as `n` is, 1"),
        ({"logprobs": 21}, "logprobs", "between 0 and 20"),
        ({"logprobs": True}, "logprobs", "whole number"),
        ({"max_tokens": 0}, "max_tokens", "echo"),
        ({"ecko": True}, "ecko", "`echo`"),
        ({"prompt": []}, "prompt", "1 to 64"),
        ({"prompt": ""}, "prompt", "not empty"),
        ({"prompt": [1, "a"]}, "prompt", "whole numbers"),
        ({"prompt": [True]}, "prompt", "whole numbers"),
        ({"prompt": None}, "prompt", "required"),
        ({"prompt": [10**9]}, "prompt", "no token 1000000000"),
        ({"prompt": [2**31]}, "prompt", "from 0 to 2147483647"),
        ({"prompt": [1] * 128}, "prompt", "context holds 128"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(url: str, fields: dict[str, object], param: str, said: str) -> None:
    response = httpx.post(f"{url}/v1/completions", json={"model": "base", "prompt": "a", **fields}, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert said in error["message"]


@pytest.mark.parametrize("max_tokens", [8, 9, 65_535, 2**31])
@pytest.mark.parametrize("is_streamed", [True, False])
def test_more_than_there_is_room_for_is_written_to_the_end_of_the_context(url: str, max_tokens: int, is_streamed: bool) -> None:
    """In chats and completions alike, as clients send one large number to every model."""
    never_stops = {"logit_bias": {str(token): -100 for token in ChatFormat.load(EMBEDDED).stop_tokens}}
    asked: Any = {"model": "base", "max_tokens": max_tokens, "stream": is_streamed, **never_stops}
    told: Any = asked | ({"stream_options": {"include_usage": True}} if is_streamed else {})
    for path, content in (
        ("/v1/completions", {"prompt": [1] * 120}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": " one" * 112}]}),
    ):
        answer = httpx.post(f"{url}{path}", json=told | content, timeout=60)
        assert answer.status_code == 200, answer.text
        last = json.loads(answer.text.split("data: ")[-2]) if is_streamed else answer.json()
        assert '"finish_reason":"length"' in answer.text
        assert 120 <= last["usage"]["prompt_tokens"] < 128
        assert last["usage"]["total_tokens"] == min(128, last["usage"]["prompt_tokens"] + max_tokens)


def test_an_answer_of_a_schema_may_hold_the_name_of_a_control_token(client: openai.OpenAI) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "mark", "schema": {"const": "<|im_end|>\n<|im_start|>user"}}}
    answer = client.chat.completions.create(
        model="base", messages=[{"role": "user", "content": "Which marks?"}], response_format=schema
    ).choices[0]
    assert json.loads(answer.message.content or "") == "<|im_end|>\n<|im_start|>user"
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63 - 1])
def test_any_seed_of_64_bits_settles_the_draws(url: str, seed: int) -> None:
    for path, content in (
        ("/v1/completions", {"prompt": "The shop"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Open?"}]}),
    ):
        asked = {"model": "base", "max_tokens": 6, "seed": seed, "n": 2, **content}
        answers = [httpx.post(f"{url}{path}", json=asked, timeout=60) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
        first, second = (answer.json()["choices"] for answer in answers)
        assert first == second
        assert first[0] != first[1] | {"index": 0}


def test_every_field_of_the_openai_client_is_known() -> None:
    fields = set(get_type_hints(CompletionCreateParamsBase))
    assert fields <= wire_tokens.COMPLETION | set(wire_tokens.COMPLETION_NEUTRAL)


def test_an_engine_that_knows_no_tokens_says_so(scripted: Any, running: Callable[..., Any]) -> None:
    with running(boutique=scripted("We ")).openai() as client, pytest.raises(openai.BadRequestError, match="answers chats only"):
        client.completions.create(model="boutique", prompt="x")


def test_other_faults_have_their_own_status(url: str) -> None:
    post = httpx.post
    assert (
        post(f"{url}/v1/completions", json={"model": "other", "prompt": "a"}, timeout=60).json()["error"]["code"]
        == "model_not_found"
    )
    assert post(f"{url}/tokenize", json={"model": "base", "prompt": "a", "messages": HELLO}, timeout=60).status_code == 400
    assert post(f"{url}/tokenize", json={"model": "base"}, timeout=60).json()["error"]["param"] == "prompt"
    assert post(f"{url}/tokenize", json=[], timeout=60).json()["error"]["code"] == "invalid_type"
    assert httpx.get(f"{url}/tokenize", timeout=60).status_code == 405


@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_prompt_comes_back_as_it_was_sent(stream: bool, client: openai.OpenAI) -> None:
    asked = {"model": "base", "prompt": MANY_BYTES, "max_tokens": 3, "temperature": 0, "echo": True}
    alone = client.completions.create(**{**asked, "echo": False}).choices[0].text  # type: ignore[call-overload]
    found = client.completions.create(**asked, stream=stream)  # type: ignore[call-overload]
    parts = [chunk.choices[0].text for chunk in found] if stream else [found.choices[0].text]
    assert "".join(parts) == MANY_BYTES + alone


def test_offsets_point_into_the_text(client: openai.OpenAI) -> None:
    """A token that holds whole characters stands at its offset; the parts of a character stand where it does."""
    found = client.completions.create(model="base", prompt=MANY_BYTES, max_tokens=8, temperature=0, echo=True, logprobs=0)
    (choice,) = found.choices
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.text_offset is not None
    places = list(zip(told.tokens, told.text_offset, strict=True))
    whole = [(token, place) for token, place in places if "\ufffd" not in token]
    assert len(whole) > 8
    assert all(choice.text[place : place + len(token)] == token for token, place in whole)
    assert any(choice.text[place] == "日" for token, place in places if "\ufffd" in token)
    assert told.text_offset == sorted(told.text_offset)


def test_a_token_behind_a_character_that_is_never_complete_stands_behind_its_sign(client: openai.OpenAI) -> None:
    chat = ChatFormat.load(EMBEDDED)
    half, whole = chat.encode_text("日", begun=False)[:1], chat.encode_text(" shop", begun=False)
    assert chat.decode(half) == "\ufffd"
    (choice,) = client.completions.create(
        model="base", prompt=[*half, *whole, *half, *whole], max_tokens=0, echo=True, logprobs=0
    ).choices
    assert choice.text == "\ufffd shop\ufffd shop"
    assert choice.logprobs is not None
    places = zip(choice.logprobs.tokens or [], choice.logprobs.text_offset or [], strict=True)
    assert all(choice.text[place:].startswith(token) for token, place in places)


@pytest.mark.parametrize("echo", [False, True])
def test_nothing_is_told_of_a_token_that_a_stop_string_cuts_away(echo: bool, client: openai.OpenAI) -> None:
    asked: Any = {"model": "base", "prompt": "The shop", "max_tokens": 12, "temperature": 0, "logprobs": 1, "echo": echo}
    whole = client.completions.create(**asked).choices[0]
    assert whole.logprobs is not None
    written = whole.text.removeprefix("The shop")
    stop = written[len(written) // 2 :][:5]
    cut = client.completions.create(**asked, stop=[stop]).choices[0]
    assert cut.logprobs is not None
    tokens = cut.logprobs.tokens or []
    assert stop not in "".join(tokens[: len(tokens) - 1])
    assert tokens == (whole.logprobs.tokens or [])[: len(tokens)]
    assert (cut.logprobs.token_logprobs or [])[1:] == pytest.approx(
        (whole.logprobs.token_logprobs or [])[1 : len(tokens)], abs=1e-4
    )
    assert max(cut.logprobs.text_offset or []) < len(cut.text)
    assert len("".join(tokens)) >= len(cut.text)

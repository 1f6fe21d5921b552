"""`/v1/completions` streamed, stopped and several at once; tokens to text and back; vectors. Over a real socket."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest

from tunesmith.serve import SamplingParams

from .whole_engine import STOP, WholeEngine


@pytest.fixture
def engine() -> WholeEngine:
    return WholeEngine()


@pytest.fixture
def url(engine: WholeEngine, running: Callable[..., Any]) -> str:
    return str(running(engines={"boutique": engine}, keep_alive_s=0.05).url)


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def post(url: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, timeout=60)


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", ""), response.text
    return [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(":")]


def test_the_bytes_of_a_stream_are_those_of_the_openai_api(url: str) -> None:
    response = post(url, "/v1/completions", model="boutique", prompt="ab", stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-model-version"] == "boutique@1"
    *parts, last = chunks_of(response)
    assert "".join(part["choices"][0]["text"] for part in parts) == "ababab"
    assert [part["choices"][0]["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + ["stop"]
    assert all(part["object"] == "text_completion" and part["usage"] is None for part in parts)
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 3
    assert last["usage"]["total_tokens"] == 3 + last["usage"]["completion_tokens"]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_stop_string_ends_an_answer_and_no_part_of_it_is_shown(
    url: str, client: openai.OpenAI, engine: WholeEngine, is_streamed: bool
) -> None:
    wanted: dict[str, Any] = {"model": "boutique", "prompt": "abcd", "stop": ["cd", "zz"]}
    if is_streamed:
        with client.completions.create(**wanted, stream=True) as stream:
            parts = [part.choices[0] for part in stream]
        assert [part.text for part in parts] == ["a", "b", ""], "c was held back"
        assert parts[-1].finish_reason == "stop"
    else:
        (choice,) = client.completions.create(**wanted).choices
        assert (choice.text, choice.finish_reason) == ("ab", "stop")
    deadline = time.monotonic() + 30
    while engine.num_running:  # it does not go on for nobody
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_several_answers_to_several_prompts_keep_their_order(client: openai.OpenAI, is_streamed: bool) -> None:
    wanted: dict[str, Any] = {"model": "boutique", "prompt": [[1, 97, 98], "xy"], "n": 2, "best_of": 2, "max_tokens": 3}
    texts = ["", "", "", ""]
    if is_streamed:
        with client.completions.create(**wanted, stream=True) as stream:
            for part in stream:
                texts[part.choices[0].index] += part.choices[0].text
    else:
        answer = client.completions.create(**wanted)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        texts = [choice.text for choice in answer.choices]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 12)
    # Each answer is drawn by its own number, and this engine begins one token later for each.
    assert texts == ["ab", "ba", "xy", "xyx"]


def test_a_streamed_answer_has_its_likelihoods_in_its_last_part(url: str) -> None:
    wanted: dict[str, Any] = {"model": "boutique", "prompt": "ab", "logprobs": 1, "echo": True, "max_tokens": 2}
    whole = post(url, "/v1/completions", **wanted).json()["choices"][0]
    parts = [part["choices"][0] for part in chunks_of(post(url, "/v1/completions", **wanted, stream=True))]
    assert [part["logprobs"] for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1]["logprobs"] == whole["logprobs"]
    assert "".join(part["text"] for part in parts) == whole["text"]
    assert len(whole["logprobs"]["tokens"]) == 5


def test_a_failure_in_mid_stream_is_an_error_event_and_an_early_one_has_its_own_status(
    engine: WholeEngine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(tokens: Sequence[int], params: SamplingParams, /) -> Iterator[int]:
        yield 97
        raise RuntimeError("the weights are gone")

    monkeypatch.setattr(engine, "go_on", breaks)
    response = post(url, "/v1/completions", model="boutique", prompt="a", stream=True)
    assert response.status_code == 200
    assert response.text.rstrip().rpartition("\n")[2].startswith('data: {"error":')
    assert "[DONE]" not in response.text
    assert "weights" not in response.text
    early = post(url, "/v1/completions", model="boutique", prompt=[2**31 - 1] * 3, stream=True, max_tokens=2**31)
    assert early.status_code == 200  # no fault of the request: the context is long
    engine.max_length = 10
    early = post(url, "/v1/completions", model="boutique", prompt="a" * 20, stream=True)
    assert (early.status_code, early.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_silent_stream_is_kept_alive(engine: WholeEngine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()

    def waits(tokens: Sequence[int], params: SamplingParams, /) -> Iterator[int | None]:
        goes_on.wait(60)
        yield from (97, None)

    monkeypatch.setattr(engine, "go_on", waits)
    body = {"model": "boutique", "prompt": "a", "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        assert [next(lines), next(lines)] == [": keep-alive", ""]
        goes_on.set()
        assert any('"text":"a"' in line for line in lines)


def test_tokens_become_text_and_text_tokens_without_naming_the_only_model(url: str) -> None:
    tokens = post(url, "/tokenize", prompt="Grüß", add_special_tokens=False).json()["tokens"]
    assert post(url, "/detokenize", tokens=[*tokens, 2]).json() == {"prompt": f"Grüß{STOP}"}
    assert post(url, "/detokenize", tokens=[2**31]).json()["error"]["param"] == "tokens"
    assert post(url, "/detokenize", tokens=[]).json() == {"prompt": ""}
    info = httpx.get(f"{url}/tokenizer_info").json()
    assert (info["tokenizer_class"], info["eos_token"]) == ("Characters", STOP)
    assert post(url, "/tokenize", prompt=STOP, add_special_tokens=False).json()["tokens"] == [2], "lm-eval looks an id up by this"
    assert post(url, "/tokenize", prompt=f"{STOP}.", add_special_tokens=False).json()["count"] == len(STOP) + 1
    assert post(url, "/tokenize", prompt=STOP).json()["count"] == len(STOP) + 1, "a text that begins is a text"
    assert httpx.get(f"{url}/tokenizer_info?moddel=x").status_code == 400


def test_where_there_are_several_models_one_must_be_named(running: Callable[..., Any]) -> None:
    url = running(engines={"a": WholeEngine(ref="a@1"), "b": WholeEngine(ref="b@1")}).url
    assert post(url, "/detokenize", tokens=[97]).json()["error"]["param"] == "model"
    assert post(url, "/detokenize", tokens=[97], model="b").status_code == 200
    assert httpx.get(f"{url}/tokenizer_info?model=b@1").status_code == 200


def test_the_openai_client_gets_vectors_as_numbers_and_as_bytes(url: str, client: openai.OpenAI, engine: WholeEngine) -> None:
    answer = client.embeddings.create(model="boutique", input=["ab", "abc"])  # the client asks for base64 by itself
    assert [one.embedding for one in answer.data] == [[1.0, 0.0, 3.0], [1.0, 0.0, 4.0]]
    assert (answer.model, answer.usage.total_tokens) == ("boutique@1", 7)
    raw = post(url, "/v1/embeddings", model="boutique", input=[97, 98], encoding_format="base64").json()["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(raw)) == (1.0, 0.0, 2.0)
    engine.num_passes = 0
    many = post(url, "/v1/embeddings", model="boutique", input=["x" * 999] * 5).json()["data"]
    assert [one["index"] for one in many] == list(range(5))
    assert engine.num_passes == 3, "two texts of 1,000 tokens a pass"
    as_many = client.embeddings.create(model="boutique", input="ab", dimensions=3).data[0].embedding
    assert as_many == [1.0, 0.0, 3.0]
    for wrong in (
        {"dimensions": 2},
        {"dimensions": 0},
        {"dimensions": True},
        {"input": ""},
        {"input": []},
        {"encoding_format": "int8"},
    ):
        refused = post(url, "/v1/embeddings", **{"model": "boutique", "input": "a", **wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(wrong)))


def test_an_engine_that_chats_only_says_so(scripted: Any, running: Callable[..., Any]) -> None:
    url = running(boutique=scripted("We ")).url
    for path, body in (("/v1/embeddings", {"model": "boutique", "input": "a"}), ("/detokenize", {"tokens": [1]})):
        assert post(url, path, **body).json()["error"]["param"] == "model"
    assert httpx.get(f"{url}/tokenizer_info").status_code == 400

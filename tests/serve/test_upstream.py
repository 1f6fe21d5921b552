"""Our server over somebody else's engine: what it is asked, what it answers, and what becomes of its failures."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from tunesmith.serve.engine import BatchingEngine
from tunesmith.serve.upstream import UpstreamEngine
from tunesmith.serve.upstream_ask import PromptFormat
from tunesmith.serve.upstream_driver import OPENAI, Driver
from tunesmith.serve.upstream_link import Link
from tunesmith.serve.upstream_llama_server import LLAMA_SERVER
from tunesmith.serve.upstream_sglang import SGLANG
from tunesmith.serve.upstream_vllm import VLLM

from .fakes_upstream import BASE, Fake, Plain, error, flat_error, serving

DRIVERS = {"vllm": VLLM, "sglang": SGLANG, "llama": LLAMA_SERVER, "openai": OPENAI}
LAYOUT = PromptFormat(lambda messages: list(messages[-1].content.encode()), (7, 9))
Opened = Callable[..., UpstreamEngine]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Makes engines over a fake, or an address; their links are closed at the end."""
    ends: list[Callable[[], object]] = []

    def open_engine(fake: Fake | str, *, driver: Driver | None = None, key: str | None = None, **options: Any) -> UpstreamEngine:
        if isinstance(fake, Fake):
            server = serving(fake)
            url = server.__enter__()
            ends.append(lambda: server.__exit__(None, None, None))
            driver = driver or DRIVERS[fake.kind]
        else:
            url = fake
        driver = driver or VLLM
        link = Link(url, paths=driver.may_ask, api_key=key, patience_s=options.pop("patience_s", 20.0))
        ends.append(link.close)
        given = {"ref": "boutique@1", "model": {"model": BASE}, "max_length": 100, **options}
        return UpstreamEngine(link=link, driver=driver, **given)

    yield open_engine
    for end in reversed(ends):
        end()


class Asking(NamedTuple):
    """Our server, and one client for all that a test asks it."""

    running: Any
    client: httpx.Client

    def post(self, **fields: Any) -> httpx.Response:
        body = {"model": "boutique", "messages": [{"role": "user", "content": "Do you open on Sundays?"}], **fields}
        return self.client.post(f"{self.running.url}/v1/chat/completions", json=body)


@pytest.fixture
def asking(running) -> Iterator[Callable[..., Asking]]:
    """Puts an engine behind our server."""
    with httpx.Client(timeout=60, verify=False) as client:
        yield lambda engine, **options: Asking(running(engines={"boutique": engine}, **options), client)


def chat(fake: Fake) -> dict[str, Any]:
    """The only answer that was asked for."""
    (asked,) = [one for one in fake.asked if one.path.endswith("completions")]
    return asked.body


def texts(streamed: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("kind", DRIVERS)
def test_an_answer_comes_through_whole_and_streamed(kind: str, opened: Opened, asking) -> None:
    heard: list[Any] = []
    fake = Fake(kind)
    engine = opened(fake)
    assert isinstance(engine, BatchingEngine)
    server = asking(engine, on_interaction=heard.append)
    asked: dict[str, Any] = {"model": "boutique", "messages": [{"role": "user", "content": "Do you open on Sundays?"}]}
    with server.running.openai() as client:
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert whole.choices[0].message.content == "Yes, on Sundays too."
    assert whole.choices[0].finish_reason == "stop"
    assert whole.model == "boutique@1"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Yes, on Sundays too."
    # The server counts the token that ends an answer, and the prompt by its own template.
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    for usage in (whole.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == (7, 7)
    assert [(one.answer, one.arm, one.num_prompt_tokens, one.num_completion_tokens) for one in heard] == [
        ("Yes, on Sundays too.", "boutique@1", 7, 7)
    ] * 2


CHANGED = {
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.25,
    "frequency_penalty": -0.25,
    "max_tokens": 9,
    "top_k": 40,
    "min_p": 0.125,
    "repetition_penalty": 1.5,
    "seed": 2**40 + 3,
    "logit_bias": {"5": 1.5},
}
COMMON = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.25, "frequency_penalty": -0.25, "max_tokens": 9}
EXTRAS = {"top_k": 40, "min_p": 0.125, "repetition_penalty": 1.5, "seed": 2**40 + 3, "logit_bias": {"5": 1.5}}
LLAMA = {"top_k": 40, "min_p": 0.125, "repeat_penalty": 1.5, "seed": 3, "logit_bias": {"5": 1.5}}


@pytest.mark.parametrize(
    ("kind", "expected", "options"),
    [
        ("vllm", EXTRAS, {"include_usage": True, "continuous_usage_stats": True}),
        ("sglang", EXTRAS, {"include_usage": True, "continuous_usage_stats": True}),
        ("llama", LLAMA, {"include_usage": True}),
    ],
)
def test_every_field_reaches_the_server_under_its_own_name(
    kind: str, expected: dict[str, Any], options: dict[str, Any], opened: Opened, asking
) -> None:
    fake = Fake(kind)
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    response = asking(opened(fake)).post(**CHANGED, response_format=schema)
    assert response.status_code == 200, response.text
    assert chat(fake) == {
        "model": BASE,
        "messages": [{"role": "user", "content": "Do you open on Sundays?"}],
        "stream": True,
        "stream_options": options,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        **COMMON,
        **expected,
    }


@pytest.mark.parametrize(
    ("kind", "neutral"),
    [
        ("vllm", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("sglang", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("llama", {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}),
        ("openai", {}),
    ],
)
def test_what_changes_nothing_is_said_too_so_that_defaults_of_the_server_have_no_say(
    kind: str, neutral: dict[str, Any], opened: Opened, asking
) -> None:
    fake = Fake(kind)
    asking(opened(fake)).post()
    usual = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    fixed = {"model", "messages", "stream", "stream_options"}
    assert {name: value for name, value in chat(fake).items() if name not in fixed} == usual | neutral


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_known_layout_is_sent_as_token_ids_and_ends_where_training_ended(kind: str, opened: Opened, asking) -> None:
    fake = Fake(kind)
    server = asking(opened(fake, layout=LAYOUT))
    response = server.post(logprobs=True, top_logprobs=2)
    body = chat(fake)
    assert fake.paths() == ["/v1/completions"]
    prompt = list(b"Do you open on Sundays?")
    assert (body["prompt"], body["stop_token_ids"]) == (prompt, [7, 9])
    assert body["max_tokens"] == 100 - len(prompt)  # their default is 16
    assert body["logprobs"] == 2
    assert "messages" not in body
    content = response.json()
    assert content["choices"][0]["message"]["content"] == "Yes, on Sundays too."
    assert content["usage"]["prompt_tokens"] == len(prompt)
    told = content["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in told] == list(fake.words)
    assert [other["token"] for other in told[0]["top_logprobs"]] == ["Yes", "No"]
    assert server.post(messages=[{"role": "user", "content": "x" * 100}]).json()["error"]["code"] == "context_length_exceeded"
    assert server.post(max_tokens=5000).status_code == 200
    assert fake.asked[-1].body["max_tokens"] == 100 - len(prompt)


def test_a_server_with_its_own_template_only_is_sent_the_messages(opened: Opened, asking) -> None:
    fake = Fake("llama")
    asking(opened(fake, layout=LAYOUT)).post()
    assert fake.paths() == ["/v1/chat/completions"]


def test_a_field_that_the_server_is_not_known_to_understand_is_refused_by_name(opened: Opened, asking) -> None:
    fake = Fake("openai")
    server = asking(opened(fake))
    for field, value in {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "response_format": {"type": "json_object"}}.items():
        response = server.post(**{field: value})
        refused = response.json()["error"]
        assert (response.status_code, refused["code"], refused["param"]) == (400, "unsupported_parameter", field)
    assert fake.asked == []


def test_likelihoods_that_are_asked_for_and_not_told_are_refused(opened: Opened, asking) -> None:
    server = asking(opened(Fake(tells_likelihoods=False)))
    response = server.post(logprobs=True)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "logprobs")


SECRET = "sk-behind-5f2a"
LEAK = f"File /srv/models/boutique/x.py at 0x7f21aa00bb10 of http://10.0.0.7:8000/v1 and engine-0.internal:8000 with {SECRET}"


REFUSALS: list[tuple[Plain, int, str, str | None]] = [
    (error(429, "Too many requests."), 503, "overloaded", "5"),
    (error(503, "busy"), 503, "overloaded", "5"),
    (Plain(503, error(503, "busy").content, {"retry-after": "17"}), 503, "overloaded", "17"),
    (Plain(429, {}, {"retry-after": "86400"}), 503, "overloaded", "120"),
    (Plain(503, "upstream connect error", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), 503, "overloaded", "5"),
    (error(404, f"The model `{BASE}` does not exist."), 503, "overloaded", "5"),
    (error(400, LEAK), 400, "invalid_value", None),
    (error(400, "This model's maximum context length is 128 tokens."), 400, "context_length_exceeded", None),
    (flat_error(400, "The input is longer than the model's context length."), 400, "context_length_exceeded", None),
    (Plain(422, {"detail": [{"loc": ["body"], "msg": "bad"}]}), 400, "invalid_value", None),
    (error(413, "too large"), 413, "invalid_value", None),
    (Plain(401, {"error": "Unauthorized"}), 502, "server_error", None),
    (error(500, LEAK), 502, "server_error", None),
    (Plain(500, "Traceback (most recent call last):\n  File"), 502, "server_error", None),
    (error(504, "gateway"), 504, "timeout", None),
    (Plain(302, "", {"location": "http://127.0.0.1:1/admin"}), 502, "server_error", None),
    (Plain(200, {"choices": []}), 502, "server_error", None),
    (Plain(200, "<html>a proxy's page</html>"), 502, "server_error", None),
]


def test_what_the_server_refuses_is_told_in_our_own_words(opened: Opened, asking) -> None:
    fake = Fake()
    server = asking(opened(fake, key=SECRET))
    for number, (plain, status, code, wait) in enumerate(REFUSALS):
        fake.refuse = lambda _, plain=plain: plain
        response = server.post(stream=bool(number % 2))
        assert (response.status_code, response.json()["error"]["code"]) == (status, code), plain
        assert response.headers.get("retry-after") == wait, plain
        told = response.json()["error"]["message"]
        secrets = (SECRET, "/srv", "0x7f", "10.0.0.7", "internal", "8000", "Traceback", "<html", "127.0.0.1")
        assert not any(secret in told for secret in secrets), told
    assert len(fake.asked) == len(REFUSALS)  # nothing was followed, and nothing asked again


def test_a_message_that_tells_nothing_secret_is_passed_on(opened: Opened, asking) -> None:
    fake = Fake(refuse=lambda _: error(400, "top_k must be -1, or at least 1.", param="top_k"))
    refused = asking(opened(fake)).post(top_k=1).json()["error"]
    assert refused["message"].endswith("It says: top_k must be -1, or at least 1.")
    assert refused["param"] == "top_k"


def test_a_server_that_is_not_there_is_a_503(opened: Opened, asking) -> None:
    response = asking(opened("http://127.0.0.1:9")).post()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert "127.0.0.1" not in response.text


def test_comments_alone_are_no_answer_and_end_in_a_504(opened: Opened, asking) -> None:
    fake = Fake(first=threading.Event())
    response = asking(opened(fake, patience_s=1.0)).post()
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    fake.wait_until(lambda: fake.num_hung_up == 1)


@pytest.mark.parametrize("kind", ["vllm", "openai"])
def test_an_answer_that_was_cut_is_never_a_success(kind: str, opened: Opened, asking) -> None:
    heard: list[Any] = []
    fake = Fake(kind)
    server = asking(opened(fake), on_interaction=heard.append)
    usual = dict(vars(fake))
    for broken in (
        {"cut_after": 0},
        {"cut_after": 2},
        {"cut_after": 2, "breaks": True},
        {"cut_after": 6},
        {"finish": None},
        {"finish": "abort"},
        {"sends_done": False},
        {"fails_after": 2},
    ):
        vars(fake).update(usual | broken)
        whole = server.post()
        assert (whole.status_code, whole.json()["error"]["code"]) == (502, "server_error"), broken
        assert "0x7f" not in whole.text
        streamed = server.post(stream=True)
        events = texts(streamed.text) if streamed.status_code == 200 else [streamed.json()]
        assert events[-1]["error"]["code"] == "server_error", broken
        assert all(choice["finish_reason"] is None for event in events[:-1] for choice in event["choices"]), broken
    assert heard == []
    asked: Any = {"model": "boutique", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with server.running.openai() as client, pytest.raises(openai.APIError):
        list(client.chat.completions.create(**asked))


def test_a_client_that_hangs_up_ends_the_answer_behind_us(opened: Opened, asking) -> None:
    fake = Fake(first=threading.Event(), words=("word ",) * 2000, pace_s=0.005)
    server = asking(opened(fake))
    body = {"model": "boutique", "messages": [{"role": "user", "content": "Hello"}]}
    content = json.dumps(body).encode()
    host, port = server.running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        kind = "Content-Type: application/json"
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\n{kind}\r\nContent-Length: {len(content)}\r\n\r\n"
        sock.sendall(head.encode() + content)
        fake.wait_until(lambda: fake.num_open == 1)
    fake.wait_until(lambda: fake.num_hung_up == 1)  # before its first token
    assert fake.first is not None
    fake.first.set()
    with httpx.stream("POST", f"{server.running.url}/v1/chat/completions", json=body | {"stream": True}, timeout=20) as response:
        next(response.iter_bytes())
    fake.wait_until(lambda: fake.num_hung_up == 2 and fake.num_open == 0)
    server.running.wait_for(0)


def test_32_answers_come_at_once_and_each_client_has_its_own(opened: Opened, asking) -> None:
    fake = Fake(first=threading.Event(), echoes=True)
    server = asking(opened(fake))
    questions = [" ".join(f"w{number}-{i}" for i in range(10)) for number in range(32)]
    with ThreadPoolExecutor(32) as pool:
        answers = [pool.submit(server.post, messages=[{"role": "user", "content": one}]) for one in questions]
        fake.wait_until(lambda: fake.num_open == 32)  # though none has had its first token
        assert fake.first is not None
        fake.first.set()
        told = [one.result().json()["choices"][0]["message"]["content"].strip() for one in answers]
    assert told == questions
    assert fake.most_open == 32


def test_a_stop_string_is_kept_to_here_and_the_server_writes_no_further(opened: Opened, asking) -> None:
    fake = Fake(words=("one ", "two ", "th", "ree ", *["more "] * 2000), pace_s=0.002)
    response = asking(opened(fake)).post(stop=["three"])
    content = response.json()
    assert content["choices"][0]["message"]["content"] == "one two "
    assert content["choices"][0]["finish_reason"] == "stop"
    assert content["usage"]["prompt_tokens"] == 7  # told on the way
    fake.wait_until(lambda: fake.num_hung_up == 1)


def test_several_answers_draw_from_seeds_of_their_own(opened: Opened, asking) -> None:
    fake = Fake()
    content = asking(opened(fake)).post(n=3, seed=2**63 - 1).json()
    assert [choice["message"]["content"] for choice in content["choices"]] == ["Yes, on Sundays too."] * 3
    seeds = sorted(body["seed"] for body in fake.bodies("/v1/chat/completions"))
    assert seeds == [0, 1, 2**63 - 1]


def test_characters_that_the_network_cuts_and_separators_of_lines_arrive_whole(opened: Opened, asking) -> None:
    words = ("caf", "é", "\u2028", "☕\x85", "𝄞 ok")
    response = asking(opened(Fake(words=words))).post()
    assert response.json()["choices"][0]["message"]["content"] == "".join(words)


def test_a_server_that_sends_no_usage_is_asked_for_the_prompt_and_counted_by_its_pieces(opened: Opened, asking) -> None:
    fake = Fake(sends_usage=False)
    usage = asking(opened(fake)).post().json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (7, 6)
    assert fake.paths() == ["/v1/chat/completions", "/tokenize"]


def test_the_key_goes_to_the_server_and_to_nobody_else(opened: Opened, asking) -> None:
    fake = Fake(key=SECRET)
    assert asking(opened(fake, key=SECRET)).post().status_code == 200
    refused = asking(opened(Fake(key=SECRET), key="wrong")).post()
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "server_error")
    assert "wrong" not in refused.text


def test_only_known_paths_can_be_asked(opened: Opened) -> None:
    fake = Fake("openai")
    engine = opened(fake)
    for path in ("/v1/unload_lora_adapter", "/pause", "/v1/models/../admin", "//elsewhere"):
        with pytest.raises(PermissionError):
            engine._link.ask("POST", path, {})
    assert fake.asked == []


def test_a_closed_link_fails_those_who_ask_and_ends_its_thread(opened: Opened, asking) -> None:
    fake = Fake(first=threading.Event())
    engine = opened(fake)
    server = asking(engine)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.post)
        fake.wait_until(lambda: fake.num_open == 1)
        engine._link.close()
        assert waiting.result().status_code == 502
    assert not any(thread.name == "upstream" for thread in threading.enumerate())
    assert server.post().status_code == 500

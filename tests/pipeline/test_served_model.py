"""The embedded base behind the lane: many at once get what each would get alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field

import tunesmith.model
from tunesmith.data.chat import ChatFormat
from tunesmith.model import load_model, this_machine
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.served_model import ServedModel
from tunesmith.records import Message, Role
from tunesmith.serve import (
    BatchingEngine,
    DescribedEngine,
    EmbeddingEngine,
    MeasuredEngine,
    Piece,
    SamplingParams,
    TokenEngine,
    Wait,
    create_app,
)
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.lifecycle import Server

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
QUESTIONS = [
    "Do you open on Sundays?",
    "Hi",
    "What is the capital of France, and why is it there?",
    "Tell me a story about a dog.",
]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


@pytest.fixture(scope="module")
def model() -> ChatModel:
    chat, machine = ChatFormat.load(EMBEDDED), this_machine()
    loaded = load_model(EMBEDDED, machine=machine)
    return ChatModel(ref="base@1", model=loaded, chat=chat, machine=machine, max_length=128, max_new_tokens=12)


def messages_of(question: str) -> tuple[Message, ...]:
    return (Message(role=Role.USER, content=question),)


def finish(served: ServedModel, streams: dict[str, Iterator[Piece | Wait]]) -> dict[str, list[Piece]]:
    """Read all streams in turns, as the lane does."""
    found: dict[str, list[Piece]] = {name: [] for name in streams}
    going_on = dict(streams)
    while going_on:
        for name, stream in list(going_on.items()):
            for piece in stream:
                if isinstance(piece, Wait):
                    break
                found[name].append(piece)
            else:
                del going_on[name]
        if going_on:
            served.step()
    return found


def test_it_is_what_a_lane_can_batch(model: ChatModel) -> None:
    served = model.served()
    assert isinstance(served, BatchingEngine)
    assert isinstance(served, TokenEngine)


def test_answers_written_together_are_those_written_alone(model: ChatModel) -> None:
    expected = dict(zip(QUESTIONS, model.generate([messages_of(question) for question in QUESTIONS]), strict=True))
    served = model.served()
    found = finish(served, {question: served.stream(messages_of(question), GREEDY) for question in QUESTIONS})
    assert {question: "".join(piece.text for piece in pieces).strip() for question, pieces in found.items()} == expected
    for pieces in found.values():
        assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish_reason in {"stop", "length"}
    assert len(set(expected.values())) == len(QUESTIONS)


def test_a_stream_that_is_closed_leaves_the_others_as_they_are(model: ChatModel) -> None:
    served = model.served()
    streams = {question: served.stream(messages_of(question), GREEDY) for question in QUESTIONS}
    for stream in streams.values():
        assert next(stream) is Wait.FOR_STEP
    served.step()
    streams.pop(QUESTIONS[0]).close()  # type: ignore[attr-defined]
    found = finish(served, streams)
    for question, pieces in found.items():
        assert "".join(piece.text for piece in pieces).strip() == model.generate([messages_of(question)])[0]


def test_tokens_asked_one_by_one_are_those_of_the_answer(model: ChatModel) -> None:
    served = model.served()
    prompt = served.encode_prompt(messages_of(QUESTIONS[0]))
    tokens: list[int] = []
    stream = served.go_on(prompt, GREEDY)
    for token in stream:
        if isinstance(token, Wait):
            served.step()
        elif token is not None:
            tokens.append(token)
    assert served.text(tokens).strip() == model.generate([messages_of(QUESTIONS[0])])[0]


def test_after_a_reset_nothing_of_before_is_told(model: ChatModel) -> None:
    served = model.served()
    old = served.stream(messages_of(QUESTIONS[0]), GREEDY)
    assert next(old) is Wait.FOR_STEP
    served.reset()
    old.close()  # type: ignore[attr-defined]
    found = finish(served, {"new": served.stream(messages_of(QUESTIONS[1]), GREEDY)})
    assert "".join(piece.text for piece in found["new"]).strip() == model.generate([messages_of(QUESTIONS[1])])[0]


@pytest.fixture
def client(model: ChatModel) -> Iterator[openai.OpenAI]:
    """The official client, on a real socket."""
    sock = bind("127.0.0.1", 0, has_key=False)
    is_ready = threading.Event()
    app = create_app({"base": model.served()}, api_key=None)
    server = Server(app, sock=sock, drain_timeout_s=5, on_ready=lambda _: is_ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    assert is_ready.wait(60)
    with openai.OpenAI(base_url=f"{url_of(sock)}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made
    server.stop()
    server.stop()
    thread.join(60)
    sock.close()


class Order(BaseModel):
    name: Literal["shirt", "hat"]
    pieces: Annotated[int, Field(ge=1, le=9)]


def test_the_official_client_parses_an_answer_that_fits_its_schema(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "I want two hats"}]
    answer = client.chat.completions.parse(model="base", messages=asked, response_format=Order, temperature=1.5, seed=3)
    assert isinstance(answer.choices[0].message.parsed, Order)
    with pytest.raises(openai.BadRequestError, match="schema cannot be used"):
        client.chat.completions.create(
            model="base",
            messages=asked,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "https://example.com/x"}}},
        )


def test_log_probabilities_of_an_answer_are_those_of_scoring_it(client: openai.OpenAI, model: ChatModel) -> None:
    asked: Any = [{"role": "user", "content": QUESTIONS[0]}]
    rules: Any = {"model": "base", "messages": asked, "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    told = client.chat.completions.create(**rules).choices[0]
    chunks = list(client.chat.completions.create(**rules, stream=True))
    assert told.logprobs is not None
    content = told.logprobs.content or []
    assert "".join(one.token for one in content).strip() == (told.message.content or "").strip()
    served = model.served()
    prompt = served.encode_prompt(messages_of(QUESTIONS[0]))
    tokens = list(prompt)
    stream = served.go_on(prompt, SamplingParams(max_tokens=6, temperature=0.0))
    for token in stream:
        if isinstance(token, Wait):
            served.step()
        elif token is not None:
            tokens.append(token)
    scores = served.score(tokens, num_top=2)[len(prompt) :]
    assert [one.logprob for one in content] == pytest.approx([score.log_likelihood for score in scores], abs=1e-4)
    assert [one.logprob for one in content] == pytest.approx([one.top_logprobs[0].logprob for one in content], abs=1e-6)
    streamed = [one for chunk in chunks for one in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else []) or []]
    assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in content], abs=1e-6)


def test_the_bytes_of_its_tokens_put_an_answer_together(client: openai.OpenAI) -> None:
    """Of 日 and 😀 a token holds a part, and reads as nothing by itself."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "é😀日"}}}
    asked: Any = {
        "messages": [{"role": "user", "content": "Say it"}],
        "response_format": schema,
        "logprobs": True,
        "top_logprobs": 3,
    }
    (choice,) = client.chat.completions.create(model="base", temperature=0, **asked).choices
    assert choice.logprobs is not None
    told = choice.logprobs.content or []
    assert any("\ufffd" in one.token for one in told)
    assert b"".join(bytes(one.bytes or []) for one in told).decode() == choice.message.content == '"é😀日"'
    assert all(other.bytes for one in told for other in one.top_logprobs)


def test_how_much_of_a_prompt_was_kept_is_told(client: openai.OpenAI) -> None:
    asked: Any = {"model": "base", "max_tokens": 2, "temperature": 0}
    messages: Any = [{"role": "system", "content": "We sell coats and hats. " * 12}, {"role": "user", "content": "Do you open?"}]
    found = [client.chat.completions.create(messages=messages, **asked).usage for _ in range(2)]
    cached = [usage.prompt_tokens_details.cached_tokens for usage in found if usage and usage.prompt_tokens_details]
    assert cached[0] == 0
    assert found[1] is not None
    assert 0 < (cached[1] or 0) < found[1].prompt_tokens
    assert (cached[1] or 0) > found[1].prompt_tokens - 40, "but for the last block"
    chunks = list(
        client.chat.completions.create(messages=messages, stream=True, stream_options={"include_usage": True}, n=2, **asked)
    )
    assert chunks[-1].usage == found[1].model_copy(update={"completion_tokens": 4, "total_tokens": found[1].prompt_tokens + 4})


@pytest.mark.parametrize(
    ("wrong", "field", "told"),
    [
        ({"logit_bias": {"99999": 1}}, "logit_bias", "there is no token 99999"),
        ({"schema": {"not": {"type": "string"}}}, "response_format", 'Unimplemented keys: ["not"]'),
        ({"schema": {"type": "string", "pattern": "(a"}}, "response_format", "regex parse error: (a error: unclosed group"),
        ({"schema": {"$ref": "#"}}, "response_format", "asks for itself without an end"),
        ({"schema": {"oneOf": [{"type": "string"}, {"maxLength": 2}]}}, "response_format", "not supported"),
    ],
)
def test_a_refusal_names_its_field_and_is_no_fault_of_ours(
    wrong: dict[str, Any], field: str, told: str, client: openai.OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    if "schema" in wrong:
        wrong = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": wrong["schema"]}}}
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "Hi"}], **wrong)
    assert found.value.param == field
    assert told in found.value.message
    assert "coerce" not in found.value.message
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_bias_forces_and_forbids_tokens(client: openai.OpenAI, model: ChatModel) -> None:
    asked: Any = [{"role": "user", "content": QUESTIONS[0]}]
    (hat,) = model.served().encode_text(" hat", begun=False)
    forced = client.chat.completions.create(model="base", messages=asked, max_tokens=3, temperature=0, logit_bias={str(hat): 100})
    assert forced.choices[0].message.content == " hat hat hat"
    with pytest.raises(openai.BadRequestError, match="there is no token 99999"):
        client.chat.completions.create(model="base", messages=asked, logit_bias={"99999": 1})


def test_it_offers_all_that_a_server_can_ask_for(model: ChatModel) -> None:
    served = model.served()
    for kind in (TokenEngine, BatchingEngine, DescribedEngine, EmbeddingEngine, MeasuredEngine):
        assert isinstance(served, kind)
    chat = ChatFormat.load(EMBEDDED)
    control = chat.control_tokens[0]
    token = served.control_token(control)
    assert token is not None
    assert served.texts([token]) == [control]
    assert served.control_token("Hi") is None
    tokens = [*served.encode_text("Grüß dich", begun=False), token]
    assert (served.text(tokens), served.full_text(tokens)) == ("Grüß dich", f"Grüß dich{control}")
    told = served.tokenizer_info
    assert (told["chat_template"], "eos_token" in told) == (chat.description["chat_template"], True)
    assert not [key for key, value in told.items() if str(EMBEDDED) in str(value)], "nothing of this machine"
    (vector,) = served.embed([tokens])
    assert len(vector) == served.num_dimensions
    assert served.memory_bytes == 0 < served.max_memory_bytes

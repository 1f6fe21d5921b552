"""What the openai client sees, over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tunesmith.errors import DataError
from tunesmith.records import Interaction, Message, Role
from tunesmith.serve import Piece, SamplingParams

HELLO = [{"role": "user", "content": "Do you open on Sundays?"}]


def test_the_openai_client_gets_a_whole_answer_from_the_version_behind_the_alias(scripted, running):
    engine = scripted("We ", "are ", "closed.")
    with running(boutique=engine).openai() as client:
        raw = client.chat.completions.with_raw_response.create(model="boutique", messages=HELLO)
    answer = raw.parse()
    assert answer.choices[0].message.content == "We are closed."
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == raw.headers["x-model-version"] == "boutique@1"
    assert answer.id.startswith("chatcmpl-")
    assert abs(answer.created - time.time()) < 60
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)


def test_the_openai_client_gets_a_streamed_answer_with_usage(scripted, running):
    with running(boutique=scripted("We ", "", "are ", "closed.")).openai() as client:
        options = {"include_usage": True}
        with client.chat.completions.create(model="boutique", messages=HELLO, stream=True, stream_options=options) as stream:
            chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks[1:-2]] == ["We ", "are ", "closed."]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].choices[0].delta.content is None
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens, chunks[-1].usage.total_tokens) == (5, 4, 9)
    assert {c.id for c in chunks} == {chunks[0].id}
    assert {c.model for c in chunks} == {"boutique@1"}
    assert all(c.usage is None for c in chunks[:-1])


def test_settings_and_messages_reach_the_engine(scripted, running):
    engine = scripted("a", "b", "c")
    with running(boutique=engine).openai() as client:
        answer = client.chat.completions.create(
            model="boutique",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Grüße 🙂"},
            ],
            max_completion_tokens=2,
            temperature=0.5,
            top_p=0.9,
            seed=7,
            user="someone",
            metadata={"a": "b"},
            n=1,
        )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == "ab"
    messages, params = engine.asked[0]
    assert messages == (
        Message(role=Role.SYSTEM, content="Be brief."),
        Message(role=Role.USER, content="One.\nTwo."),
        Message(role=Role.ASSISTANT, content="Yes?"),
        Message(role=Role.USER, content="Grüße 🙂"),
    )
    assert params == SamplingParams(max_tokens=2, temperature=0.5, top_p=0.9, seed=7)


def test_an_earlier_answer_can_be_sent_back_as_the_client_has_it(scripted, running):
    engine = scripted("Yes.")
    with running(boutique=engine).openai() as client:
        answer = client.chat.completions.create(model="boutique", messages=HELLO)
        turn = answer.choices[0].message.model_dump()
        client.chat.completions.create(model="boutique", messages=[*HELLO, turn, *HELLO])
    messages, _ = engine.asked[-1]
    assert [(message.role, message.content) for message in messages][len(HELLO)] == (Role.ASSISTANT, "Yes.")


def test_an_answer_ends_before_a_stop_string_that_spans_pieces(scripted, running):
    engine = scripted("We close", " at S", "I", "X. And", " more")
    response = running(boutique=engine).post(stop=["SIX"])
    assert response.json()["choices"][0]["message"]["content"] == "We close at "
    assert response.json()["choices"][0]["finish_reason"] == "stop"
    assert response.json()["usage"]["completion_tokens"] == 4
    assert engine.was_abandoned.wait(60)


def test_models_are_listed_under_alias_and_version(scripted, running):
    server = running(boutique=scripted(), support=scripted(ref="support@12", max_length=2048))
    with server.openai() as client:
        assert [m.id for m in client.models.list()] == ["boutique", "support", "boutique@1", "support@12"]
        assert client.models.retrieve("support@12").owned_by == "tunesmith"
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("suport")
    assert caught.value.code == "model_not_found"
    assert "support" in caught.value.message
    card = httpx.get(f"{server.url}/v1/models/support").json()
    assert (card["object"], card["root"], card["max_model_len"]) == ("model", "support@12", 2048)


def test_an_unknown_model_is_a_404_that_lists_what_there_is(scripted, running):
    with running(boutique=scripted("x")).openai() as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "boutique" in caught.value.message


def test_a_version_can_be_asked_for_and_is_recorded_under_its_deployment(scripted, running):
    recorded: list[Interaction] = []
    server = running(boutique=scripted("Closed", "."), on_interaction=recorded.append)
    response = server.post(model="boutique@1")
    (interaction,) = recorded
    assert interaction.id == response.json()["id"]
    assert (interaction.deployment, interaction.arm) == ("boutique", "boutique@1")
    assert interaction.messages == (Message(role=Role.USER, content="Do you open on Sundays?"),)
    assert interaction.answer == "Closed."
    assert (interaction.num_prompt_tokens, interaction.num_completion_tokens) == (5, 2)
    assert 0 < interaction.first_token_ms <= interaction.total_ms


def test_an_interaction_that_cannot_be_recorded_costs_nobody_the_answer(scripted, running, caplog):
    def fail(_: Interaction) -> None:
        raise OSError("disk full")

    assert running(boutique=scripted("Yes."), on_interaction=fail).post().status_code == 200
    assert "could not be recorded" in caplog.text


def test_failed_and_refused_requests_are_not_interactions(scripted, running):
    def fail(_: int) -> None:
        raise RuntimeError("boom")

    recorded: list[Interaction] = []
    server = running(boutique=scripted("x", before=fail), on_interaction=recorded.append)
    assert server.post().status_code == 500
    assert server.post(n=0).status_code == 400
    assert recorded == []


def test_a_prompt_that_fills_the_context_is_refused(scripted, running):
    response = running(boutique=scripted("x", max_length=5)).post()
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert response.json()["error"]["param"] == "messages"


def test_a_conversation_that_the_chat_template_refuses_is_the_clients_to_mend(scripted, running):
    def refuse(_: int) -> None:
        raise DataError("/home/secret/store/chat_template.jinja refuses this conversation: roles must alternate")

    response = running(boutique=scripted("x", before=refuse)).post()
    assert response.status_code == 400
    assert "roles must alternate" in response.json()["error"]["message"]
    assert "secret" not in response.text


def test_requests_to_one_engine_are_answered_in_turn_on_one_thread(scripted, running):
    is_going_on = threading.Event()
    engine = scripted("a", "b", before=lambda i: is_going_on.wait(60) if i else None)
    server = running(boutique=engine)
    with ThreadPoolExecutor(3) as pool:
        answers = []
        for number in range(3):
            answers.append(pool.submit(server.post, seed=number))
            server.wait_for(number + 1)
        assert len(engine.asked) <= 1
        is_going_on.set()
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
    assert [params.seed for _, params in engine.asked] == [0, 1, 2]
    assert len(engine.threads) == 1


def test_two_engines_answer_at_the_same_time(scripted, running):
    meeting = threading.Barrier(2)
    first = scripted("a", before=lambda _: meeting.wait(60))
    second = scripted("b", ref="support@1", before=lambda _: meeting.wait(60))
    server = running(boutique=first, support=second)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(server.post, model=model) for model in ("boutique", "support")]
        assert {a.result().json()["choices"][0]["message"]["content"] for a in answers} == {"a", "b"}


def test_a_full_queue_is_a_503_that_says_when_to_try_again(scripted, running):
    is_going_on = threading.Event()
    engine = scripted("a", before=lambda _: is_going_on.wait(60))
    server = running(boutique=engine, max_queue=1)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(server.post) for _ in range(2)]
        server.wait_for(2)
        with server.openai() as client, pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="boutique", messages=HELLO)
        streamed = server.post(stream=True)
        is_going_on.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
    assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 120
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (503, "overloaded")
    assert server.post().status_code == 200


def test_an_engine_that_exits_does_not_take_its_thread_along(scripted, running):
    calls: list[int] = []

    def leave_once(i: int) -> None:
        calls.append(i)
        if len(calls) == 1:
            raise SystemExit(3)

    server = running(boutique=scripted("a", before=leave_once))
    assert server.post().status_code == 500
    assert server.post().status_code == 200


def test_an_answer_without_a_finish_reason_is_an_error(scripted, running):
    class Silent(scripted):
        def stream(self, *_: object, **__: object) -> Iterator[Piece]:
            return iter(())

    assert running(boutique=Silent()).post().status_code == 500

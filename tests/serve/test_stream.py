"""The stream byte by byte, its failures, and clients that go away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import httpx
import openai
import pytest

HELLO = [{"role": "user", "content": "Hello"}]
BODY = {"model": "boutique", "messages": HELLO}


def fail_at(index: int):
    def before(i: int) -> None:
        if i == index:
            raise RuntimeError("/srv/models/weights.safetensors is broken")

    return before


def test_the_bytes_of_a_stream_are_those_of_the_openai_api(scripted, running):
    response = running(boutique=scripted("Grüß", " dich")).post(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-model-version"] == "boutique@1"
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") for event in events)
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [c["choices"][0]["delta"] for c in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Grüß"},
        {"content": " dich"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, "stop"]
    assert all(c["object"] == "chat.completion.chunk" and "usage" not in c for c in chunks)


def test_what_others_take_for_the_end_of_a_line_does_not_cut_an_event(scripted, running):
    """httpx cuts lines wherever Unicode has an end of one, and so does who reads streams with it."""
    said = "one\u2028two\u2029three\x85four\nfive\r\x0b\x0c\x1c\x1d\x1esix\u00e9\u2027\u202a"
    server = running(boutique=scripted(said))
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=BODY | {"stream": True}, timeout=60) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == said
    with server.openai() as client, client.chat.completions.create(**BODY, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == said


def test_every_answer_of_a_stream_begins_with_its_role(scripted, running):
    response = running(boutique=scripted("a")).post(stream=True, n=2)
    chunks = [json.loads(line[6:]) for line in response.text.split("\n\n") if line.startswith("data: {")]
    for answer in (0, 1):
        deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"][0]["index"] == answer]
        assert deltas == [{"role": "assistant", "content": ""}, {"content": "a"}, {}]


def test_usage_is_null_in_every_chunk_but_the_last(scripted, running):
    response = running(boutique=scripted("a")).post(stream=True, stream_options={"include_usage": True})
    chunks = [json.loads(line[6:]) for line in response.text.split("\n\n") if line.startswith("data: {")]
    assert [c["usage"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"]["total_tokens"] == 6


def test_a_failure_in_mid_stream_is_an_error_to_the_openai_client(scripted, running, caplog):
    texts = []
    with (
        running(boutique=scripted("one", "two", before=fail_at(1))).openai() as client,
        client.chat.completions.create(model="boutique", messages=HELLO, stream=True) as stream,
        pytest.raises(openai.APIError) as caught,
    ):
        texts.extend(chunk.choices[0].delta.content for chunk in stream)
    assert texts == ["", "one"]
    assert caught.value.code == "server_error"
    assert "weights" not in str(caught.value)
    assert "weights.safetensors is broken" in caplog.text, "the log has the reason"


def test_a_broken_stream_is_not_called_done(scripted, running):
    response = running(boutique=scripted("one", "two", before=fail_at(1))).post(stream=True)
    assert "[DONE]" not in response.text
    assert response.text.rstrip().rpartition("\n")[2].startswith('data: {"error":')


def test_a_failure_before_the_first_piece_has_its_own_status(scripted, running):
    response = running(boutique=scripted("one", before=fail_at(0))).post(stream=True)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "server_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "weights" not in response.text


def test_a_silent_stream_is_kept_alive_with_comments(scripted, running):
    is_going_on = threading.Event()
    server = running(boutique=scripted("late", before=lambda _: is_going_on.wait(60)), keep_alive_s=0.05)
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=BODY | {"stream": True}, timeout=60) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(4)] == [": keep-alive", "", ": keep-alive", ""]
        is_going_on.set()
        assert any('"content":"late"' in line for line in lines)
    with server.openai() as client, client.chat.completions.create(**BODY, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "late"


def hang_up_after(server, *, is_streamed: bool, wait: Callable[[], object]) -> None:
    """Send a request, wait for something, and close the connection with the answer unread."""
    with closing(HTTPConnection(server.url.removeprefix("http://"))) as client:
        body = json.dumps(BODY | {"stream": is_streamed})
        client.request("POST", "/v1/chat/completions", body=body, headers={"content-type": "application/json"})
        wait()


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_goes_away_stops_the_engine_at_the_next_piece(is_streamed, scripted, running):
    recorded: list[object] = []
    has_begun = threading.Event()

    def before(i: int) -> None:
        if i:
            has_begun.set()
        time.sleep(0.01)

    engine = scripted(*["word "] * 6000, before=before)
    server = running(boutique=engine, on_interaction=recorded.append)
    hang_up_after(server, is_streamed=is_streamed, wait=lambda: has_begun.wait(60))
    assert engine.was_abandoned.wait(30)
    server.wait_for(0)
    assert recorded == []


def test_a_client_that_goes_away_while_waiting_leaves_the_queue(scripted, running):
    is_going_on = threading.Event()
    engine = scripted("a", before=lambda _: is_going_on.wait(60))
    server = running(boutique=engine, max_queue=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post)
        server.wait_for(1)
        for is_streamed in (True, False, True):
            hang_up_after(server, is_streamed=is_streamed, wait=lambda: server.wait_for(2))
            server.wait_for(1)
        is_going_on.set()
        assert first.result().status_code == 200
    assert server.post().status_code == 200
    assert len(engine.asked) == 2

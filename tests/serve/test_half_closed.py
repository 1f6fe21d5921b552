"""A client that ends its sending side behind its request, and reads on."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

BODY: dict[str, Any] = {"model": "boutique", "messages": [{"role": "user", "content": "Hello"}]}


def post(**fields: Any) -> bytes:
    body = json.dumps(BODY | fields).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


def all_of(server: Any, request: bytes) -> bytes:
    """What comes until the server closes, after the request and the end of what is sent."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("is_streamed", [True, False])
def test_who_sends_nothing_any_more_still_has_the_answer(is_streamed, scripted, running):
    engine = scripted("one", " two", " three", before=lambda _: time.sleep(0.2))
    began = time.monotonic()
    answer = all_of(running(boutique=engine), post(stream=is_streamed))
    assert answer.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert b'"finish_reason":"stop"' in answer
    assert (b"data: [DONE]" in answer) is is_streamed
    assert not engine.was_abandoned.is_set()
    assert time.monotonic() - began < 4, "the connection ends with the answer and waits for no other request"


def test_requests_that_were_sent_before_the_end_are_all_answered(scripted, running):
    engine = scripted("a", before=lambda _: time.sleep(0.1))
    answer = all_of(running(boutique=engine), post() * 3 + b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert len(engine.asked) == 3


def test_half_a_request_and_an_end_are_no_request(scripted, running):
    engine = scripted("a")
    server = running(boutique=engine)
    assert all_of(server, post()[:-3]) == b""
    assert server.post().status_code == 200
    assert len(engine.asked) == 1


def test_a_refusal_is_read_too(scripted, running):
    answer = all_of(running(boutique=scripted("a")), post(temperature="hot"))
    assert b"HTTP/1.1 400 " in answer
    assert b"invalid_type" in answer


def test_who_speaks_http_1_0_and_ends_has_gone(scripted, running):
    engine = scripted(*["word "] * 500, before=lambda _: time.sleep(0.01))
    assert b" 200 " not in all_of(running(boutique=engine), post().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert engine.was_abandoned.wait(30)


def test_who_has_read_all_that_there_is_of_a_stream_and_goes_has_gone(scripted, running):
    engine = scripted(*["word "] * 6000, before=lambda _: time.sleep(0.01))
    host, _, port = running(boutique=engine).url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(post(stream=True))
        while b"word " not in connection.recv(65_536):
            pass
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65_536), "until now it is read"
    assert engine.was_abandoned.wait(30)

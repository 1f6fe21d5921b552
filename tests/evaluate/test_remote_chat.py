"""A model behind a URL as a partner in a conversation, against a server that says what it is told to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tunesmith.errors import EndpointError
from tunesmith.evaluate import RemoteChat
from tunesmith.records import Message, Role

HELLO = [Message(role=Role.SYSTEM, content="Be brief."), Message(role=Role.USER, content="Hi")]
DONE = "data: [DONE]\n\n"


@dataclass
class Reply:
    body: str = ""
    status: int = 200
    kind: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fake:
    """Gives the replies one after the other."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def chat(self, *replies: Reply, **options: Any) -> RemoteChat:
        self.replies += replies
        settings: dict[str, Any] = {"ref": "boutique", "api_key": None, "temperature": 0.5, **options}
        return RemoteChat(self.url, wait=lambda seconds, _: self.waited.append(seconds), **settings)


@pytest.fixture
def server() -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fake.asked.append((self.path, json.loads(body or b"{}"), self.headers["authorization"]))
            reply = fake.replies.pop(0)
            self.send_response(reply.status)
            for name, value in {"content-type": reply.kind, **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body.encode())

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        fake = Fake(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        listening.shutdown()
        thread.join()


def event(text: str | None = None, *, finish: str | None = None, **more: Any) -> str:
    delta = {} if text is None else {"content": text}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return "data: " + json.dumps({"id": "chatcmpl-1", "choices": choices, **more}, ensure_ascii=False) + "\n\n"


WHOLE = event("We ") + event("do.") + event(finish="stop") + DONE


def say(chat: RemoteChat) -> str:
    return "".join(part.text for part in chat.stream(HELLO))


def refused(status: int, message: str, **headers: str) -> Reply:
    return Reply(json.dumps({"error": {"message": message}}), status, "application/json", headers)


def test_a_stream_is_given_as_it_comes_with_its_id_and_counts(server: Fake) -> None:
    usage = "data: " + json.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}) + "\n\n"
    body = ": keep-alive\n\n" + event("We ") + event("do.") + event(finish="stop") + usage + DONE
    parts = list(server.chat(Reply(body), api_key="sk-1").stream(HELLO))
    assert [part.text for part in parts] == ["We ", "do.", ""]
    assert parts[-1] == ("", "stop", "chatcmpl-1", 7, 2)
    ((path, asked, key),) = server.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer sk-1")
    assert asked == {
        "model": "boutique",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "temperature": 0.5,
        "stream_options": {"include_usage": True},
    }


def test_what_unicode_calls_a_line_end_does_not_cut_an_event(server: Fake) -> None:
    text = "one\u2028two\x85three\x0bfour"
    assert "\u2028" in event(text)
    body = (event(text) + event(finish="stop") + DONE).replace("\n", "\r\n")
    assert say(server.chat(Reply(body))) == text


@pytest.mark.parametrize("end", ["", DONE], ids=["cut", "done"])
def test_a_stream_without_a_finish_reason_is_broken(server: Fake, end: str) -> None:
    parts = []
    with pytest.raises(EndpointError, match="broke off: its stream ended without a finish reason"):
        parts.extend(server.chat(Reply(event("We ") + end)).stream(HELLO))


def test_an_error_in_the_middle_of_a_stream_is_told(server: Fake) -> None:
    failing = event("We ") + 'data: {"error": {"message": "The engine\\nbroke."}}\n\n'
    with pytest.raises(EndpointError, match=r"broke off: The engine broke\."):
        say(server.chat(Reply(failing)))


@pytest.mark.parametrize("data", ["{", "[]", '{"choices": 3}', '{"choices": [{"delta": 3}]}'])
def test_an_event_that_is_none_is_told(server: Fake, data: str) -> None:
    with pytest.raises(EndpointError, match="an event that cannot be read"):
        say(server.chat(Reply(f"data: {data}\n\n")))


def test_a_server_that_does_not_stream_is_understood(server: Fake) -> None:
    told = {"id": "c1", "choices": [{"message": {"content": "We do."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    parts = list(server.chat(Reply(json.dumps(told), kind="application/json")).stream(HELLO))
    assert parts == [("We do.", "stop", "c1", 3, None)]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(server: Fake, status: int) -> None:
    busy = refused(status, "Not now.", **{"retry-after": "7"})
    assert say(server.chat(busy, refused(status, "Not now."), Reply(WHOLE))) == "We do."
    assert server.waited == [7.0, 2.0]


def test_a_server_that_stays_busy_is_left_alone(server: Fake) -> None:
    with pytest.raises(EndpointError, match=r"status 503: Not now\., 5 times"):
        say(server.chat(*[refused(503, "Not now.", **{"retry-after": "1"})] * 5))
    assert server.waited == [1.0] * 4
    with pytest.raises(EndpointError, match="asks to wait 3,600 s"):
        say(server.chat(refused(429, "Quota.", **{"retry-after": "3600"})))


def test_fields_that_a_server_does_not_know_are_left_out(server: Fake) -> None:
    chat = server.chat(refused(400, "Unknown field stream_options"), refused(400, "temperature is not supported"), Reply(WHOLE))
    assert say(chat) == "We do."
    assert {"stream_options", "temperature"} & set(server.asked[-1][1]) == set()
    server.replies.append(Reply(WHOLE))
    say(chat)
    assert "temperature" not in server.asked[-1][1], "it is remembered"


def test_a_refusal_is_told_without_the_key(server: Fake) -> None:
    with pytest.raises(EndpointError) as failed:
        say(server.chat(refused(401, "The key sk-secret is wrong."), api_key="sk-secret"))
    assert "status 401: The key *** is wrong." in str(failed.value)
    with pytest.raises(EndpointError) as failed:
        say(server.chat(Reply("\x1b[2Jgone\x9b", 502, "text/plain")))
    assert "status 502: \ufffd[2Jgone\ufffd" in str(failed.value)
    with pytest.raises(EndpointError, match=r"status 500: \(nothing\)"):
        say(server.chat(Reply(status=500)))


def test_models_are_listed_and_the_first_is_taken(server: Fake) -> None:
    listed = Reply(json.dumps({"data": [{"id": "one"}, {"id": "two"}, {}, 3]}), kind="application/json")
    chat = server.chat(listed, ref="")
    assert chat.ref == "one"
    assert server.asked[0][0] == "/v1/models"
    with pytest.raises(EndpointError, match="lists no models; name one with --model"):
        server.chat(Reply("{}", kind="application/json"), ref="")


def test_feedback_is_sent_or_said_to_be_impossible(server: Fake) -> None:
    chat = server.chat(Reply("{}", kind="application/json"), refused(404, "no such path"))
    chat.judge({"completion": "chatcmpl-1", "kind": "thumbs", "value": True})
    assert server.asked[0][:2] == ("/v1/feedback", {"completion": "chatcmpl-1", "kind": "thumbs", "value": True})
    with pytest.raises(EndpointError, match="it takes no feedback"):
        chat.judge({"id": "chatcmpl-1"})
    server.replies.append(refused(503, "Not now."))
    with pytest.raises(EndpointError, match=r"status 503: Not now\."):
        chat.judge({"id": "chatcmpl-1"})


def test_nobody_there_and_no_address_are_told() -> None:
    with pytest.raises(EndpointError, match="the connection failed"):
        RemoteChat("http://127.0.0.1:9", ref="", api_key=None, temperature=0, wait=lambda *_: None)
    for url in ("ftp://x", "http://", ""):
        with pytest.raises(EndpointError, match="is no address of a server"):
            RemoteChat(url, ref="x", api_key=None, temperature=0, wait=lambda *_: None)

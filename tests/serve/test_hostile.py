"""Requests that nobody means well with, against a real server in its own process: it answers on, holds its memory, and tells nothing."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PROGRAM = """
from tunesmith.serve import Limits, Piece, connection, create_app, serve

class Echo:
    ref = "echo@1"
    max_length = 100_000
    def count_prompt(self, messages):
        return sum(len(message.content) for message in messages)
    def stream(self, messages, params):
        for _ in range(1_000 if messages[0].content == "at length" else 4):
            yield Piece("x" * 10_000 if messages[0].content == "at length" else "x", 1, None)
        yield Piece("", 0, "stop")

guarded = connection.GuardedProtocol
guarded.headers_within_s = guarded.body_silence_s = guarded.reader_silence_s = 1.0
app = create_app({"echo": Echo()}, api_key="right", limits=Limits(max_body_bytes=2**20))
serve(app, port=0, on_ready=lambda url: print(url, flush=True))
"""
HEAD = "Host: localhost\r\nAuthorization: Bearer right\r\nConnection: close\r\n"
GOOD: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
TELLTALES = ("Traceback", 'File "', "site-packages", "/tunesmith/", "Errno", "0x7f", "uid=", "root:")


class Served(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        (tmp_path_factory.mktemp("served") / "stderr").open("w+") as errors,
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            yield Served(process, int(process.stdout.readline().rpartition(":")[2]))
        finally:
            process.kill()
        errors.seek(0)
        assert "Traceback" not in errors.read()


def taken(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    connection.settimeout(30)
    answer = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while piece := connection.recv(2**20):
            answer += piece
    return answer


def ask(served: Served, request: bytes, *, hangs_up: bool = False) -> bytes:
    """All that comes back until the server closes; nothing where it closes at once."""
    with served.connect() as connection:
        with suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
            if hangs_up:
                connection.shutdown(socket.SHUT_WR)
        return taken(connection)


def check(answer: bytes, request: bytes) -> int:
    """The status of an answer that is as it must be; 0 for none."""
    shown = request[:200]
    assert not any(word.encode() in answer for word in TELLTALES), (shown, answer)
    assert len(answer) < 16_384, (shown, len(answer))
    if not answer:
        return 0
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert status != 500, (shown, answer)
    if b"application/json" in head and status >= 400 and not request.startswith(b"HEAD"):
        error = json.loads(body.split(b"HTTP/1.1 ")[0])["error"]
        assert set(error) == {"message", "type", "param", "code"}, shown
        assert error["message"], shown
        assert error["code"], shown
    return status


def post(body: bytes, path: str = "/v1/chat/completions", head: str = HEAD, kind: str = "application/json") -> bytes:
    return f"POST {path} HTTP/1.1\r\n{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str, head: str = HEAD) -> bytes:
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape")


def of_fields() -> Iterator[bytes]:
    """Every field with values that break what trusts them."""
    wide = {"anyOf": [{"type": "object", "properties": {f"p{i}": {"enum": list(range(20))}}} for i in range(300)]}
    strange: list[Any] = [10**9, -1, 1.5e308, "x" * 5_000, [[]] * 500, {"a": {}}, True, 10**18]
    fields = (
        "n",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "logit_bias",
        "tools",
        "response_format",
        "stream_options",
    )
    for field in (*fields, "top_logprobs", "messages", "model", "metadata", "prompt_embeds", "chat_template"):
        for value in strange:
            yield post(json.dumps(GOOD | {field: value}).encode())
    schemas: tuple[Any, ...] = (
        wide,
        {"$ref": "file:///etc/passwd"},
        {"pattern": "(a{1000}){1000}"},
        {"minItems": 10**12},
        {"type": "x" * 70_000},
    )
    for schema in schemas:
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        yield post(json.dumps(GOOD | {"response_format": form}).encode())
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": "BOMB"}}
    bomb = '{"type":"object","properties":{"a":' * 500 + "{}" + "}}" * 500
    yield post(json.dumps(GOOD | {"response_format": form}).replace('"BOMB"', bomb).encode())
    yield post(json.dumps(GOOD | {"logit_bias": {str(i): 1 for i in range(5_000)}}).encode())
    yield post(json.dumps(GOOD | {"stop": ["\0" * 2_000] * 50}).encode())
    yield post(json.dumps(GOOD | {"messages": [{"role": "user", "content": "x"}] * 20_000}).encode())
    yield post(json.dumps(GOOD | {f"field{i}": 1 for i in range(5_000)}).encode())
    yield post(json.dumps(GOOD | {"x" * 100_000: "y" * 100_000}).encode())


def of_bodies() -> Iterator[bytes]:
    """What is no JSON, or too much of it."""
    for depth in (65, 1_000, 100_000):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            yield post(opening * depth + b"1" + closing * depth)
            yield post(b'{"model":"echo","messages":' + opening * depth + b"1" + closing * depth + b"}")
            yield post(opening * depth)
    for broken in (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x92", b"\xc0\xaf", b"\\ud800", b"\\u00", b"\0"):
        yield post(b'{"model":"echo","messages":[{"role":"user","content":"' + broken + b'"}]}')
    for number in (b"NaN", b"Infinity", b"1e999", b"-", b"9" * 5_000, b"0x10", b"1" + b"0" * 400):
        yield post(b'{"model":"echo","n":' + number + b',"messages":[{"role":"user","content":"x"}]}')
    yield post(b"[{}," * 200_000 + b"1")
    yield post(b" " * 2**20 + b"{}")
    yield post(b"{}" * 100)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json\x0b",
        "*/*",
    ):
        yield post(json.dumps(GOOD).encode(), kind=kind)


def of_paths() -> Iterator[bytes]:
    """Ways out of a folder and into an interpreter, in paths, names and headers."""
    ways = (
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/x",
        "..\\..\\x",
        "%00",
        "%c0%ae%c0%ae/",
        "{{7*7}}",
        "${7*7}",
    )
    more = (
        "';DROP TABLE api_keys;--",
        "<script>alert(1)</script>",
        "$(id)",
        "%0d%0aSet-Cookie:a=b",
        "%ff%fe",
        "a" * 8_000,
        "//evil/x",
    )
    for way in (*ways, *more):
        if " " not in way:
            yield get(f"/v1/models/{way}")
            yield get(f"/{way}")
        yield post(json.dumps(GOOD | {"model": way}).encode())
        yield get("/v1/models", HEAD + f"X-Request-Id: {way}\r\n")
    for path in (
        "/admin/v1/keys",
        "/admin/v1/status",
        "/livez/../v1/models",
        "/v1/files/../../x",
        "/docs",
        "*",
        "http://evil.example/v1/models",
    ):
        yield get(path)


def of_strangers() -> Iterator[bytes]:
    """Other hosts, other origins, and keys that are none."""
    hosts = (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:8.8.8.8]",
        "",
        "a" * 5_000,
    )
    for host in (*hosts, "localhost@evil.example", "localhost evil", "%6cocalhost", "[::1", "2130706433"):
        yield get("/v1/models", HEAD.replace("localhost", host))
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:3000",
        "file://",
        "http://[",
        "http://localhost@evil.example",
    ):
        yield post(json.dumps(GOOD).encode(), head=HEAD + f"Origin: {origin}\r\n")
    bearers = (
        "",
        "Bearer",
        "Bearer \xff",
        "Bearer wrong",
        "Basic cmlnaHQ=",
        "Bearer right right",
        "Bearer ' OR 1=1 --",
        "Bearer " + "a" * 20_000,
    )
    for bearer in bearers:
        yield get("/v1/models", HEAD.replace("Bearer right", bearer))
    for twice in (
        "Host: localhost",
        "Authorization: Bearer right",
        "Content-Type: text/plain",
        "Content-Length: 5",
        "Origin: null",
    ):
        yield post(json.dumps(GOOD).encode(), head=HEAD + twice + "\r\n")


def of_wire() -> Iterator[bytes]:
    """What two parsers would read differently, and what no parser reads."""
    body = json.dumps(GOOD).encode()
    inner = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    start = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD.encode() + b"Content-Type: application/json\r\n"
    for framing in (
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5;" + b"e" * 50_000 + b"\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        b"Content-Length: -1\r\n\r\n" + body,
        b"Content-Length: +9\r\n\r\n" + body,
        b"Content-Length: 9e9\r\n\r\n" + body,
        b"Content-Length: 3\r\n\r\n" + body,
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"Content-Length: 5, 5\r\n\r\nhello",
        b"Content-Length: 0\r\n\r\n" + inner,
        b"X: a\r\n folded\r\n\r\n",
        b"no colon\r\n\r\n",
        b"X\0: a\r\n\r\n",
        b"X: a\0b\r\n\r\n",
        b"X: a\rb\r\n\r\n",
        b": empty\r\n\r\n",
        b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"".join(b"X%d: a\r\n" % i for i in range(10_000)) + b"\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nContent-Length: 2\r\n\r\n{}",
    ):
        yield start + framing
    for line in (
        b"GET /livez",
        b"GET  /livez HTTP/1.1",
        b"GET /livez HTTP/9.9",
        b"G\0T / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"",
        b"\r\n",
    ):
        yield line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for method in (b"CONNECT", b"TRACE", b"OPTIONS", b"PATCH", b"DELETE", b"HEAD", b"PROPFIND", b"X" * 5_000):
        yield method + b" /v1/models HTTP/1.1\r\n" + HEAD.encode() + b"\r\n"
    yield b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HEAD.encode() + b"\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield b"GET /livez HTTP/1.1\r\n\r\n"
    draw = random.Random(8)
    for _ in range(10):
        yield draw.randbytes(draw.randrange(1, 4_000)) + b"\r\n\r\n"


def of_broken_off() -> Iterator[bytes]:
    """What goes on no further."""
    start = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD.encode() + b"Content-Type: application/json\r\n"
    for length in (b"2", b"9999", b"99999999999999999999"):
        yield start + b"Content-Length: " + length + b"\r\n\r\n{"
    yield start + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    for chunk in (b"F" * 15, b"5;a=b\r\nhe", b"5\r\nhello", b"5\r\nhello\r\n0\r\nX: y"):
        yield start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk
    for end in (1, 9, 30, len(start)):
        yield start[:end]


def answers_well(served: Served) -> bool:
    answer = ask(served, post(json.dumps(GOOD).encode()))
    return answer.startswith(b"HTTP/1.1 200") and b'"finish_reason":"stop"' in answer


def test_hundreds_of_hostile_requests_leave_the_server_as_it_was(served: Served) -> None:
    requests = [*of_fields(), *of_bodies(), *of_paths(), *of_strangers(), *of_wire()]
    assert len(requests) >= 300
    rss_mb = []
    for _ in range(2):
        statuses = [check(ask(served, request), request) for request in requests]
        for request in of_broken_off():
            check(ask(served, request, hangs_up=True), request)
        assert answers_well(served)
        rss_mb.append(served.rss_mb())
    assert rss_mb[1] - rss_mb[0] < 16, f"the memory grew from {rss_mb[0]:.0f} to {rss_mb[1]:.0f} MB"
    assert statuses.count(0) < 30, "most are told what is wrong"
    # What is refused is refused, and hardly anything of this asks for something that can be had.
    assert {400, 401, 404, 405, 413, 415, 421, 403} <= set(statuses)
    assert statuses.count(200) < 60


def test_no_second_request_hides_in_the_body_of_a_first(served: Served) -> None:
    for request in of_wire():
        if request.count(b"HTTP/1.1\r\n") == 2:
            assert ask(served, request).count(b"HTTP/1.1 ") <= 1, request


def test_an_endless_body_is_ended(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD.encode() + b"Content-Type: application/json\r\n"
    before = served.rss_mb()
    for framing, piece in (
        (b"Transfer-Encoding: chunked\r\n\r\n", b"40000\r\n" + b" " * 0x40000 + b"\r\n"),
        (b"Content-Length: 9999999999\r\n\r\n", b" " * 0x40000),
    ):
        num_sent = 0
        with served.connect() as connection:
            connection.sendall(head + framing)
            try:
                while num_sent < 2**28:
                    connection.sendall(piece)
                    num_sent += len(piece)
            except OSError:
                pass
        assert num_sent < 2**28, "the server took a quarter of a gigabyte"
        assert answers_well(served)
    assert served.rss_mb() - before < 24


def test_who_is_slow_holds_nobody_up_and_is_let_go(served: Served) -> None:
    """Half headers, half bodies, and answers that nobody takes; the limits are a second each here."""
    stream = json.dumps(GOOD | {"stream": True, "messages": [{"role": "user", "content": "at length"}]}).encode()
    beginnings = [b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ", b"", post(stream)[:-20]]
    with ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(60)]
        for connection, beginning in zip(slow, beginnings * 15, strict=True):
            connection.sendall(beginning)
        readers = [stack.enter_context(socket.socket()) for _ in range(5)]
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            reader.connect(("127.0.0.1", served.port))
            reader.sendall(post(stream))
        assert answers_well(served)
        for connection in slow:
            answer = taken(connection)
            assert not answer or check(answer, b"slow") == 408
        time.sleep(2.5)
        for reader in readers:
            assert len(taken(reader)) < 8_000_000, "an answer that is not taken is not kept"
    assert answers_well(served)

"""Every answer that is not good has the error object, and tells nothing of the inside."""

from __future__ import annotations

import gzip
import json
import select
import socket
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import httpx
import openai
import pytest

from tunesmith.serve.connection import GuardedProtocol


def is_error_object(response: httpx.Response, *, code: str) -> bool:
    error = response.json()["error"]
    return set(error) == {"message", "type", "param", "code"} and error["code"] == code and bool(error["message"])


def test_paths_and_methods_that_do_not_exist(scripted, running):
    url = running(boutique=scripted()).url
    for path in ("/", "/docs", "/redoc", "/v1", "/v1/completion", "/v1/chat/completions/", "/livez/", "/..%2f"):
        response = httpx.get(url + path)
        assert response.status_code == 404, path
        assert is_error_object(response, code="not_found")
    for method, path in (
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/completions"),
        ("DELETE", "/v1/models/boutique"),
        ("OPTIONS", "/v1/chat/completions"),
    ):
        response = httpx.request(method, url + path)
        assert response.status_code == 405, path
        assert is_error_object(response, code="method_not_allowed")
        assert method not in response.headers["allow"]
    assert httpx.delete(f"{url}/v1/models").headers["allow"] == "GET, HEAD"
    assert is_error_object(httpx.get(f"{url}/v1/models/"), code="model_not_found")


def test_whatever_can_be_got_can_be_asked_for_its_head_alone(scripted, running):
    """As monitors and load balancers do."""
    server = running(boutique=scripted("a"))
    for path in ("/livez", "/readyz", "/health", "/version", "/v1/models", "/v1/models/boutique", "/metrics", "/openapi.json"):
        whole, head = httpx.get(server.url + path), httpx.head(server.url + path)
        assert (whole.status_code, head.status_code, head.content) == (200, 200, b""), path
        if path != "/metrics":  # which counts what it is asked
            assert head.headers["content-length"] == whole.headers["content-length"], path
    assert httpx.head(f"{server.url}/v1/models/other").status_code == 404
    assert httpx.head(f"{server.url}/v1/chat/completions").status_code == 405


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, deflate"])
def test_a_body_that_is_packed_is_refused_as_such(encoding, scripted, running):
    """Before, it was told to be no JSON."""
    server = running(boutique=scripted("a"))
    body = gzip.compress(json.dumps({"model": "boutique", "messages": [{"role": "user", "content": "a"}]}).encode())
    headers = {"content-type": "application/json", "content-encoding": encoding}
    response = httpx.post(f"{server.url}/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == 415
    assert is_error_object(response, code="unsupported_media_type")
    assert "Content-Encoding" in response.json()["error"]["message"]
    plain = httpx.post(
        f"{server.url}/v1/chat/completions", content=gzip.decompress(body), headers=headers | {"content-encoding": "identity"}
    )
    assert plain.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "boutique", "messages": [',
        b'{"model": "\\ud83d"}',
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" + b"{}," * 270_000 + b"{}]",
        b"",
    ],
)
def test_malformed_json_is_a_400(body, scripted, running):
    url = running(boutique=scripted()).url
    response = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert is_error_object(response, code="invalid_json")


def test_64_levels_are_read(scripted, running):
    url = running(boutique=scripted()).url
    body = b'{"a":' * 64 + b"1" + b"}" * 64
    response = httpx.post(f"{url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert is_error_object(response, code="unknown_parameter")


def test_too_many_connections_are_told_so(scripted, running, monkeypatch):
    monkeypatch.setattr(GuardedProtocol, "max_connections", 3)
    url = running(boutique=scripted("x")).url
    host, _, port = url.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(3)]
        held[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert held[-1].recv(4096).startswith(b"HTTP/1.1 200")
        response = httpx.get(f"{url}/livez")
        assert response.status_code == 503
        assert is_error_object(response, code="overloaded")
        assert response.headers["retry-after"] == "5"


def test_a_body_that_is_not_an_object_is_a_400(scripted, running):
    response = httpx.post(f"{running(boutique=scripted()).url}/v1/chat/completions", json=[1])
    assert response.status_code == 400
    assert is_error_object(response, code="invalid_type")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_type_is_a_415(kind, scripted, running):
    """A form or plain text is what a web page of any origin may send without being asked."""
    url = running(boutique=scripted()).url
    response = httpx.post(f"{url}/v1/chat/completions", content=b'{"model": "boutique"}', headers={"content-type": kind})
    assert response.status_code == 415
    assert is_error_object(response, code="unsupported_media_type")


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_body_over_the_limit_is_a_413(is_chunked, scripted, running):
    url = running(boutique=scripted("x")).url
    pieces = [b" " * 65536] * 80  # 5 MiB
    content = iter(pieces) if is_chunked else b"".join(pieces)
    response = httpx.post(f"{url}/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert is_error_object(response, code="request_too_large")


def test_a_client_that_sends_all_before_it_reads_sees_the_413_too(scripted, running):
    """As the standard library's does: a connection closed while it sends would be all that it knows."""
    url = running(boutique=scripted("x")).url
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=60)) as client:
        client.request("POST", "/v1/chat/completions", body=b" " * 2**25, headers={"content-type": "application/json"})
        assert client.getresponse().status == 413


def test_a_body_just_under_the_limit_is_read(scripted, running):
    server = running(boutique=scripted("x", max_length=2_000_000), max_body_bytes=1_000_000)
    message = {"role": "user", "content": "a" * 999_900}
    assert server.post(messages=[message]).status_code == 200
    assert server.post(messages=[message | {"content": "a" * 1_000_000}]).status_code == 413


def test_the_openai_client_finds_code_and_param_of_an_unknown_field(scripted, running):
    with running(boutique=scripted()).openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="boutique", messages=[{"role": "user", "content": "x"}], extra_body={"temperatur": 1}
        )
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "unknown_parameter",
        "temperatur",
        "invalid_request_error",
    )


def test_a_failure_of_ours_is_a_500_without_its_traceback(scripted, running, caplog):
    def fail(_: int) -> None:
        raise RuntimeError("cannot map /srv/secret/model at 0x7f00deadbeef")

    response = running(boutique=scripted("x", before=fail)).post()
    assert response.status_code == 500
    assert is_error_object(response, code="server_error")
    assert response.json()["error"]["type"] == "server_error"
    assert not any(word in response.text for word in ("secret", "0x7f", "Traceback", "RuntimeError"))
    assert "/srv/secret/model" in caplog.text
    assert response.headers["x-request-id"] in caplog.text


def test_the_request_id_is_echoed_made_harmless_or_created(scripted, running):
    url = running(boutique=scripted("x")).url
    assert httpx.get(f"{url}/livez", headers={"x-request-id": "abc-123"}).headers["x-request-id"] == "abc-123"
    assert httpx.get(f"{url}/nowhere", headers={"x-request-id": "abc"}).headers["x-request-id"] == "abc"
    assert httpx.get(f"{url}/livez", headers={"x-request-id": 'a b"<c>;\\' + "d" * 500}).headers["x-request-id"] == (
        "abc" + "d" * 125
    )
    made = {httpx.get(f"{url}/livez", headers=headers).headers["x-request-id"] for headers in ({}, {"x-request-id": "<>"})}
    assert len(made) == 2
    assert all(request_id.startswith("req_") for request_id in made)


def test_a_client_that_goes_away_while_sending_harms_nobody(scripted, running, caplog):
    server = running(boutique=scripted("x"))
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
    assert server.post().status_code == 200
    assert caplog.text == ""


@pytest.mark.parametrize("path", ["/livez", "/v1/models"])
@pytest.mark.parametrize("headers", [{"x-a": "a" * 50_000}, {f"x-{n}": "b" * 40 for n in range(900)}])
def test_headers_over_the_limit_are_refused_in_one_piece_too(headers, path, scripted, running):
    url = running(boutique=scripted("x")).url
    response = httpx.get(f"{url}{path}", headers=headers)
    assert response.status_code == 431
    assert is_error_object(response, code="headers_too_large")
    assert httpx.get(f"{url}/livez", headers={"x-a": "a" * 30_000}).status_code == 200
    assert httpx.get(f"{url}/livez?x={'a' * 40_000}").status_code == 431


def test_headers_that_come_slowly_are_told_their_size(scripted, running):
    url = httpx.URL(running(boutique=scripted("x")).url)
    with socket.create_connection((url.host, url.port), timeout=10) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nx-a: ")
        for _ in range(12):
            sock.sendall(b"a" * 4096)
            time.sleep(0.01)
            if select.select([sock], [], [], 0)[0]:
                break
        assert b" 431 " in sock.recv(4096).splitlines()[0]

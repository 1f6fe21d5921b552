from __future__ import annotations

import httpx
import openai
import pytest

from tunesmith.errors import UserError
from tunesmith.serve import create_app


def test_without_the_key_nothing_but_the_health_of_the_server_is_told(scripted, running):
    url = running(boutique=scripted("x"), api_key="sk-right").url
    for path in ("/v1/models", "/v1/models/boutique", "/nowhere", "/docs", "/livez/", "//livez", "/v1/..%2flivez"):
        response = httpx.get(url + path)
        assert response.status_code == 401, path
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-request-id"]
    assert httpx.post(f"{url}/v1/chat/completions", json={}).status_code == 401
    assert httpx.get(f"{url}/livez").status_code == httpx.get(f"{url}/readyz").status_code == 200


def test_a_wrong_key_is_refused(scripted, running):
    url = running(boutique=scripted("x"), api_key="sk-right").url
    for header in ("Bearer sk-wrong", "Bearer sk-right2", "Bearer sk-righ", "Bearer", "sk-right", "Basic sk-right", ""):
        assert httpx.get(f"{url}/v1/models", headers={"authorization": header}).status_code == 401, header


def test_two_authorisations_are_none(scripted, running):
    url = running(boutique=scripted("x"), api_key="sk-right").url
    headers = [("authorization", "Bearer sk-right"), ("authorization", "Bearer sk-right")]
    assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401


def test_the_openai_client_is_let_in_with_any_of_the_keys(scripted, running):
    server = running(boutique=scripted("x"), api_key=["sk-one", "schlüssel"])
    with server.openai("sk-one") as client:
        assert client.models.list().data[0].id == "boutique"
    headers = {"authorization": "bearer schlüssel".encode()}
    assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
    with server.openai("sk-three") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", [], ["good", ""]])
def test_a_key_that_guards_nothing_is_refused_at_once(key, scripted):
    with pytest.raises(UserError, match="API key"):
        create_app({"boutique": scripted()}, api_key=key)


def test_no_models_are_refused_at_once():
    with pytest.raises(UserError, match="no model"):
        create_app({}, api_key=None)


def test_a_server_without_a_key_answers_to_local_names_only(scripted, running):
    """Or a web page whose domain resolves to 127.0.0.1 could read it through the visitor's browser."""
    url = running(boutique=scripted("x")).url
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.9.9.9", "[::1]:8000", "[::1]"):
        assert httpx.get(f"{url}/v1/models", headers={"host": host}).status_code == 200, host
    evil = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "192.168.1.5", "[::2]", "[", "")
    for host in evil:
        for path in ("/v1/models", "/readyz"):
            response = httpx.get(url + path, headers={"host": host})
            assert (response.status_code, response.json()["error"]["code"]) == (421, "host_not_allowed"), host


def test_with_a_key_too_only_names_that_were_told_will_do(scripted, running):
    server = running(boutique=scripted("x"), api_key="sk-right", allowed_hosts=["Chat.example."])
    headers = {"authorization": "Bearer sk-right"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        for host, status in (("chat.example:8000", 200), ("CHAT.EXAMPLE.", 200), ("localhost", 200), ("evil.example", 421)):
            assert client.get("/v1/models", headers={"host": host}).status_code == status, host


def test_the_names_of_a_server_are_told_once_each_as_a_host_header_has_them(scripted, running):
    names = ["127.0.0.1", "::1", "LOCALHOST", "fd00::7", "chat.example"]
    response = httpx.get(f"{running(boutique=scripted('x'), allowed_hosts=names).url}/livez", headers={"host": "evil.example"})
    assert response.status_code == 421
    told = response.json()["error"]["message"].partition("only: ")[2].partition(". `")[0]
    assert told.split(", ") == ["localhost", "127.0.0.1", "[::1]", "chat.example", "[fd00::7]"]


def test_any_name_needs_to_be_asked_for_and_a_key(scripted, running):
    server = running(boutique=scripted("x"), api_key="sk-right", allowed_hosts=["*"])
    headers = {"authorization": "Bearer sk-right", "host": "who.example"}
    assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
    with pytest.raises(UserError, match="allowed-host"):
        create_app({"boutique": scripted()}, api_key=None, allowed_hosts=["*"])
    with pytest.raises(UserError, match="no name of a host"):
        create_app({"boutique": scripted()}, api_key="k", allowed_hosts=["https://chat.example"])

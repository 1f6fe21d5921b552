"""Keys of the ledger at a running server: scopes, ends, the operator's port, and what the log tells."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
import threading
import time

import httpx
import pytest
from starlette.responses import Response
from starlette.routing import Route

from tunesmith.errors import UserError
from tunesmith.serve import create_app, key_ring
from tunesmith.serve.access_log import JsonLines
from tunesmith.serve.app import create_admin_app
from tunesmith.serve.scopes import OPEN_PATHS, door_of
from tunesmith.store import Scope

BODY = {"model": "boutique", "messages": [{"role": "user", "content": "Do you open on Sundays?"}]}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_each_path_needs_its_scope(scripted, running, workspace_keys):
    secrets = {scope: workspace_keys.create(scope, scopes=[scope]).secret for scope in Scope}
    server = running(boutique=scripted("x"), keys=workspace_keys)
    with httpx.Client(base_url=server.url, timeout=60) as client:

        def status(method: str, path: str, scope: Scope) -> int:
            return client.request(
                method, path, headers=bearer(secrets[scope]), json=BODY if method == "POST" else None
            ).status_code

        assert status("POST", "/v1/chat/completions", Scope.INFER) == 200
        for scope in (Scope.FEEDBACK, Scope.TUNE, Scope.ADMIN):
            answer = client.post("/v1/chat/completions", json=BODY, headers=bearer(secrets[scope]))
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
            assert "infer" in answer.json()["error"]["message"]
        assert [status("GET", "/v1/models", scope) for scope in Scope] == [200, 403, 200, 403]
        for path, scope in (
            ("/v1/files", Scope.TUNE),
            ("/v1/fine_tuning/jobs/x/events", Scope.TUNE),
            ("/v1/feedback", Scope.FEEDBACK),
        ):
            assert status("POST", path, Scope.INFER) == 403, path
            assert status("POST", path, scope) != 403, path
        # A path that is not listed is not there for anybody but an operator.
        assert [status("GET", "/nowhere", scope) for scope in Scope] == [404] * 4
        assert status("GET", "/admin/v1/status", Scope.ADMIN) == 404, "not on the public port"


def test_a_path_that_nobody_listed_is_there_for_operators_only(scripted, running, workspace_keys):
    secrets = {scope: workspace_keys.create(scope, scopes=[scope]).secret for scope in Scope}
    server = running(boutique=scripted("x"), keys=workspace_keys)
    app = server.server.config.app
    app.router.routes.append(Route("/forgotten", lambda _: Response("here"), methods=["GET"]))
    found = {scope: httpx.get(f"{server.url}/forgotten", headers=bearer(secret)) for scope, secret in secrets.items()}
    assert {scope: answer.status_code for scope, answer in found.items()} == dict.fromkeys(Scope, 404) | {Scope.ADMIN: 200}
    nothing = httpx.get(f"{server.url}/nowhere", headers=bearer(secrets[Scope.INFER])).json()
    assert found[Scope.INFER].text.replace("forgotten", "nowhere") == json.dumps(nothing, separators=(",", ":"))


def test_every_route_that_there_is_has_its_place_in_the_list(scripted):
    app = create_app({"boutique": scripted()}, api_key="k")
    paths = {route.path for route in app.routes} - OPEN_PATHS
    assert paths
    assert [path for path in sorted(paths) if not door_of(path).is_listed] == []


def test_a_key_is_good_until_it_is_revoked_or_ends(scripted, running, workspace_keys, monkeypatch):
    monkeypatch.setattr(key_ring, "FRESH_S", 0.05)
    monkeypatch.setattr(key_ring, "_STRANGER_S", 0.05)
    server = running(boutique=scripted("x"), keys=workspace_keys)
    with httpx.Client(base_url=server.url, timeout=60) as client:

        def until(status: int, secret: str) -> None:
            deadline = time.monotonic() + 30
            while client.get("/v1/models", headers=bearer(secret)).status_code != status:
                assert time.monotonic() < deadline, f"never {status}"
                time.sleep(0.02)

        late = workspace_keys.create("late", scopes=["infer"]).secret
        until(200, late)
        workspace_keys.revoke("late")
        until(401, late)
        brief = workspace_keys.create("brief", scopes=["infer"], days=2 / 86_400).secret
        until(200, brief)
        until(401, brief)


def test_use_is_noted_in_the_ledger_and_keys_stay_good_while_it_cannot_be_read(
    scripted, running, workspace_keys, monkeypatch, caplog
):
    monkeypatch.setattr(key_ring, "FRESH_S", 0.0)
    monkeypatch.setattr(key_ring, "_STRANGER_S", 0.0)
    secret = workspace_keys.create("shop", scopes=["infer"]).secret
    server = running(boutique=scripted("x"), keys=workspace_keys)
    with httpx.Client(base_url=server.url, headers=bearer(secret), timeout=60) as client:
        assert client.get("/v1/models").status_code == 200
        deadline = time.monotonic() + 30
        while workspace_keys.all()[0].last_used_at is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)

        def fail() -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(workspace_keys, "good", fail)
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models", headers=bearer("ts_stranger")).status_code == 401
        monkeypatch.setattr(key_ring, "_GRACE_S", 0.0)
        answer = client.get("/v1/models")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "API keys cannot be read" in caplog.text
    assert secret not in caplog.text


def test_the_operators_port_makes_lists_and_revokes_keys(scripted, running, workspace_keys):
    admin = workspace_keys.create("ops", scopes=["admin"]).secret
    user = workspace_keys.create("user", scopes=["infer"]).secret
    server = running(boutique=scripted("x"), keys=workspace_keys, with_admin=True)
    with httpx.Client(base_url=server.admin_url, headers=bearer(admin), timeout=60) as client:
        assert client.get("/admin/v1/keys", headers=bearer(user)).status_code == 403
        assert client.get("/admin/v1/keys", headers={"authorization": ""}).status_code == 401
        assert client.get("/v1/models").status_code == 404, "not on the operator's port"
        assert client.get("/admin/v1/keys", headers={"host": "evil.example"}).status_code == 421
        made = client.post("/admin/v1/keys", json={"name": "new", "scopes": ["infer"], "quotas": {"requests_per_minute": 9}})
        assert made.status_code == 201
        assert made.headers["cache-control"] == "no-store"
        new = made.json()
        assert new["quotas"]["requests_per_minute"] == 9
        assert httpx.get(f"{server.url}/v1/models", headers=bearer(new["key"])).status_code == 200
        listed = client.get("/admin/v1/keys").text
        assert new["prefix"] in listed
        assert new["key"] not in listed
        assert "digest" not in listed
        assert client.delete(f"/admin/v1/keys/{new['prefix']}", headers={"origin": "http://evil.example"}).status_code == 403
        assert client.delete(f"/admin/v1/keys/{new['prefix']}").json()["is_good"] is False
        assert httpx.get(f"{server.url}/v1/models", headers=bearer(new["key"])).status_code == 401, "at once, not in seconds"
        assert client.delete("/admin/v1/keys/nobody").json()["error"]["code"] == "not_found"
        for body in (
            {},
            {"name": "x", "scopes": ["root"]},
            {"name": "x", "quotas": {"a": 1}},
            {"name": "\n"},
            [1],
            {"name": "new", "expires_in_days": 0},
        ):
            assert client.post("/admin/v1/keys", json=body).status_code == 400, body


def test_the_operators_port_tells_what_is_served_and_drains_without_cutting_answers(scripted, running):
    go_on = threading.Event()
    server = running(
        boutique=scripted("a", "b", before=lambda i: go_on.wait(60) if i else None),
        api_key="k",
        with_admin=True,
        drain_timeout_s=60,
    )
    answers = []

    def ask() -> None:
        answers.append(httpx.post(f"{server.url}/v1/chat/completions", json=BODY, headers=bearer("k"), timeout=60))

    asking = threading.Thread(target=ask)
    asking.start()
    server.wait_for(1)
    with httpx.Client(base_url=server.admin_url, headers=bearer("k"), timeout=60) as client:
        status = client.get("/admin/v1/status").json()
        assert (status["status"], status["num_open"]) == ("serving", 1)
        assert status["routes"]["boutique"] == {"deployment": "boutique", "arms": {"boutique@1": 1.0}}
        assert status["lanes"] == [{"version": "boutique@1", "num_open": 1, "num_waiting": 0}]
        assert client.post("/admin/v1/reload").json()["problems"] == {}
        for _ in range(2):
            assert client.post("/admin/v1/drain").json()["status"] == "draining"
        assert httpx.get(f"{server.url}/readyz").status_code == 503
    go_on.set()
    asking.join(60)
    assert answers[0].status_code == 200


def test_there_is_no_operators_port_without_keys(scripted):
    with pytest.raises(UserError, match="--no-auth"):
        create_admin_app(create_app({"boutique": scripted()}, api_key=None), drain=lambda: None)


def test_the_log_tells_who_what_and_how_but_neither_keys_nor_prompts(scripted, running, workspace_keys):
    lines: list[dict[str, object]] = []
    secret = workspace_keys.create("shop", scopes=["infer"]).secret
    server = running(boutique=scripted("hush"), keys=workspace_keys, access_log=lines.append)
    with httpx.Client(base_url=server.url, headers=bearer(secret) | {"x-request-id": "abc"}, timeout=60) as client:
        client.post("/v1/chat/completions?token=hush", json=BODY | {"stream": True})
        client.get("/v1/models/x%0d%0a%1b[31m", headers={"authorization": "Bearer wrong"})
    told, refused = lines
    assert isinstance(told.pop("ms"), float)
    assert told == {
        "event": "request", "request_id": "abc", "method": "POST", "path": "/v1/chat/completions", "status": 200,
        "model": "boutique", "version": "boutique@1", "key": secret[:11],
    }  # fmt: skip
    assert (refused["status"], refused["key"], refused["path"]) == (401, None, "/v1/models/x\r\n\x1b[31m")
    text = json.dumps(lines)
    assert not [word for word in (secret, "hush", "Sundays", "wrong") if word in text]


def test_log_lines_are_json_each_on_its_own_and_never_wait_for_a_reader():
    stream = io.StringIO()
    log = JsonLines(stream)
    log.write({"path": "a\n\x1b[31m\ud800"})
    log.handle(logging.makeLogRecord({"levelname": "ERROR", "msg": "two\nlines %s", "args": ("!",)}))
    log.drain(patience_s=10)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["path"] == "a\n\x1b[31m\\ud800"
    assert (second["level"], second["message"]) == ("error", "two\nlines !")

    class Stuck(io.StringIO):
        is_free = threading.Event()

        def write(self, text: str) -> int:
            self.is_free.wait(60)
            return super().write(text)

    stuck = Stuck()
    log = JsonLines(stuck)
    for i in range(20_000):
        log.write({"i": i})
    stuck.is_free.set()
    log.drain(patience_s=30)
    assert '{"event":"lost","lines":' in stuck.getvalue()

"""Starting to serve: which keys there are, who is told, and what is refused."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from typer.testing import CliRunner

from tunesmith import pipeline
from tunesmith.cli import app
from tunesmith.errors import NotFound, UserError
from tunesmith.pipeline import serving
from tunesmith.pipeline.serving import Access, Listening, Noting, serve_version
from tunesmith.records import Message
from tunesmith.serve import Piece, Route, SamplingParams
from tunesmith.serve.bind import bind
from tunesmith.store import RequestReader, Store
from tunesmith.store.api_keys import ALL_SCOPES


class Fake:
    """A version, and its engine."""

    ref = "boutique@1"
    max_length = 100

    def served(self) -> Fake:
        return self

    def count_prompt(self, _: Sequence[Message], /) -> int:
        return 1

    def stream(self, _: Sequence[Message], __: SamplingParams, /) -> Iterator[Piece]:
        yield Piece("yes", 1, "stop")


class Line:
    """A registry that knows one version."""

    def __init__(self, ref: str, **_: object) -> None:
        self._ref = ref

    def routes(self) -> dict[str, Route]:
        return {self._ref: Route(self._ref, Fake.ref, {Fake.ref: 1.0})}

    def load(self, _: str, /) -> Fake:
        return Fake()

    def unload(self, _: str, /) -> None:
        pass

    def version_of(self, name: str) -> str | None:
        return Fake.ref if name == self._ref else None


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(serving, "ServedLine", Line)
    return Store(tmp_path / "work")


@contextmanager
def serving_at(store: Store, access: Access) -> Iterator[Listening]:
    told: queue.Queue[Listening] = queue.Queue()
    options: dict[str, Any] = {"store": store, "host": "127.0.0.1", "port": 0, "access": access, "on_ready": told.put}
    thread = threading.Thread(target=serve_version, args=("boutique",), kwargs=options)
    thread.start()
    listening = told.get(timeout=60)
    yield listening
    assert listening.admin_url is not None
    secret = access.api_key or (
        listening.new_key.secret if listening.new_key else store.keys.create("stop", scopes=["admin"]).secret
    )
    deadline = time.monotonic() + 10  # a server reads the ledger anew a second after it last did
    while httpx.post(f"{listening.admin_url}/admin/v1/drain", headers={"authorization": f"Bearer {secret}"}).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    thread.join(60)
    assert not thread.is_alive()


def status(url: str, secret: str | None) -> int:
    return httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {secret}"} if secret else {}).status_code


def test_without_any_key_one_is_made_and_told_once(store: Store) -> None:
    with serving_at(store, Access(admin_port=0)) as first:
        assert first.new_key is not None
        assert first.new_key.key.scopes == ALL_SCOPES
        assert status(first.url, None) == 401
        assert status(first.url, first.new_key.secret) == 200
    with serving_at(store, Access(admin_port=0)) as second:
        assert second.new_key is None, "there is one now"
        assert status(second.url, first.new_key.secret) == 200
    assert len([key for key in store.keys.all() if key.name == "first"]) == 1


def test_a_key_that_is_given_opens_the_door_beside_those_of_the_ledger(store: Store) -> None:
    own = store.keys.create("shop", scopes=["infer"]).secret
    with serving_at(store, Access(api_key="given", admin_port=0)) as listening:
        assert listening.new_key is None
        assert [status(listening.url, secret) for secret in ("given", own, "other")] == [200, 200, 401]


def test_nothing_is_made_where_nothing_is_served(store: Store) -> None:
    options: dict[str, Any] = {"store": store, "on_ready": None}
    with pytest.raises(UserError, match=r"TUNESMITH_API_KEY"):
        serve_version("boutique", host="0.0.0.0", port=0, **options)
    with bind("127.0.0.1", 0, has_key=False) as taken, pytest.raises(UserError, match="in use"):
        serve_version("boutique", host="127.0.0.1", port=taken.getsockname()[1], **options)
    assert store.keys.all() == []


def test_a_workspace_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model has been trained in this workspace"):
        serve_version("boutique", store=Store(tmp_path / "typo"), host="127.0.0.1", port=0, access=Access(no_auth=True))
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (Access(no_auth=True, api_key="k"), "leave out one of the two"),
        (Access(no_auth=True, admin_port=0), "the admin port needs keys"),
        (Access(no_auth=True, allowed_hosts=("*",)), "allowed-host"),
    ],
)
def test_what_contradicts_no_auth_is_refused(access: Access, said: str, store: Store) -> None:
    with pytest.raises(UserError, match=said):
        serve_version("boutique", store=store, host="127.0.0.1", port=0, access=access)


def test_no_auth_is_for_this_machine_only_even_with_keys_in_the_ledger(store: Store) -> None:
    store.keys.create("shop", scopes=["infer"])
    with pytest.raises(UserError, match=r"127\.0\.0\.1"):
        serve_version("boutique", store=store, host="0.0.0.0", port=0, access=Access(no_auth=True))


def test_the_command_tells_the_key_to_people_on_stderr_and_to_machines_on_stdout(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def serve_nothing(ref: str, **options: Any) -> None:
        asked.append(options)
        new = options["store"].keys.create(f"k{len(asked)}", scopes=["infer"])
        options["on_ready"](Listening("http://127.0.0.1:1", "http://127.0.0.1:2", new))

    monkeypatch.setattr(pipeline, "serve_version", serve_nothing)
    arguments = [
        "serve",
        "boutique",
        "--workspace",
        str(store.root),
        "--allowed-host",
        "a.example",
        "--allowed-host",
        "b.example",
    ]
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0, plain.output
    assert "ts_" in plain.stderr
    assert plain.stdout == ""
    assert "serving boutique at http://127.0.0.1:1/v1" in plain.stderr
    assert asked[0]["access"] == Access(allowed_hosts=("a.example", "b.example"))
    assert asked[0]["noting"].log_json is True, "stderr is no terminal here"
    machine = CliRunner().invoke(
        app, [*arguments, "--json", "--no-log-json", "--admin-port", "0"], env={"TUNESMITH_API_KEY": "given"}
    )
    told = json.loads(machine.stdout)
    assert told["url"] == "http://127.0.0.1:1/v1"
    assert told["api_key"].startswith("ts_")
    assert told["api_key"] not in machine.stderr
    assert asked[1]["access"].api_key == "given"
    assert (asked[1]["access"].admin_port, asked[1]["noting"].log_json) == (0, False)


@pytest.mark.parametrize("log_content", [False, True])
def test_answers_are_logged_with_their_texts_only_if_that_was_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, log_content: bool
) -> None:
    def ask(app: FastAPI, **_: Any) -> None:
        with TestClient(app, base_url="http://localhost", headers={"authorization": "Bearer k"}) as client:
            deadline = time.monotonic() + 60
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline
            body = {"model": "boutique", "messages": [{"role": "user", "content": "Open?"}]}
            answer = client.post("/v1/chat/completions", json=body).json()
            said = client.post("/v1/feedback", json={"completion": answer["id"], "kind": "thumbs", "value": True})
            assert said.json()["status"] == "recorded"
            assert 'tunesmith_log_dropped_total{what="interactions"} 0.0' in client.get("/metrics").text

    monkeypatch.setattr(serving, "serve", ask)
    options: dict[str, Any] = {"access": Access(api_key="k"), "noting": Noting(log_content=log_content)}
    serve_version("boutique", store=store, host="127.0.0.1", port=0, **options)
    (logged,) = RequestReader(store.requests).interactions()
    (feedback,) = RequestReader(store.requests).feedback()
    assert (logged.interaction.arm, logged.has_content) == ("boutique@1", log_content)
    assert feedback.arm == "boutique@1"

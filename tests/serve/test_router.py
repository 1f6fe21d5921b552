"""A server that follows a registry, with engines that say which version they are."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tunesmith.errors import BrokenArtefact
from tunesmith.records import Interaction
from tunesmith.serve import create_app, serve
from tunesmith.serve.arms import Route


class Registry:
    """What a test wants served; `engines` are those that were loaded, by version."""

    def __init__(self, engine: Callable[..., Any], **arms: dict[str, float]) -> None:
        self.engine = engine
        self.wanted: dict[str, Route] = {}
        self.engines: dict[str, Any] = {}
        self.broken: set[str] = set()
        self.unloaded: list[str] = []
        self.may_load = threading.Event()
        self.may_load.set()
        self.before: Callable[[str, int], object] = lambda _ref, _index: None
        for alias, shares in arms.items():
            self.point(alias, shares)

    def point(self, alias: str, shares: dict[str, float]) -> None:
        name = "m" if alias == "champion" else f"m@{alias}"
        self.wanted = {**self.wanted, name: Route(f"m@{alias}", next(iter(shares)), shares)}

    def routes(self) -> dict[str, Route]:
        return self.wanted

    def load(self, ref: str) -> Any:
        assert self.may_load.wait(60)
        if ref in self.broken:
            raise BrokenArtefact(f"{ref} cannot be trusted")
        self.engines[ref] = self.engine(ref, " ", "says", ref=ref, before=lambda index: self.before(ref, index))
        return self.engines[ref]

    def unload(self, ref: str) -> None:
        self.unloaded.append(ref)


class Client:
    """Asks a server, without loading certificates each time."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60, verify=False, trust_env=False)

    def ask(self, model: str = "m", **fields: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=body(model, **fields))

    def version(self, model: str = "m", **fields: Any) -> str:
        """Who answered; the text, `model` and the header agree."""
        response = self.ask(model, **fields)
        assert response.status_code == 200, response.text
        ref = response.headers["x-model-version"]
        told = response.json()
        assert (told["model"], told["choices"][0]["message"]["content"]) == (ref, f"{ref} says")
        return ref

    def status(self, path: str) -> int:
        return self.http.get(path).status_code


def body(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def following(running: Callable[..., Any]) -> Iterator[Callable[..., Client]]:
    """Starts servers that look at their registry fifty times a second."""
    clients: list[Client] = []

    def start(registry: Registry, **options: Any) -> Client:
        started = running(registry=registry, **{"poll_s": 0.02, **options})
        clients.append(Client(started.url))
        clients[-1].server = started.server  # type: ignore[attr-defined]
        return clients[-1]

    yield start
    for client in clients:
        client.http.close()


@contextmanager
def half_an_answer(client: Client, model: str = "m") -> Iterator[Iterator[str]]:
    with client.http.stream("POST", "/v1/chat/completions", json=body(model, stream=True)) as response:
        lines = response.iter_lines()
        assert any('"content":"m@' in line for line in lines)
        yield lines


def text_of(lines: Iterator[str]) -> str:
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_the_answer_says_which_version_gave_it_and_the_record_says_for_which_alias(scripted, following):
    told: list[Interaction] = []
    registry = Registry(scripted, champion={"m@1": 1.0}, staging={"m@2": 1.0})
    client = following(registry, on_interaction=told.append)
    assert [client.version(name) for name in ("m", "m@staging", "m@2")] == ["m@1", "m@2", "m@2"]
    assert [(one.deployment, one.arm) for one in told] == [("m@champion", "m@1"), ("m@staging", "m@2"), ("m@2", "m@2")]
    cards = client.http.get("/v1/models").json()["data"]
    assert [(card["id"], card["root"]) for card in cards] == [
        *[("m", "m@1"), ("m@staging", "m@2")],
        *[("m@1", "m@1"), ("m@2", "m@2")],
    ]


def test_a_user_stays_with_one_version_and_users_are_shared_out(scripted, following):
    client = following(Registry(scripted, champion={"m@1": 0.5, "m@2": 0.5}))
    found = {user: client.version(user=user) for user in map(str, range(24))}
    assert set(found.values()) == {"m@1", "m@2"}
    assert {user: client.version(user=user) for user in found} == found
    assert client.http.get("/v1/models/m").json()["root"] == "m@1", "an alias is the version it points to"


def test_a_shadow_answers_the_same_request_for_the_record_alone(scripted, following):
    told: list[Interaction] = []
    registry = Registry(scripted, champion={"m@1": 1.0, "m@2": 0.0})
    client = following(registry, on_interaction=told.append)
    until(lambda: "m@2" in client.server._service.status()["versions"])
    answer = client.ask().json()
    assert answer["model"] == "m@1"
    until(lambda: len(told) == 2)
    real, shadow = sorted(told, key=lambda one: one.arm)
    assert (real.id, real.shadow_of, shadow.shadow_of) == (answer["id"], None, answer["id"])
    assert (shadow.arm, shadow.answer, shadow.deployment) == ("m@2", "m@2 says", "m@champion")
    assert registry.engines["m@2"].asked[-1] == registry.engines["m@1"].asked[-1]


def test_a_shadow_that_fails_or_is_slow_costs_the_client_nothing(scripted, following, caplog):
    told: list[Interaction] = []
    registry = Registry(scripted, champion={"m@1": 1.0, "m@2": 0.0})
    client = following(registry, on_interaction=told.append)
    until(lambda: "m@2" in client.server._service.status()["versions"])
    is_held = threading.Event()
    registry.before = lambda ref, _: is_held.wait(60) if ref == "m@2" else None
    assert [client.version() for _ in range(5)] == ["m@1"] * 5
    assert client.server._service.status()["shadows"] == {"running": 1, "left_out": 4}, "a copy never waits for another"

    def fail(ref: str, _: int) -> None:
        if ref == "m@2":
            raise ValueError("on trial")

    registry.before = fail
    is_held.set()
    until(lambda: client.server._service.num_open == 0)
    assert client.version() == "m@1"
    until(lambda: "failed at its shadow" in caplog.text)
    assert {one.arm for one in told} == {"m@1"}


def test_a_shadow_is_given_up_as_soon_as_somebody_waits(scripted, following):
    registry = Registry(scripted, champion={"m@1": 1.0, "m@2": 0.0})
    client = following(registry)
    until(lambda: "m@2" in client.server._service.status()["versions"])
    is_held = threading.Event()
    registry.before = lambda _ref, index: is_held.wait(60) if index else None
    asking = [threading.Thread(target=client.version) for _ in range(2)]
    asking[0].start()
    until(lambda: client.server._service.status()["shadows"]["running"] == 1)
    asking[1].start()
    until(lambda: client.server._service.status()["shadows"]["running"] == 0)
    is_held.set()
    for thread in asking:
        thread.join(60)
    assert registry.engines["m@2"].was_abandoned.wait(60)


def test_a_version_is_swapped_under_an_answer_that_goes_on_to_its_end(scripted, following):
    registry = Registry(scripted, champion={"m@1": 1.0})
    client = following(registry)
    is_held = threading.Event()
    registry.before = lambda ref, index: is_held.wait(60) if (ref, index) == ("m@1", 2) else None
    with half_an_answer(client) as lines:
        registry.point("champion", {"m@2": 1.0})
        until(lambda: client.server._service.status()["routes"]["m"]["arms"] == {"m@2": 1.0})
        assert client.version() == "m@2"
        states = client.server._service.status()["versions"]
        assert (states, registry.unloaded) == ({"m@2": "ready", "m@1": "draining"}, [])
        is_held.set()
        assert text_of(lines) == " says"
    until(lambda: registry.unloaded == ["m@1"])
    assert client.server._service.status()["versions"] == {"m@2": "ready"}
    assert registry.engines["m@2"].asked[0][1].max_tokens == 1, "it was warmed first"


def test_a_version_that_is_wanted_again_while_it_drains_is_not_loaded_again(scripted, following):
    registry = Registry(scripted, champion={"m@1": 1.0})
    client = following(registry)
    first = registry.engines["m@1"]
    is_held = threading.Event()
    registry.before = lambda ref, index: is_held.wait(60) if (ref, index) == ("m@1", 2) else None
    with half_an_answer(client) as lines:
        registry.point("champion", {"m@2": 1.0})
        until(lambda: client.server._service.status()["versions"].get("m@1") == "draining")
        registry.point("champion", {"m@1": 1.0})
        until(lambda: registry.unloaded == ["m@2"])
        is_held.set()
        assert text_of(lines) == " says"
    assert (client.version(), registry.engines["m@1"]) == ("m@1", first)


def test_a_version_that_does_not_load_is_told_and_the_old_one_goes_on(scripted, following, caplog):
    registry = Registry(scripted, champion={"m@1": 1.0})
    client = following(registry)
    registry.broken.add("m@2")
    registry.point("champion", {"m@2": 1.0})
    service = client.server._service
    until(lambda: service.status()["problems"] == {"m@2": "m@2 cannot be trusted"})
    assert (client.version(), client.status("/readyz")) == ("m@1", 200)
    assert "m@2 cannot be trusted; what answered before goes on" in caplog.text
    registry.broken.clear()
    registry.point("champion", {"m@3": 1.0})
    until(lambda: client.version() == "m@3")
    assert service.status()["problems"] == {}


def test_a_registry_that_cannot_be_read_changes_nothing(scripted, following):
    registry = Registry(scripted, champion={"m@1": 1.0})
    client = following(registry)
    registry.wanted = None  # type: ignore[assignment]
    until(lambda: "registry" in client.server._service.status()["problems"])
    assert client.version() == "m@1"


def test_a_trial_that_does_not_load_at_the_start_leaves_its_traffic_to_the_others(scripted, following):
    registry = Registry(scripted, champion={"m@1": 0.5, "m@2": 0.5})
    registry.broken.add("m@2")
    client = following(registry)
    assert {client.version(user=str(user)) for user in range(12)} == {"m@1"}


def test_the_server_is_ready_when_the_champion_has_written_a_token(scripted, following):
    registry = Registry(scripted, champion={"m@1": 1.0})
    registry.may_load.clear()
    is_warm = threading.Event()
    registry.before = lambda _ref, _index: is_warm.wait(60)
    client = following(registry, is_awaited=False)
    until(lambda: client.server.started)
    assert (client.status("/livez"), client.status("/readyz")) == (200, 503)
    refused = client.ask()
    assert (refused.status_code, refused.json()["error"]["code"], refused.headers["retry-after"]) == (503, "loading", "5")
    registry.may_load.set()
    until(lambda: "m@1" in registry.engines)
    assert client.status("/readyz") == 503
    is_warm.set()
    until(lambda: client.status("/readyz") == 200)
    assert client.version() == "m@1"


def test_a_version_that_is_not_loaded_is_a_404_that_names_what_is(scripted, following):
    client = following(Registry(scripted, champion={"m@2": 1.0}))
    refused = client.ask("m@1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert "m@2" in refused.json()["error"]["message"]


def test_no_more_versions_are_loaded_than_may_be(scripted, following):
    registry = Registry(scripted, champion={"m@3": 1.0}, previous={"m@2": 1.0}, old={"m@1": 1.0})
    client = following(registry, max_loaded=2)
    until(lambda: len(registry.engines) == 2)
    refused = client.ask("m@old")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert "holds 2 versions at most" in refused.json()["error"]["message"]
    assert sorted(registry.engines) == ["m@2", "m@3"]


def test_what_was_champion_does_not_stay_where_there_is_room_for_one(scripted, following):
    registry = Registry(scripted, champion={"m@1": 1.0})
    client = following(registry, max_loaded=1)
    registry.point("previous", {"m@1": 1.0})
    registry.point("champion", {"m@2": 1.0})
    until(lambda: client.server._service.status()["versions"] == {"m@2": "ready"})
    assert (client.version(), registry.unloaded) == ("m@2", ["m@1"])


def test_where_the_champion_cannot_be_had_the_server_ends_with_the_reason(scripted):
    registry = Registry(scripted, champion={"m@1": 1.0})
    registry.broken.add("m@1")
    with pytest.raises(BrokenArtefact, match="m@1 cannot be trusted"):
        serve(create_app({}, api_key=None, registry=registry), port=0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_whose_engine_has_no_thread_any_more_is_not_alive(scripted, following):
    registry = Registry(scripted, champion={"m@1": 1.0})
    client = following(registry)
    client.version()
    assert client.status("/livez") == 200
    lane = client.server._service._lanes[0]
    lane._waiting.append("nothing that could be asked")
    with lane._changed:
        lane._changed.notify()
    until(lambda: client.status("/livez") == 503)


def test_requests_are_let_in_for_a_while_after_the_first_signal(scripted, following):
    client = following(Registry(scripted, champion={"m@1": 1.0}), grace_s=0.7)
    client.server.stop()
    assert client.status("/readyz") == 503
    assert client.version() == "m@1"
    until(lambda: client.server.should_exit)

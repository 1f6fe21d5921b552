"""A real registry served with real versions, while aliases move and clients ask without pause."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import tunesmith.model
from tunesmith.data.chat import ChatFormat
from tunesmith.errors import NotFound
from tunesmith.model import add_lora, open_base, save_model
from tunesmith.model.lora import lora_layers
from tunesmith.pipeline import open_version
from tunesmith.pipeline.served_line import ServedLine
from tunesmith.pipeline.served_model import ServedModel
from tunesmith.pipeline.versions import MODEL_FACTS
from tunesmith.records import Interaction, Message, ModelVersion, Role
from tunesmith.serve import Limits, Route, create_app
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.lifecycle import Server
from tunesmith.store import Store, rollback

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
VERSION = ModelVersion(
    name="first", number=0, run="a", artefact="", weights_digest="", chat_digest="", base_digest="", created_at=""
)
QUESTIONS = ("Do you open on Sundays?", "Hi", "What is the capital of France?")
MAX_TOKENS = 4
MODEL_BYTES = 8192 * 32 * 4
"""Its embeddings; the rest is little."""
NUM_CLIENTS = 8


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """`first@1`, the champion, and `first@2`: random weights that speak with the embedded base's tokenizer."""
    store = Store(tmp_path / "work")
    for seed in (1, 2):
        with store.artefacts.publish("model") as staging:
            write_random_model(staging.path, seed=seed)
            (staging.path / MODEL_FACTS).write_text('{"base": null, "base_files": null, "max_length": 128}')
        store.ledger.register(replace(VERSION, run=str(seed), artefact=staging.artefact.digest))
    promote(store, 1)
    return store


def write_random_model(folder: Path, *, seed: int) -> None:
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(EMBEDDED / name, folder / name)
    config = AutoConfig.from_pretrained(EMBEDDED)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    config.update({**sizes, "num_key_value_heads": 1, "initializer_range": 0.5, "dtype": "float32"})
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def adapters_of_one_base(place: Path) -> Store:
    """`first@1`, the champion, and `first@2`: adapters that do something, on a base in a folder."""
    store, base = Store(place / "work"), place / "base"
    base.mkdir()
    write_random_model(base, seed=0)
    digest = open_base(str(base), folder=Path("/"), cache=Path("/")).digest
    facts = {"base": str(base), "base_files": str(base), "base_digest": digest, "max_length": 128}
    for seed in (1, 2):
        model = add_lora(AutoModelForCausalLM.from_pretrained(base), rank=2, alpha=4, seed=seed)
        for layer in lora_layers(model).values():
            torch.nn.init.normal_(layer.lora_B, std=0.5)
        with store.artefacts.publish("model") as staging:
            save_model(model, staging.path, base_path=base)
            ChatFormat.load(base).save(staging.path)
            (staging.path / MODEL_FACTS).write_bytes(orjson.dumps(facts))
        store.ledger.register(replace(VERSION, run=str(seed), artefact=staging.artefact.digest))
    promote(store, 1)
    return store


def promote(store: Store, version: int, *, alias: str = "champion", arms: dict[str, float] | None = None) -> None:
    store.ledger.point("first", alias=alias, version=version, because=(), actor="ada", expected_generation=None, arms=arms)


def expected(store: Store) -> dict[tuple[str, str], str]:
    """What each version answers to each question, from the library."""
    found: dict[tuple[str, str], str] = {}
    for ref in ("first@1", "first@2"):
        model = open_version(ref, store=store, max_new_tokens=MAX_TOKENS)
        answers = model.generate([(Message(role=Role.USER, content=question),) for question in QUESTIONS])
        found |= {(ref, question): answer for question, answer in zip(QUESTIONS, answers, strict=True)}
    return found


@contextmanager
def served(store: Store, *, max_loaded: int, told: list[Interaction] | None = None) -> Iterator[Server]:
    sock = bind("127.0.0.1", 0, has_key=False)
    is_ready = threading.Event()
    app = create_app(
        {},
        api_key=None,
        registry=ServedLine("first", store=store),
        limits=Limits(max_loaded=max_loaded, poll_s=0.02),
        on_interaction=None if told is None else told.append,
    )
    server = Server(app, sock=sock, drain_timeout_s=30, on_ready=lambda _: is_ready.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert is_ready.wait(60)
        server.url = url_of(sock)  # type: ignore[attr-defined]
        yield server
    finally:
        server.stop()
        thread.join(60)
        sock.close()
    assert not thread.is_alive()


def until_only(server: Server, ref: str) -> None:
    deadline = time.monotonic() + 60
    while server._service.status()["versions"] != {ref: "ready"}:
        assert time.monotonic() < deadline, server._service.status()
        time.sleep(0.01)


def in_memory() -> tuple[int, int]:
    """Models, and bytes of tensors. Not the process's size: its threads keep what they have freed, some MB each."""
    gc.collect()
    kept = gc.get_objects()
    num_models = sum(type(one) is ServedModel for one in kept)
    return num_models, sum(one.nbytes for one in kept if type(one) in {torch.Tensor, torch.nn.Parameter})


class Asking:
    """Clients that ask without pause; what they were told is (version, question, answer)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_over = threading.Event()
        self.told: list[tuple[str, str, str]] = []

    def ask(self, client: int) -> int:
        """How many questions one client asked."""
        with httpx.Client(base_url=self.url, timeout=60, verify=False, trust_env=False) as http:
            count = 0
            while not self.is_over.is_set():
                question = QUESTIONS[count % len(QUESTIONS)]
                body = {
                    "model": "first",
                    "messages": [{"role": "user", "content": question}],
                    "temperature": 0,
                    "max_tokens": MAX_TOKENS,
                    "user": f"{client}-{count}",
                }
                response = http.post("/v1/chat/completions", json=body)
                assert response.status_code == 200, response.text
                answer = response.json()
                self.told.append((answer["model"], question, answer["choices"][0]["message"]["content"].strip()))
                assert response.headers["x-model-version"] == answer["model"]
                count += 1
        return count


def test_no_request_fails_and_none_is_answered_by_another_version_than_it_names_while_versions_are_swapped(store: Store) -> None:
    answers = expected(store)
    assert any(answers["first@1", question] != answers["first@2", question] for question in QUESTIONS)
    told: list[Interaction] = []
    with served(store, max_loaded=1, told=told) as server, ThreadPoolExecutor(NUM_CLIENTS) as pool:
        num_models, num_bytes = in_memory()
        asking = Asking(server.url)  # type: ignore[attr-defined]
        clients = [pool.submit(asking.ask, client) for client in range(NUM_CLIENTS)]
        try:
            for _ in range(5):
                promote(store, 2)
                until_only(server, "first@2")
                rollback(store.ledger, "first", because=(), actor="ada")
                until_only(server, "first@1")
        finally:
            asking.is_over.set()
        assert sum(client.result(60) for client in clients) == len(asking.told) == len(told)
        after = in_memory()
    assert after == (num_models, pytest.approx(num_bytes, abs=MODEL_BYTES / 2))
    assert [one for one in asking.told if answers[one[0], one[1]] != one[2]] == []
    assert {version for version, _, _ in asking.told} == {"first@1", "first@2"}
    assert {(one.deployment, one.arm) for one in told} == {("first@champion", "first@1"), ("first@champion", "first@2")}


def test_adapters_of_one_base_are_served_side_by_side_and_take_its_memory_once(tmp_path: Path) -> None:
    store = adapters_of_one_base(tmp_path)
    answers = expected(store)
    assert any(answers["first@1", question] != answers["first@2", question] for question in QUESTIONS)
    with served(store, max_loaded=2) as server, ThreadPoolExecutor(NUM_CLIENTS) as pool:
        num_models, num_bytes = in_memory()
        promote(store, 2, arms={"first@1": 0.5, "first@2": 0.5})
        deadline = time.monotonic() + 60
        while server._service.status()["versions"] != {"first@1": "ready", "first@2": "ready"}:
            assert time.monotonic() < deadline, server._service.status()
            time.sleep(0.01)
        assert in_memory() == (num_models + 1, pytest.approx(num_bytes, abs=MODEL_BYTES / 2))
        asking = Asking(server.url)  # type: ignore[attr-defined]
        clients = [pool.submit(asking.ask, client) for client in range(NUM_CLIENTS)]
        while {version for version, _, _ in asking.told} != {"first@1", "first@2"} or len(asking.told) < 50:
            assert time.monotonic() < deadline, asking.told
            time.sleep(0.01)
        promote(store, 2)
        asking.is_over.set()
        assert sum(client.result(60) for client in clients) == len(asking.told)
    assert [one for one in asking.told if answers[one[0], one[1]] != one[2]] == []


def test_a_version_whose_files_are_broken_does_not_take_over(store: Store) -> None:
    with served(store, max_loaded=2) as server:
        path = store.artefacts.get(store.ledger.version("first@2").artefact).path / "model.safetensors"
        path.chmod(0o600)
        path.write_bytes(b"broken")
        promote(store, 2)
        deadline = time.monotonic() + 60
        while "first@2" not in server._service.status()["problems"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "cannot be trusted" in server._service.status()["problems"]["first@2"]
        assert server._service.find("first").lane.engine.ref == "first@1"


def test_every_alias_is_served_and_the_champion_comes_first(store: Store) -> None:
    promote(store, 2, arms={"first@2": 1.0, "first@1": 0.0})
    promote(store, 1, alias="a-trial")
    champion = Route("first@champion", "first@2", {"first@2": 1.0, "first@1": 0.0})
    assert ServedLine("first", store=store).routes() == {
        "first": champion,
        "first@champion": champion,
        "first@previous": Route("first@previous", "first@1", {"first@1": 1.0}),
        "first@a-trial": Route("first@a-trial", "first@1", {"first@1": 1.0}),
    }
    assert list(ServedLine("first", store=store).routes()) == ["first", "first@champion", "first@previous", "first@a-trial"]
    assert list(ServedLine("first@a-trial", store=store).routes()) == ["first@a-trial"]
    assert ServedLine("first@1", store=store).routes() == {"first@1": Route("first@1", "first@1", {"first@1": 1.0})}
    with pytest.raises(NotFound):
        ServedLine("first@9", store=store)


def test_without_a_champion_a_newer_version_does_not_take_over_by_itself(tmp_path: Path) -> None:
    store = Store(tmp_path)
    nothing = replace(VERSION, name="m")
    store.ledger.register(nothing)
    line = ServedLine("m", store=store)
    store.ledger.register(replace(nothing, run="b"))
    assert line.routes() == {"m": Route("m@1", "m@1", {"m@1": 1.0})}
    store.ledger.point("m", alias="champion", version=2, because=(), actor="ada", expected_generation=None)
    assert line.routes()["m"].version == "m@2"

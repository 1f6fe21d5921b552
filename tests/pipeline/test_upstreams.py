"""A stored version behind another server's engine, from the command line's options to the answer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serve.fakes_upstream import BASE, Asked, Fake, Plain, serving

import tunesmith.model
from tunesmith.errors import BrokenArtefact, EndpointError, ModelError, NotFound, UserError
from tunesmith.pipeline.upstreams import UPSTREAM_KEY, Upstream, UpstreamKind, open_upstream, read_upstream
from tunesmith.records import Message, ModelVersion, Role
from tunesmith.serve.engine import SamplingParams, Wait
from tunesmith.serve.upstream import UpstreamEngine
from tunesmith.store import Store

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
ASKED = [Message(role=Role.SYSTEM, content="Be brief."), Message(role=Role.USER, content="Price of 3?")]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`adapter@1`, the whole model `first@1` and the soft prompt `soft@1`, with the embedded base's tokenizer.

    No weights are in them, for none is read here.
    """
    store = Store(tmp_path_factory.mktemp("told") / "work")
    for name, kind in (("first", None), ("adapter", "LORA"), ("soft", "PROMPT_TUNING")):
        with store.artefacts.publish("model") as staging:
            for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                shutil.copyfile(EMBEDDED / file, staging.path / file)
            (staging.path / "tunesmith.json").write_text(json.dumps({"max_length": 64, "snapshot": name}))
            if kind is not None:
                (staging.path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
                (staging.path / "adapter_model.safetensors").write_text("It is 21.")
        digest = staging.artefact.digest
        store.ledger.register(
            ModelVersion(
                name=name,
                number=0,
                run=name,
                artefact=digest,
                weights_digest="w",
                chat_digest="c",
                base_digest="b",
                created_at="",
            )
        )
    return store


def folder_of(store: Store, ref: str) -> Path:
    return store.artefacts.get(store.ledger.version(ref).artefact).path


class Tokenizing:
    """`/tokenize` by transformers' own tokenizer of a version."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def __call__(self, asked: Asked) -> Plain | None:
        if asked.path != "/tokenize":
            return None
        ids = self.tokenizer(asked.body["prompt"], add_special_tokens=asked.body["add_special_tokens"])["input_ids"]
        return Plain(200, {"tokens": ids, "count": len(ids), "max_model_len": 128})


def answer(engine: UpstreamEngine) -> None:
    for news in engine.stream(ASKED, SamplingParams(temperature=0)):
        if isinstance(news, Wait):
            engine.step()


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_adapter_is_loaded_from_the_store_and_asked_in_the_tokens_of_training(kind: str, told: Store) -> None:
    folder = folder_of(told, "adapter@1")
    tokenizing = Tokenizing(folder)
    fake = Fake(kind, refuse=tokenizing, max_model_len=4096)
    with serving(fake) as url, open_upstream("adapter", Upstream(url, UpstreamKind(kind)), store=told) as engine:
        assert engine.ref == "adapter@1"
        assert engine.max_length == 64  # the version's own, which is shorter than the server's
        assert fake.loaded == {"adapter@1": folder}
        answer(engine)
        assert engine.count_prompt(ASKED) == len(fake.asked[-1].body["prompt"])
    asked = fake.asked[-1]
    assert asked.path == "/v1/completions"
    turns = [{"role": turn.role.value, "content": turn.content} for turn in ASKED]
    expected = tokenizing.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert asked.body["prompt"] == expected
    assert tokenizing.tokenizer.eos_token_id in asked.body["stop_token_ids"]
    assert fake.loaded == {"adapter@1": folder}  # another process of ours may still use it


def test_another_tokenizer_is_found_before_anything_is_loaded(told: Store) -> None:
    fake = Fake(max_model_len=64)  # it reads bytes
    with (
        serving(fake) as url,
        pytest.raises(ModelError, match="has another tokenizer than adapter@1"),
        open_upstream("adapter@1", Upstream(url, UpstreamKind.VLLM), store=told),
    ):
        pass
    assert fake.loaded == {}
    assert fake.bodies("/v1/completions") == []


def test_a_server_that_tells_no_tokens_is_asked_in_messages(told: Store) -> None:
    fake = Fake("sglang", refuse=lambda asked: Plain(404, {"detail": "Not Found"}) if asked.path == "/tokenize" else None)
    with serving(fake) as url, open_upstream("adapter@1", Upstream(url, UpstreamKind.SGLANG), store=told) as engine:
        answer(engine)
    assert "messages" in fake.asked[-1].body


@pytest.mark.parametrize(("kind", "max_length"), [("vllm", 48), ("llama", 64), ("openai", 64)])
def test_a_whole_model_is_the_one_that_the_server_was_started_with(kind: str, max_length: int, told: Store) -> None:
    fake = Fake(kind, refuse=Tokenizing(folder_of(told, "first@1")), max_model_len=48 if kind == "vllm" else None)
    with serving(fake) as url, open_upstream("first@1", Upstream(url, UpstreamKind(kind)), store=told) as engine:
        answer(engine)
        assert engine.max_length == max_length
    assert fake.asked[-1].body["model"] == BASE
    assert fake.loaded == {}


def test_which_of_several_whole_models_is_meant_is_not_guessed(told: Store) -> None:
    cards = [{"id": name, "object": "model"} for name in ("one", "two")]
    fake = Fake("openai", refuse=lambda asked: Plain(200, {"data": cards}) if asked.path == "/v1/models" else None)
    with (
        serving(fake) as url,
        pytest.raises(EndpointError, match=r"has 2 whole models \(one, two\)"),
        open_upstream("first@1", Upstream(url, UpstreamKind.OPENAI), store=told),
    ):
        pass
    cards[0]["id"] = "first@1"
    with serving(fake) as url, open_upstream("first@1", Upstream(url, UpstreamKind.OPENAI), store=told) as engine:
        answer(engine)
    assert fake.asked[-1].body["model"] == "first@1"


def test_what_cannot_be_served_is_told(told: Store, tmp_path: Path) -> None:
    nowhere = Upstream("http://127.0.0.1:9", UpstreamKind.VLLM)
    with pytest.raises(NotFound), open_upstream("nobody", nowhere, store=told):
        pass
    with pytest.raises(EndpointError, match="the connection failed"), open_upstream("adapter@1", nowhere, store=told):
        pass
    fake = Fake(refuse=Tokenizing(folder_of(told, "soft@1")))
    with serving(fake) as url, pytest.raises(ModelError, match="soft@1 is an adapter of the kind PROMPT_TUNING"):  # noqa: SIM117
        with open_upstream("soft@1", Upstream(url, UpstreamKind.VLLM), store=told):
            pass
    assert fake.loaded == {}
    shutil.copytree(told.root, tmp_path / "work", symlinks=True)
    store = Store(tmp_path / "work")
    file = folder_of(store, "adapter@1") / "adapter_model.safetensors"
    file.chmod(0o600)
    file.write_text("It is 22.")
    with pytest.raises(BrokenArtefact, match="cannot be trusted"), open_upstream("adapter@1", nowhere, store=store):
        pass


def test_the_two_options_belong_together() -> None:
    assert read_upstream(None, None) is None
    assert read_upstream("http://h:1", UpstreamKind.LLAMA) == Upstream("http://h:1", UpstreamKind.LLAMA)
    with pytest.raises(UserError, match="--upstream needs --driver, the kind of the server: vllm, sglang, llama, openai"):
        read_upstream("http://h:1", None)
    with pytest.raises(UserError, match="--driver vllm says how"):
        read_upstream(None, UpstreamKind.VLLM)


def test_the_command_serves_from_the_other_server_with_its_key(told: Store) -> None:
    folder = folder_of(told, "adapter@1")
    fake = Fake(refuse=Tokenizing(folder), key="sk-behind")
    with serving(fake) as url:
        command = [
            sys.executable,
            "-m",
            "tunesmith",
            "serve",
            "--no-auth",
            "adapter",
            "--port",
            "0",
            "--workspace",
            str(told.root),
        ]
        environment = os.environ | {
            UPSTREAM_KEY: "sk-behind",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "ALL_PROXY": "http://127.0.0.1:9",
        }
        with subprocess.Popen(
            [*command, "--upstream", f"{url}/v1", "--driver", "vllm"], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            line = next(line for line in process.stderr if line.startswith("serving"))
            address = line.split(" at ")[1].split()[0]
            body: dict[str, Any] = {"model": "adapter", "messages": [{"role": "user", "content": "Price of 3?"}]}
            response = httpx.post(f"{address}/chat/completions", json=body, timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert response.json()["choices"][0]["message"]["content"] == "It is 21. "
    assert response.json()["model"] == "adapter@1"

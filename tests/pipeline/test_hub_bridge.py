"""To the hub and from it, over real HTTP to a hub on this machine: fixed revisions, compare-and-set, no file that was not meant."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from tunesmith.errors import GateRefused, ModelError, NotFound, UserError
from tunesmith.model.base import open_base
from tunesmith.pipeline.card import version_card
from tunesmith.pipeline.hub_bridge import pull_from_hub, push_to_hub
from tunesmith.pipeline.versions import find_base, moves
from tunesmith.records import ModelVersion
from tunesmith.store import Store

from .fake_hub import FakeHub, fake_hub

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the hub library's own upload
WEIGHTS = save({"w": np.arange(6, dtype=np.float32)})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub() as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        template = (
            f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # made of HF_ENDPOINT when the library is imported
        )
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "good-token")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield served


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A workspace with shop@1, an adapter that names the place of its base on this machine."""
    store = Store(tmp_path / "work")
    with store.artefacts.publish("model") as staging:
        (staging.path / "adapter_model.safetensors").write_bytes(WEIGHTS)
        config = {"base_model_name_or_path": "/home/somebody/base", "peft_type": "LORA"}
        (staging.path / "adapter_config.json").write_text(json.dumps(config))
        facts = {
            "base": "tunesmith/base",
            "base_files": "/home/somebody/base",
            "base_digest": "b",
            "snapshot": "0" * 64,
            "max_length": 9,
            "train": {"method": "lora"},
            "curve": [],
            "best_step": None,
            "num_steps": 1,
            "learning_rate": 1e-3,
            "seed": 0,
            "stopped_early": False,
        }
        (staging.path / "tunesmith.json").write_text(json.dumps(facts))
        (staging.path / "tokenizer.json").write_text("{}")
        (staging.path / "chat_template.jinja").write_text("{{ messages }}")
        (staging.path / "notes.log").write_text("private")
    store.ledger.register(
        ModelVersion(
            name="shop",
            number=0,
            run="r_1",
            artefact=staging.artefact.digest,
            weights_digest="w" * 64,
            chat_digest="c",
            base_digest="b",
            created_at="2026-01-02T03:04:05+00:00",
        )
    )
    return store


def model_files(value: int = 1) -> dict[str, bytes]:
    config = {"model_type": "llama", "value": value}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": WEIGHTS, "README.md": b"# A model"}


def test_a_version_arrives_whole_in_a_repository_that_is_made_for_it(hub: FakeHub, store: Store) -> None:
    pushed = push_to_hub("shop", to="me/shop", store=store, private=True)
    sha, files = hub.commits["me/shop"][-1]
    assert (pushed.ref, pushed.name, pushed.revision, pushed.is_new) == ("shop@1", "me/shop", sha, True)
    assert hub.private == {"me/shop": True}
    names = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tunesmith.json",
        "README.md",
    }
    assert set(files) == names | {".gitattributes"}
    assert set(pushed.files) == names
    assert np.array_equal(load(files["adapter_model.safetensors"])["w"], np.arange(6, dtype=np.float32))
    assert files["README.md"].decode() == version_card(store.ledger.version("shop"), store)
    assert json.loads(files["adapter_config.json"]) == {"base_model_name_or_path": "tunesmith/base", "peft_type": "LORA"}
    assert not [name for name, content in files.items() if b"somebody" in content or b"private" in content]
    again = push_to_hub("shop", to="me/shop", store=store)
    assert (again.revision, again.is_new) == (sha, False)
    assert {path for _, path, _ in hub.requests if path.startswith("/api/models/")} >= {"/api/models/me/shop"}
    others = [path for _, path, _ in hub.requests if "me/shop" not in path]
    assert [path for path in others if not path.startswith(("/upload/", "/api/repos/create", "/api/validate-yaml"))] == []


def test_a_push_after_somebody_elses_is_refused_and_writes_nothing(hub: FakeHub, store: Store) -> None:
    seen = hub.commit("me/shop", {"README.md": b"mine"})
    moved = hub.commit("me/shop", {"README.md": b"theirs"})
    with pytest.raises(GateRefused, match=rf"me/shop has moved on from {seen}"):
        push_to_hub("shop", to="me/shop", store=store, parent=seen)
    assert hub.commits["me/shop"][-1] == (moved, {"README.md": b"theirs"})
    pushed = push_to_hub("shop", to="me/shop", store=store, parent=moved)
    assert hub.commits["me/shop"][-1][0] == pushed.revision
    assert hub.commits["me/shop"][-1][1]["README.md"] == b"theirs"  # what is not ours stays


def test_nothing_is_sent_without_a_repository_and_a_token(hub: FakeHub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shop", "a/b/c", "../shop", "me/shop@main", ""):
        with pytest.raises((UserError, ModelError)):
            push_to_hub("shop", to=name, store=store)
    monkeypatch.delenv("HF_TOKEN")
    (store.root.parent / "hf").mkdir()
    (store.root.parent / "hf" / "token").write_text("good-token")  # where its own command line keeps one
    with pytest.raises(UserError, match="set HF_TOKEN"):
        push_to_hub("shop", to="me/shop", store=store)
    assert hub.requests == []


def test_a_wrong_token_is_told_and_not_shown(hub: FakeHub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.commit("me/shop", {})
    with pytest.raises(UserError, match="the hub refused shop@1 at me/shop") as caught:
        push_to_hub("shop", to="me/shop", store=store)
    assert "hf_secret" not in str(caught.value)


def test_a_pull_fixes_the_revision_and_a_recipe_may_name_it(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.commit("them/base", {**model_files(1), "modeling.py": b"raise SystemExit", "pytorch_model.bin": b"x"})
    new = hub.commit("them/base", model_files(2))
    store = Store(tmp_path / "work")
    newest = pull_from_hub("them/base", store=store)
    assert newest.name == f"them/base@{new}"
    pinned = pull_from_hub("them/base", store=store, revision=old)
    assert pinned.name == f"them/base@{old}"
    assert [json.loads((base.path / "config.json").read_text())["value"] for base in (newest, pinned)] == [2, 1]
    assert {path.name for path in pinned.path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    asked = len(hub.requests)
    hub.commit("them/base", model_files(3))
    assert find_base(f"them/base@{old}", folder=tmp_path, store=store).digest == pinned.digest
    assert find_base("them/base", folder=tmp_path, store=store).path == pinned.path  # what was pulled last
    assert len(hub.requests) == asked


def test_a_pinned_base_is_downloaded_at_its_revision(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.commit("them/base", model_files(1))
    hub.commit("them/base", model_files(2))
    base = open_base(f"them/base@{old}", folder=tmp_path, cache=tmp_path / "cache")
    assert json.loads((base.path / "config.json").read_text())["value"] == 1
    with pytest.raises(NotFound):
        open_base("them/base@" + "0" * 40, folder=tmp_path, cache=tmp_path / "cache")


@pytest.mark.parametrize("revision", ["main", "v1.0", "0" * 39, "0" * 41, "A" * 40, ""])
def test_a_revision_that_can_move_is_refused_in_a_recipe(revision: str, hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not fix a revision.*tunesmith hub pull them/base"):
        open_base(f"them/base@{revision}", folder=tmp_path, cache=tmp_path)
    assert hub.requests == []


def test_a_hostile_base_from_the_hub_is_refused_and_not_kept(hub: FakeHub, tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    spoiled = {
        "auto_map": {"config.json": b'{"model_type": "llama", "auto_map": {"AutoModel": "evil.Model"}}'},
        "damaged": {"model.safetensors": pickle.dumps({"w": 1})},
        "pickled code": {"vocab.txt": pickle.dumps([1, 2])},
    }
    for message, files in spoiled.items():
        hub.commits.clear()
        hub.commit("them/base", {**model_files(), **files})
        with pytest.raises(ModelError, match=message):
            pull_from_hub("them/base", store=store)
        assert not list((store.cache / "hub").iterdir())


def test_a_repository_that_is_not_there_is_not_found(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="the hub has no them/none at main"):
        pull_from_hub("them/none", store=Store(tmp_path / "work"))
    hub.commit("them/base", model_files())
    with pytest.raises(NotFound, match="at v9"):
        pull_from_hub("them/base", store=Store(tmp_path / "work"), revision="v9")


def test_a_base_whose_revision_is_not_fixed_is_told_with_its_mend(hub: FakeHub, tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    sha = hub.commit("them/base", model_files())
    loose = find_base("them/base", folder=tmp_path, store=store)
    assert "names no revision" in str(moves(loose))
    assert "tunesmith hub pull them/base" in str(moves(loose))
    pull_from_hub("them/base", store=store)
    assert f"base: them/base@{sha}" in str(moves(find_base("them/base", folder=tmp_path, store=store)))
    assert moves(find_base(f"them/base@{sha}", folder=tmp_path, store=store)) is None
    assert moves(find_base("tunesmith/base", folder=tmp_path, store=store)) is None
    (tmp_path / "mine" / "base").mkdir(parents=True)
    for name, content in model_files().items():
        (tmp_path / "mine" / "base" / name).write_bytes(content)
    assert moves(find_base("mine/base", folder=tmp_path, store=store)) is None

"""A version as the base of the next recipe."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.errors import BrokenArtefact, ModelError, NotFound
from tunesmith.pipeline import load_recipe, open_version, run
from tunesmith.pipeline.lineage import stored_recipe
from tunesmith.pipeline.versions import base_of, find_base, snapshot_of
from tunesmith.records import Message, Role
from tunesmith.store import Store, examine

SHAPE = "{vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, context: 64}"
RECIPE = """
name: NAME
base: BASE
data: {sources: [{path: rows.jsonl}], split: {validation: 0.1, test: 0.1, near_duplicates: null}}
train: {method: METHOD, max_steps: 2, max_length: 64, batch_tokens: 256, learning_rate: RATE}
evaluate: {metrics: [perplexity], max_new_tokens: 2, arms: [zero_shot]}
promote: always
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"Price of {n}?"}, {"role": "assistant", "content": f"It is {7 * n}."}]}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def train(folder: Path, name: str, *, base: str, method: str = "full", rate: float = 1e-3) -> Store:
    text = RECIPE.replace("NAME", name).replace("BASE", base).replace("METHOD", method).replace("RATE", str(rate))
    (folder / f"{name}.yaml").write_text(text)
    store = Store(folder / "work")
    run(load_recipe(folder / f"{name}.yaml"), store=store)
    return store


def weights(store: Store, ref: str) -> dict[str, torch.Tensor]:
    return load_file(store.artefacts.get(store.ledger.version(ref).artefact).path / "model.safetensors")


def test_a_recipe_goes_on_from_a_version_and_keeps_its_tokenizer(folder: Path) -> None:
    """With a learning rate of next to nothing the second stage ends where it began, and not at other random weights."""
    train(folder, "first", base=SHAPE)
    store = train(folder, "second", base="first@1", rate=1e-12)
    before, after = weights(store, "first@1"), weights(store, "second@1")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9)
    first, second = (store.artefacts.get(store.ledger.version(ref).artefact).path for ref in ("first@1", "second@1"))
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()
    assert find_base("first@champion", folder=folder, store=store).name == "first@1"


def test_a_version_says_what_it_was_made_of_and_can_tell_its_recipe(folder: Path) -> None:
    train(folder, "first", base=SHAPE)
    store = train(folder, "second", base="first@champion")
    first, second = (store.ledger.version(ref) for ref in ("first@1", "second@1"))
    assert "parent" not in first.lineage
    assert second.lineage["parent"] == second.lineage["base"] == "first@1"
    assert second.lineage["snapshot"] == snapshot_of("second@1", store=store) == first.lineage["snapshot"]
    assert second.lineage["code"] == first.lineage["code"]
    assert stored_recipe(second, store=store) == load_recipe(folder / "second.yaml").resolved()
    assert first.lineage["recipe"] != second.lineage["recipe"]
    assert not [finding for finding in examine(store).findings if finding.digest == second.lineage["recipe"]]


def test_what_is_no_whole_version_is_refused(folder: Path) -> None:
    store = train(folder, "first", base=SHAPE)
    with pytest.raises(NotFound, match="first@9"):
        find_base("first@9", folder=folder, store=store)
    train(folder, "adapter", base="first@1", method="lora")
    with pytest.raises(ModelError, match="adapter@1 is an adapter; a base is a whole model"):
        find_base("adapter@1", folder=folder, store=store)
    file = store.artefacts.get(store.ledger.version("first@1").artefact).path / "model.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(BrokenArtefact, match="first@1 cannot be trusted"):
        find_base("first@1", folder=folder, store=store)


def test_a_corrected_document_beside_a_base_leaves_it_the_same_base(folder: Path) -> None:
    """The card of the embedded base is corrected in an upgrade, and every adapter on it goes on."""
    train(folder, "first", base=SHAPE)
    store = Store(folder / "work")
    base = folder / "base"
    shutil.copytree(store.artefacts.get(store.ledger.version("first@1").artefact).path, base)
    for path in (base, *base.iterdir()):
        path.chmod(0o755)
    (base / "README.md").write_text("a card")
    train(folder, "adapter", base="base", method="lora")
    (base / "README.md").write_text("a better card")
    (base / "card.json").write_text("{}")
    assert open_version("adapter@1", store=store, max_new_tokens=2).base().ref == "base"


def test_a_version_that_kept_the_digest_of_every_file_of_its_base_opens_still(folder: Path) -> None:
    """As the first versions did: the sha256 of the canonical JSON of name and sha256 of each file."""
    train(folder, "first", base=SHAPE)
    store = Store(folder / "work")
    base = store.artefacts.get(store.ledger.version("first@1").artefact).path
    copy = folder / "base"
    shutil.copytree(base, copy)
    copy.chmod(0o755)
    (copy / "README.md").write_text("a card")
    kept = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(copy.iterdir())}
    old = hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    facts = {"base": "base", "base_files": str(copy), "base_digest": old}
    assert base_of(facts) == copy
    (copy / "README.md").write_text("a better card")
    with pytest.raises(ModelError, match="its files have changed"):
        base_of(facts)


def test_a_whole_version_answers_when_its_base_has_changed_and_an_adapter_does_not(folder: Path) -> None:
    """As after an upgrade of the package, which brings another embedded base."""
    train(folder, "first", base=SHAPE)
    store = Store(folder / "work")
    base = folder / "base"
    shutil.copytree(store.artefacts.get(store.ledger.version("first@1").artefact).path, base)
    train(folder, "whole", base="base")
    train(folder, "adapter", base="base", method="lora")
    for path in (base, *base.iterdir()):
        path.chmod(0o755)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    whole = open_version("whole@1", store=store, max_new_tokens=2)
    assert whole.generate([[Message(role=Role.USER, content="Price of 3?")]])
    with pytest.raises(ModelError, match="its files have changed"):
        whole.base()
    with pytest.raises(ModelError, match="its files have changed"):
        open_version("adapter@1", store=store)

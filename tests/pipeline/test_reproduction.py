"""A version trained again from what is stored of it."""

import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tokenizers
import torch
import transformers
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import BrokenArtefact, GateRefused, Interrupted, NotFound, UserError
from tunesmith.pipeline import load_recipe, reproduction, run
from tunesmith.pipeline.lineage import keep_recipe, recipe_of, stored_recipe
from tunesmith.pipeline.reproduction import LIKELIHOOD_BOUND, WEIGHTS_BOUND, reproduce_version, stored_reproduction
from tunesmith.records import ModelVersion
from tunesmith.store import Store, examine


@pytest.fixture
def copy(told: Store, tmp_path: Path) -> Store:
    """The workspace, to be spoiled."""
    shutil.copytree(told.root, tmp_path / "work")
    return Store(tmp_path / "work")


def another(store: Store, run: str, *, lineage: dict[str, str] | None = None, **changes: Any) -> ModelVersion:
    """`first@1` registered once more with other facts."""
    version = store.ledger.version("first@1")
    return store.ledger.register(replace(version, number=0, run=run, lineage={**version.lineage, **(lineage or {})}, **changes))


def with_rate(store: Store, rate: float) -> str:
    """Digest of the recipe of `first@1` with another learning rate."""
    recipe = stored_recipe(store.ledger.version("first@1"), store=store)
    assert recipe is not None
    return keep_recipe(recipe | {"train": recipe["train"] | {"learning_rate": rate}}, store=store)


@pytest.mark.parametrize("ref", ["first@1", "adapter@1"])
def test_a_version_comes_out_bit_for_bit_without_its_source_files_and_stays_as_it_was(copy: Store, ref: str) -> None:
    versions, events, aliases = copy.ledger.versions(), copy.ledger.events("first"), copy.ledger.aliases("first")
    artefacts = set(copy.artefacts.digests())
    assert stored_reproduction(copy.ledger.version(ref), store=copy) is None
    found = reproduce_version(ref, store=copy)
    assert found.is_exact
    assert found.differs == ()
    assert found.found == copy.ledger.version(ref).weights_digest
    assert (copy.ledger.versions(), copy.ledger.events("first"), copy.ledger.aliases("first")) == (versions, events, aliases)
    (new,) = set(copy.artefacts.digests()) - artefacts
    assert copy.artefacts.get(new).kind == "reproduction"
    assert not [finding for finding in examine(copy).findings if finding.digest == new]
    assert not list(copy.jobs.iterdir()) if copy.jobs.is_dir() else True
    assert stored_reproduction(copy.ledger.version(ref), store=copy) == found


def test_libraries_and_machine_are_kept_with_a_version(told: Store) -> None:
    lineage = told.ledger.version("first@1").lineage
    for module in (np, tokenizers, torch, transformers):
        assert lineage[module.__name__] == module.__version__
    assert lineage["threads"] == str(torch.get_num_threads())
    assert lineage["processor"] == torch.backends.cpu.get_cpu_capability()
    assert lineage["python"] == platform.python_version()


def test_a_version_on_a_version_comes_out_again_where_the_workspace_has_moved_to(copy: Store, tmp_path: Path) -> None:
    recipe = """
name: second
base: first@1
data: {sources: [{path: more.jsonl}], split: {validation: 0.2, test: 0, near_duplicates: null}}
train: {method: lora, max_steps: 2, max_length: 64, batch_tokens: 256, learning_rate: 1.0e-2}
"""
    rows = [{"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]} for n in range(20)]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(recipe)
    run(load_recipe(tmp_path / "recipe.yaml"), store=copy)
    (tmp_path / "more.jsonl").unlink()
    copy.root.rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved")
    assert reproduce_version("second@1", store=moved).is_exact
    base = moved.artefacts.get(moved.ledger.version("first@1").artefact).path / "config.json"
    base.chmod(0o644)
    base.write_text(base.read_text() + " ")
    with pytest.raises(BrokenArtefact, match="first@1 cannot be trusted"):
        reproduce_version("second@1", store=moved)


def test_with_everything_the_same_another_bit_is_one_too_many(copy: Store) -> None:
    version = another(copy, "altered", weights_digest="0" * 64)
    found = reproduce_version(version.ref, store=copy)
    assert (found.holds, found.differs, found.weights_difference) == (False, (), 0)
    assert "must be bit for bit" in found.verdict
    runner = CliRunner(env={"TUNESMITH_WORKSPACE": str(copy.root)})
    result = runner.invoke(app, ["reproduce", version.ref])
    assert isinstance(result.exception, GateRefused)
    assert result.exception.exit_code == 3


def test_elsewhere_it_must_lie_within_the_bounds_and_the_figures_are_what_they_say(
    copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another learning rate stands for the rounding of another machine, a little and far too much of it."""
    trained: dict[str, dict[str, np.ndarray]] = {}
    difference = reproduction._likelihoods

    def keep(stored: Any, *, out: Path, **others: Any) -> Any:
        trained[stored.version.ref] = load_file(out / "model.safetensors")
        return difference(stored, out=out, **others)

    monkeypatch.setattr(reproduction, "_likelihoods", keep)
    torch_then = {"torch": "1.0"}
    near = another(copy, "near", lineage=torch_then | {"recipe": with_rate(copy, 0.01001)})
    far = another(copy, "far", lineage=torch_then | {"recipe": with_rate(copy, 0.2)})
    before = load_file(copy.artefacts.get(near.artefact).path / "model.safetensors")
    for version, expected in ((near, True), (far, False)):
        found = reproduce_version(version.ref, store=copy)
        assert any("torch is" in one and "was 1.0" in one for one in found.differs)
        assert (found.holds, found.is_exact) == (expected, False)
        names = sorted(before)
        one, other = (
            np.concatenate([w[name].ravel() for name in names]).astype(np.float64) for w in (before, trained[version.ref])
        )
        assert found.weights_difference == pytest.approx(np.linalg.norm(other - one) / np.linalg.norm(one), rel=1e-9)
        assert found.likelihood_then is not None
        # Half of the test rows fit into the bound of 64: all 20 are asked, and their perplexity is what the report says.
        assert np.exp(found.likelihood_then) == pytest.approx(version.metrics["perplexity"], rel=2e-2)
        assert (found.weights_difference <= WEIGHTS_BOUND and (found.likelihood_difference or 0) <= LIKELIHOOD_BOUND) is expected
        assert found.verdict.startswith("Reproduced within the bounds" if expected else "Not reproduced")


def test_what_differs_is_told_before_it_starts(copy: Store) -> None:
    version = another(copy, "old", lineage={"code": "another", "transformers": "1.0"})
    said: list[str] = []

    class Watcher(reproduction.Silent):
        def warn(self, text: str) -> None:
            said.append(text)

        def begin(self, name: str, what: str) -> None:
            said.append(f"begin {name}: {what}")

    found = reproduce_version(version.ref, store=copy, watcher=Watcher())
    assert found.is_exact  # and that is enough, whatever differs
    assert len(found.differs) == 2
    assert said[3].startswith("begin train: ")
    assert "transformers" in said[0]
    assert "the code of tunesmith" in said[1]


def test_interrupted_it_goes_on_with_the_same_call(copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def asked_at_once(_: Any) -> Iterator[Any]:
        yield lambda: True

    with monkeypatch.context() as patch:
        patch.setattr(reproduction, "asked_to_stop", asked_at_once)
        with pytest.raises(Interrupted, match="Go on with the same command"):
            reproduce_version("first@1", store=copy)
    assert list(copy.jobs.glob("*/step-*"))
    assert stored_reproduction(copy.ledger.version("first@1"), store=copy) is None
    assert reproduce_version("first@1", store=copy).is_exact


def test_what_is_not_there_any_more_is_said_plainly(copy: Store) -> None:
    old = another(copy, "old")
    bare = copy.ledger.register(replace(old, number=0, run="bare", lineage={}))
    with pytest.raises(UserError, match="kept no recipe"):
        reproduce_version(bare.ref, store=copy)
    recipe = stored_recipe(old, store=copy)
    assert recipe is not None
    strange = another(copy, "strange", lineage={"recipe": keep_recipe(recipe | {"novelty": 1}, store=copy)})
    with pytest.raises(UserError, match=r"cannot be read by tunesmith .*novelty"):
        reproduce_version(strange.ref, store=copy)
    rows = copy.artefacts.get(old.lineage["snapshot"]).path / "train.jsonl"
    rows.chmod(0o644)
    rows.write_bytes(rows.read_bytes().replace(b"It is", b"It be"))
    with pytest.raises(BrokenArtefact, match="its rows cannot be trusted"):
        reproduce_version("first@1", store=copy)
    lost = another(copy, "lost", lineage={"snapshot": "0" * 64})
    with pytest.raises(NotFound, match="there is no artefact"):
        reproduce_version(lost.ref, store=copy)


def test_a_recipe_that_mixes_by_temperature_can_be_read_back(copy: Store) -> None:
    """Resolved, it has a weight written out that it must not have."""
    recipe = stored_recipe(copy.ledger.version("first@1"), store=copy)
    assert recipe is not None
    mix = {"by": "temperature", "temperature": 2.0, "max_epochs": None}
    version = another(
        copy, "mixed", lineage={"recipe": keep_recipe(recipe | {"data": recipe["data"] | {"mix": mix}}, store=copy)}
    )
    assert recipe_of(version, store=copy).data.mix.by == "temperature"


def test_the_stored_account_is_plain_json(copy: Store) -> None:
    found = reproduce_version("first@2", store=copy).as_json()
    assert orjson.loads(orjson.dumps(found)) == found | {"differs": []}
    assert (found["holds"], found["bounds"]) == (True, {"weights": WEIGHTS_BOUND, "likelihood": LIKELIHOOD_BOUND})

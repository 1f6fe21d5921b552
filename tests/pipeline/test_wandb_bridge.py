"""A version is written down for W&B and sent nowhere, unless somebody asks for it."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from tests.pipeline.test_mlflow_bridge import RECIPE, store  # noqa: F401 - the same workspace with shop@1

from tunesmith.errors import BrokenArtefact, MissingExtra, NotFound, UserError
from tunesmith.pipeline import trackers, wandb_bridge
from tunesmith.pipeline.wandb_bridge import push_to_wandb
from tunesmith.store import Store


class FakeArtifact:
    def __init__(self, *, name: str, type: str, metadata: dict[str, str]) -> None:  # noqa: A002 - their name
        self.name, self.type, self.metadata = name, type, metadata
        self.files: dict[str, bytes] = {}
        self.policies: dict[str, str] = {}

    def add_file(self, path: str, *, name: str, policy: str = "mutable") -> None:
        self.files[name] = Path(path).read_bytes()
        self.policies[name] = policy

    @contextmanager
    def new_file(self, name: str, *, mode: str) -> Any:
        assert mode == "wb"
        written = io.BytesIO()
        yield written
        self.files[name] = written.getvalue()


class FakeRun:
    def __init__(self, **options: Any) -> None:
        self.options = options
        self.offline = options["mode"] == "offline"
        self.url = "https://wandb.example/run"
        folder = Path(options["dir"]) / "wandb" / f"offline-run-{FakeRun.count}-{options['id']}"
        FakeRun.count += 1
        (folder / "files").mkdir(parents=True)
        self.dir = str(folder / "files")
        self.step, self.logged, self.summary = 0, [], {}
        self.artifacts: list[tuple[FakeArtifact, list[str]]] = []
        self.exit_code: int | None = None

    count = 0

    def log(self, figures: dict[str, float], *, step: int) -> None:
        self.step = step
        self.logged.append((step, figures))

    def log_artifact(self, artifact: FakeArtifact, *, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def finish(self, *, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """The runs that a wandb of ours has opened."""
    opened: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        opened.append(FakeRun(**options))
        return opened[-1]

    module = ModuleType("wandb")
    module.init, module.Settings, module.Artifact = init, dict, FakeArtifact  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers, "find_spec", lambda _name: object())
    return opened


def test_a_version_is_told_whole_and_offline_whatever_the_environment_says(
    store: Store,  # noqa: F811
    runs: list[FakeRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    pushed = push_to_wandb("shop", store=store)
    (run,) = runs
    assert (run.options["mode"], run.options["project"], run.options["name"]) == ("offline", "tunesmith", "shop@1")
    assert run.options["config"]["train.lora.rank"] == 16
    assert run.options["config"]["lineage.seed"] == "7"
    assert [(step, figures["train/loss"]) for step, figures in run.logged] == [(s, 1 / s) for s in range(1, 8)]
    assert run.summary == {"test/rougeL": 57.9, "test/perplexity": 3.1}
    ((artifact, aliases),) = run.artifacts
    assert (artifact.name, artifact.type, aliases) == ("shop", "model", ["champion"])
    assert artifact.metadata["version"] == "shop@1"
    assert {"model/model.safetensors", "model/config.json", "reports/loss.svg", "recipe.json"} <= artifact.files.keys()
    assert orjson.loads(artifact.files["recipe.json"]) == RECIPE
    assert artifact.policies["model/model.safetensors"] == "immutable"  # or the weights would be copied
    assert run.exit_code == 0
    assert (pushed.aliases, pushed.is_online, pushed.run_id) == (("champion",), False, run.options["id"])
    assert pushed.where.startswith("wandb sync ")
    assert push_to_wandb("shop", store=store, is_online=True, project="p").where == "https://wandb.example/run"
    assert (runs[1].options["mode"], runs[1].options["project"]) == ("online", "p")


def test_records_that_were_not_sent_are_replaced_and_sent_ones_stay(store: Store, runs: list[FakeRun]) -> None:  # noqa: F811
    push_to_wandb("shop", store=store)
    push_to_wandb("shop@1", store=store)
    assert runs[0].options["id"] == runs[1].options["id"]
    folder = store.logs / "wandb"
    assert [path.name for path in folder.iterdir()] == [Path(runs[1].dir).parent.name]
    (Path(runs[1].dir).parent / "run.wandb.synced").touch()
    (folder / "offline-run-0-other").mkdir()
    push_to_wandb("shop@1", store=store)
    assert len(list(folder.iterdir())) == 3


def test_what_wandb_refuses_is_told_in_one_line_and_its_run_is_ended(
    store: Store,  # noqa: F811
    runs: list[FakeRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no such project\nstack")

    monkeypatch.setattr(FakeRun, "log_artifact", refuse)
    with pytest.raises(UserError, match=r"^wandb could not take shop@1: ConnectionError: no such project$"):
        push_to_wandb("shop", store=store)
    assert runs[0].exit_code == 1


def test_what_cannot_be_pushed_is_told_before_wandb_hears_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(wandb_bridge, "wandb_run", lambda **_: pytest.fail("must not be asked"))
    with pytest.raises(NotFound):
        push_to_wandb("nothing", store=store)
    monkeypatch.setattr(trackers, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"tunesmith\[wandb\]"):
        push_to_wandb("shop", store=store)
    file = store.artefacts.get(store.ledger.version("shop").artefact).path / "config.json"
    file.chmod(0o644)
    file.write_text("[]")
    with pytest.raises(BrokenArtefact, match="shop@1 cannot be trusted"):
        push_to_wandb("shop", store=store)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(find_spec("wandb") is None, reason="pip install 'tunesmith[wandb]'")
def test_wandbs_own_library_writes_the_version_down_offline(
    store: Store,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_DATA_DIR", str(store.root / "staging"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(store.root / "cache"))
    pushed = push_to_wandb("shop", store=store)
    push_to_wandb("shop", store=store)
    wandb.teardown()  # waits until it has written
    (record,) = (store.logs / "wandb").glob(f"offline-run-*/run-{pushed.run_id}.wandb")
    content = record.read_bytes()
    for part in (b"train.lora.rank", b"train/loss", b"test/rougeL", b"shop@1", b"champion", b"model/model.safetensors"):
        assert part in content
    assert content.count(b"train/learning_rate") >= 7
    assert [path.name for path in store.root.rglob("*.safetensors")] == ["model.safetensors"]  # named, and not copied
    assert capfd.readouterr() == ("", "")

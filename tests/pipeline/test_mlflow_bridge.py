"""What is pushed to MLflow is read back with MLflow's own client, and is there once however often it is pushed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tunesmith.errors import BrokenArtefact, MissingExtra, NotFound, UserError
from tunesmith.pipeline import mlflow_bridge
from tunesmith.pipeline.lineage import keep_recipe
from tunesmith.pipeline.mlflow_bridge import push_to_mlflow
from tunesmith.records import ModelVersion
from tunesmith.store import Store

RECIPE = {
    "name": "shop",
    "base": "tunesmith/base",
    "train": {"epochs": 3, "lora": {"rank": 16}},
    "evaluate": {"metrics": ["rouge"]},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A workspace with shop@1: files, a recipe, a log, a report and an alias."""
    store = Store(tmp_path / "work")
    with store.artefacts.publish("model") as staging:
        (staging.path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
        (staging.path / "config.json").write_text("{}")
    version = ModelVersion(
        name="shop",
        number=0,
        run="r_1",
        artefact=staging.artefact.digest,
        weights_digest="w" * 64,
        chat_digest="c",
        base_digest="b",
        created_at="2026-01-02T03:04:05+00:00",
        metrics={"rougeL": 57.9, "perplexity": 3.1},
        lineage={"recipe": keep_recipe(RECIPE, store=store), "seed": "7"},
    )
    store.ledger.register(version)
    store.ledger.point("shop", alias="champion", version=1, because=("r",), actor="t", expected_generation=0)
    log = store.logs / "shop@1" / "train.jsonl"
    log.parent.mkdir(parents=True)
    lines = [{"step": s, "loss": 1 / s, "learning_rate": 1e-3, "time": f"2026-01-02T03:04:{s:02}+00:00"} for s in range(1, 8)]
    log.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    (store.reports / "shop@1").mkdir(parents=True)
    (store.reports / "shop@1" / "loss.svg").write_text("<svg/>")
    return store


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.mark.filterwarnings("ignore")
def test_a_version_is_read_back_with_mlflows_own_client(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="pip install 'tunesmith[mlflow]'")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'ml' / 'flow.db'}"
    (tmp_path / "ml").mkdir()
    first = push_to_mlflow("shop", store=store, uri=uri, experiment="shops")
    again = push_to_mlflow("shop@1", store=store, uri=uri, experiment="shops")
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.run_id, again.version, again.aliases) == (first.run_id, first.version, ("champion",))

    client = client_of(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("shops").experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (first.run_id, "shop@1", "FINISHED")
    assert run.data.params == {
        "name": "shop",
        "base": "tunesmith/base",
        "train.epochs": "3",
        "train.lora.rank": "16",
        "evaluate.metrics": "['rouge']",
        "lineage.recipe": store.ledger.version("shop").lineage["recipe"],
        "lineage.seed": "7",
    }
    assert (run.data.metrics["test/rougeL"], run.data.metrics["test/perplexity"]) == (57.9, 3.1)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(1, 8)]
    assert len(client.get_metric_history(run.info.run_id, "test/rougeL")) == 1
    copy = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path / "ml")))
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert {"model/model.safetensors", "model/config.json", "reports/loss.svg", "recipe.json"} <= names
    assert json.loads((copy / "recipe.json").read_text()) == RECIPE
    (version,) = client.search_model_versions("name = 'shop'")
    assert (version.run_id, version.tags["tunesmith.version"]) == (first.run_id, "shop@1")
    assert client.get_model_version_by_alias("shop", "champion").version == version.version
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.filterwarnings("ignore")
def test_an_alias_follows_ours_and_a_push_that_broke_off_is_completed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="pip install 'tunesmith[mlflow]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with monkeypatch.context() as broken:
        broken.setattr(mlflow_bridge._Pushing, "_log_artefacts", lambda *_: (_ for _ in ()).throw(ConnectionError("line dead")))
        with pytest.raises(UserError, match=r"mlflow could not take shop@1: ConnectionError: line dead"):
            push_to_mlflow("shop", store=store)
    one = push_to_mlflow("shop@1", store=store)
    with store.artefacts.publish("model") as staging:
        (staging.path / "config.json").write_text('{"v": 2}')
    store.ledger.register(replace(store.ledger.version("shop@1"), number=0, run="r_2", artefact=staging.artefact.digest))
    store.ledger.point("shop", alias="champion", version=2, because=("r",), actor="t", expected_generation=1)
    two = push_to_mlflow("shop@2", store=store)
    push_to_mlflow("shop@1", store=store)
    client = client_of(f"sqlite:///{store.logs / 'mlflow.db'}")
    assert len(client.search_runs([client.get_experiment_by_name("tunesmith").experiment_id])) == 2
    pointed = {a: int(client.get_model_version_by_alias("shop", a).version) for a in ("champion", "previous")}
    assert pointed == {"champion": two.version, "previous": one.version}
    assert one.version != two.version


def test_what_cannot_be_pushed_is_told_before_mlflow_hears_of_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_bridge, "mlflow_client", lambda *_: pytest.fail("must not be asked"))
    with pytest.raises(NotFound):
        push_to_mlflow("nothing", store=store)
    file = store.artefacts.get(store.ledger.version("shop").artefact).path / "config.json"
    file.chmod(0o644)
    file.write_text("[]")
    with pytest.raises(BrokenArtefact, match="shop@1 cannot be trusted"):
        push_to_mlflow("shop", store=store)


def test_without_mlflow_the_extra_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.pipeline.trackers.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"tunesmith\[mlflow\]"):
        push_to_mlflow("shop", store=store)


def test_mlflows_telemetry_is_off_before_it_is_imported() -> None:
    pytest.importorskip("mlflow", reason="pip install 'tunesmith[mlflow]'")
    code = (
        "import os, tempfile, sys; from tunesmith.pipeline.trackers import mlflow_client; assert 'mlflow' not in sys.modules;"
        "mlflow_client('sqlite:///' + tempfile.mkdtemp() + '/x.db'); from mlflow.telemetry.utils import is_telemetry_disabled;"
        "print(is_telemetry_disabled())"
    )
    off = {"MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "PYTEST_CURRENT_TEST"}
    environment = {key: value for key, value in os.environ.items() if key not in off}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr

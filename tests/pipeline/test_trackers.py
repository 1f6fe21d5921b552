"""Trackers: none is needed, none is slow, none can kill a run; TensorBoard, W&B and MLflow through their own libraries."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tunesmith.errors import MissingExtra, UserError
from tunesmith.pipeline import trackers
from tunesmith.pipeline.trackers import TrackedRun, TrackerName, flat, open_trackers, require_trackers
from tunesmith.pipeline.training_log import Entry


def entries(first: int, last: int) -> list[Entry]:
    return [
        {
            "step": step,
            "loss": 1 / step,
            "mean_loss": 2 / step,
            "validation_loss": 3 / step if step % 2 == 0 else None,
            "learning_rate": 1e-3,
            "grad_norm": 0.5,
            "tokens": 100,
            "supervised_tokens": 50,
            "tokens_per_s": 10.0,
            "memory_bytes": 4096,
            "elapsed_s": float(step),
            "time": f"2026-01-02T03:04:{step:02}.000+00:00",
        }
        for step in range(first, last + 1)
    ]


def a_run(folder: Path) -> TrackedRun:
    return TrackedRun(name="shop", id="0123456789abcdef", settings=flat({"train": {"lora": {"rank": 16}}}), folder=folder)


def tell(names: Sequence[TrackerName], run: TrackedRun, told: Sequence[Entry], *, is_done: bool) -> None:
    """A run that tells its trackers something and is done, or is interrupted."""
    with suppress(KeyboardInterrupt), open_trackers(names, run=run, warn=pytest.fail) as opened:
        opened.tell(told)
        if not is_done:
            raise KeyboardInterrupt


class Fake:
    """A tracker that remembers, and fails or hangs when told to."""

    where = "nowhere"

    def __init__(self, *, error: Exception | None = None, hangs: bool = False) -> None:
        self.steps: list[int] = []
        self.closed: list[bool] = []
        self.written = threading.Event()
        self._error = error
        self._hangs = hangs

    def write(self, entries: Sequence[Entry]) -> None:
        self.written.set()
        if self._hangs:
            threading.Event().wait()
        if self._error is not None:
            raise self._error
        self.steps += [entry["step"] for entry in entries]

    def close(self, *, is_done: bool) -> None:
        self.closed.append(is_done)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    fakes: dict[str, Fake] = {}
    monkeypatch.setattr(trackers, "_open", lambda name, _run: fakes[name])
    monkeypatch.setattr(trackers, "_SECONDS_BETWEEN_WRITES", 0.01)
    return fakes


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name != "tensorboard" else object())
    require_trackers([TrackerName.TENSORBOARD])
    with pytest.raises(MissingExtra, match=r"wandb.*not installed.*pip install 'tunesmith\[wandb,mlflow\]'"):
        require_trackers([TrackerName.TENSORBOARD, TrackerName.WANDB, TrackerName.MLFLOW])


def test_every_tracker_has_an_extra_of_its_name() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name in TrackerName:
        (requirement,) = project["optional-dependencies"][name]
        assert requirement.startswith(name)


def test_a_tracker_hears_every_step_and_how_it_ended(fake: dict[str, Fake], tmp_path: Path) -> None:
    fake["wandb"] = Fake()
    with open_trackers([TrackerName.WANDB, TrackerName.WANDB], run=a_run(tmp_path), warn=pytest.fail) as opened:
        assert opened.where == ["wandb: nowhere"]
        for entry in entries(1, 9):
            opened.tell([entry])
    assert fake["wandb"].steps == list(range(1, 10))
    assert fake["wandb"].closed == [True]


def test_a_run_that_stops_closes_its_trackers_as_stopped(fake: dict[str, Fake], tmp_path: Path) -> None:
    fake["mlflow"] = Fake()
    tell([TrackerName.MLFLOW], a_run(tmp_path), entries(1, 2), is_done=False)
    assert fake["mlflow"].steps == [1, 2]
    assert fake["mlflow"].closed == [False]


def test_a_tracker_that_fails_is_given_up_with_one_warning_and_the_others_go_on(fake: dict[str, Fake], tmp_path: Path) -> None:
    fake |= {"mlflow": Fake(error=ConnectionError("server gone\nstack")), "wandb": Fake()}
    told: list[str] = []
    with open_trackers([TrackerName.MLFLOW, TrackerName.WANDB], run=a_run(tmp_path), warn=told.append) as opened:
        opened.tell(entries(1, 1))
        assert fake["mlflow"].written.wait(20)
        for entry in entries(2, 9):
            opened.tell([entry])
    assert len(told) == 1
    assert "mlflow has failed" in told[0]
    assert "(ConnectionError: server gone)" in told[0]
    assert fake["wandb"].steps == list(range(1, 10))
    assert fake["mlflow"].closed == []


def test_a_tracker_that_hangs_holds_nobody_up(fake: dict[str, Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_SECONDS_TO_FINISH", 0.1)
    fake["wandb"] = Fake(hangs=True)
    told: list[str] = []
    with open_trackers([TrackerName.WANDB], run=a_run(tmp_path), warn=told.append) as opened:
        opened.tell(entries(1, 1))
        assert fake["wandb"].written.wait(20)
        opened.tell(entries(2, 9))
    assert len(told) == 1
    assert "no answer within" in told[0]


def test_a_tracker_that_cannot_be_opened_stops_the_run_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def __init__(self, _run: TrackedRun) -> None:
            raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(trackers, "_Mlflow", Closed)
    with (
        pytest.raises(UserError, match=r"mlflow could not be opened: no route to host\. .*--log-to mlflow"),
        open_trackers([TrackerName.MLFLOW], run=a_run(tmp_path), warn=pytest.fail),
    ):
        pytest.fail("must not begin")


def tell_twice(name: TrackerName, folder: Path) -> None:
    """A run stopped after step 5 and gone on from step 4: the log is told again from its start."""
    tell([name], a_run(folder), entries(1, 5), is_done=False)
    tell([name], a_run(folder), [*entries(1, 3), *entries(4, 8)], is_done=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'tunesmith[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    tell_twice(TrackerName.TENSORBOARD, tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard" / "shop-0123456789abcdef"), size_guidance={"tensors": 0})
    found.Reload()
    losses = {event.step: float(make_ndarray(event.tensor_proto)) for event in found.Tensors("train/loss")}
    assert losses == pytest.approx({step: 1 / step for step in range(1, 9)})
    assert len(found.Tensors("train/loss")) == 8
    assert [event.step for event in found.Tensors("validation/loss")] == [2, 4, 6, 8]
    assert found.Tensors("train/loss")[1].wall_time - found.Tensors("train/loss")[0].wall_time == pytest.approx(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["the workspace", "a database", "files"])
def test_mlflow_holds_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    pytest.importorskip("mlflow", reason="pip install 'tunesmith[mlflow]'")
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    address = {"the workspace": f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}", "a database": f"sqlite:///{tmp_path / 'own.db'}"}
    address["files"] = (tmp_path / "runs").as_uri()
    if place != "the workspace":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address[place])
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tell_twice(TrackerName.MLFLOW, tmp_path / "logs")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=address[place])
    (run,) = client.search_runs([client.get_experiment_by_name("tunesmith").experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "shop")
    assert run.data.params == {"train.lora.rank": "16"}
    history = {name: client.get_metric_history(run.info.run_id, name) for name in ("train/loss", "validation/loss")}
    assert [(m.step, m.value) for m in history["train/loss"]] == [(step, pytest.approx(1 / step)) for step in range(1, 9)]
    assert [m.step for m in history["validation/loss"]] == [2, 4, 6, 8]
    assert {path.name for path in tmp_path.iterdir()} <= {"logs", "own.db", "runs"}


@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline_and_takes_figures_and_settings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb", reason="pip install 'tunesmith[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with open_trackers([TrackerName.WANDB], run=a_run(tmp_path), warn=pytest.fail) as opened:
        opened.tell(entries(1, 5))
        (where,) = opened.where
    assert where.startswith(f"wandb: wandb sync {tmp_path}/wandb/offline-run-")
    (recorded,) = tmp_path.glob("wandb/offline-run-*/run-0123456789abcdef.wandb")
    content = recorded.read_bytes()
    for part in (b"train.lora.rank", b"train/loss", b"validation/loss", b"tunesmith"):
        assert part in content
    assert content.count(b"train/grad_norm") >= 5
    for private in (b"pytest", str(Path.home()).encode() + b"/", b"github.com"):
        assert private not in content
    assert not list(tmp_path.glob("wandb/offline-run-*/files/*"))
    assert capfd.readouterr() == ("", "")

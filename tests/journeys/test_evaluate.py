"""A version judged again: on its own test rows, on a file, against another version; each with its page."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import DataError, Interrupted, UserError
from tunesmith.pipeline import Silent, compare_refs, evaluate_ref
from tunesmith.store import Store

from .conftest import RECIPE, call, rows, write_rows


@pytest.fixture(scope="module")
def two(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions of one snapshot: tiny@1, and tiny@2 that was trained for one step only."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    done = call(
        "run", "recipe.yaml", "--set", "train.max_steps=1", "--set", "promote=never", workspace=folder / "work", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


def printed(folder: Path, *arguments: str) -> dict[str, Any]:
    done = call(*arguments, "--json", workspace=folder / "work", cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Hearing(Silent):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_run_leaves_a_page_with_its_figures(finished: Path) -> None:
    said = printed(finished, "run", "recipe.yaml")
    page = Path(said["page"])
    assert page == finished / "work" / "reports" / "tiny@1" / "evaluation.html"
    report = json.loads(page.with_suffix(".json").read_text())
    assert {name: score["value"] for name, score in report["scores"]["tuned"].items()} == said["metrics"]
    assert report["verdict"] in html.unescape(page.read_text())
    assert report["details"]["reproduce"]["command"] == "tunesmith run recipe.yaml"
    assert report["details"]["contamination"]["rows"] == report["num_rows"] == 19


def test_evaluating_again_gives_the_figures_of_the_run_and_the_same_report_twice(two: Path) -> None:
    store = Store(two / "work")
    once, again = (evaluate_ref("tiny@1", store=store) for _ in range(2))
    assert once == again
    scores = {name: score.value for name, score in once.report.scores["tiny@1"].items()}
    assert scores == pytest.approx(store.ledger.version("tiny@1").metrics, rel=1e-6)
    assert once.report.subject == "tiny@1"
    assert once.report.differences == {}  # it started from scratch, so there is no base
    assert once.page.is_file()
    shown = call("evaluate", "tiny@1", "--max-rows", "5", workspace=two / "work", cwd=two)
    assert "(5 of them answered)" in " ".join(shown.stdout.split())
    assert str(two / "work" / "reports" / "tiny@1" / "evaluation.html") in shown.stdout


def test_two_versions_are_compared_on_their_common_test_rows(two: Path) -> None:
    found = printed(two, "compare", "tiny@2", "tiny@1", "--out", "here.html")
    assert (found["baseline"], found["subject"], found["num_rows"]) == ("tiny@2", "tiny@1", 19)
    assert "left_out" not in found["details"]
    assert found["is_better"] is found["verdict"].startswith("Better than tiny@2: ")
    difference = found["differences"]["tiny@1"]["perplexity"]
    assert difference["high"] < 0  # it was trained for longer
    assert (two / "here.html").is_file()
    assert json.loads((two / "here.json").read_text())["id"] == found["id"]
    turned = evaluate_ref("tiny@2", against="tiny@1", store=Store(two / "work")).report
    assert turned.verdict.startswith("Not better than tiny@1, worse in")
    assert turned.differences["tiny@2"]["perplexity"].value == pytest.approx(-difference["value"], rel=1e-9)


def test_an_adapter_is_judged_beside_its_base_as_in_its_run(two: Path) -> None:
    store = Store(two / "work")
    base = store.artefacts.get(store.ledger.version("tiny@1").artefact).path
    (two / "adapter.yaml").write_text(
        RECIPE.replace("name: tiny", "name: adapted")
        .replace(next(line for line in RECIPE.splitlines() if line.startswith("base:")), f"base: {base}")
        .replace("method: full", "method: lora")
    )
    done = call("run", "adapter.yaml", "--set", "train.max_steps=1", workspace=two / "work", cwd=two)
    assert done.returncode == 0, done.stderr
    run = json.loads((two / "work" / "reports" / "adapted@1" / "evaluation.json").read_text())
    judged = evaluate_ref("adapted", store=store)
    assert (judged.report.baseline, judged.report.subject) == ("base", "adapted@1")
    for arm, name in (("base", "base"), ("adapted@1", "tuned")):
        found = {metric: score.value for metric, score in judged.report.scores[arm].items()}
        assert found == pytest.approx({metric: score["value"] for metric, score in run["scores"][name].items()}, rel=1e-6)
    assert "What changed against base" in judged.page.read_text()


def test_a_file_is_judged_on_without_the_rows_that_were_learned(two: Path) -> None:
    new = [
        {
            "messages": [
                {"role": "user", "content": f"{start} the {thing} in the window at the back?"},
                {"role": "assistant", "content": f"The {thing} costs 3 euros."},
            ]
        }
        for start in ("Would you sell me", "May I have a look at", "Who on earth has made")
        for thing in ("umbrella", "blanket", "mirror", "carpet")
    ]
    learned = [row for row in rows() if row["group"] in trained_groups(two)]
    mine, hearing = two / "mine.jsonl", Hearing()
    nearly = json.loads(json.dumps(learned[0]).replace("?", " ?"))
    write_rows(mine, [*learned[:24], nearly, *new, new[0], {"nothing": "here"}])
    report = evaluate_ref("tiny@1", data=mine, store=Store(two / "work"), watcher=hearing).report
    assert report.details["left_out"] == {
        "unusable": 1,
        "repeated": 1,
        "seen by tiny@1 in training": 24,
        "near a training row of tiny@1": 1,
    }
    assert report.num_rows == len(new)
    assert report.details["reproduce"]["command"] == f"tunesmith evaluate tiny@1 --data {mine}"
    assert "24 seen by tiny@1 in training" in report.verdict
    assert any("mine.jsonl:39" in warning for warning in hearing.warnings)
    write_rows(mine, learned)
    with pytest.raises(DataError, match=r"none of the 67 rows of .* is new: 67 seen by tiny@1 in training"):
        evaluate_ref("tiny@1", data=mine, store=Store(two / "work"))


def trained_groups(folder: Path) -> set[str]:
    found = next((folder / "work" / "artefacts").glob("*/train.jsonl"))
    return {json.loads(line)["group"] for line in found.read_text().splitlines()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "nobody"), "nobody"),
        (("evaluate", "tiny@9"), "tiny@9"),
        (("evaluate", "tiny@1", "--against", "base"), "has no base"),
        (("evaluate", "tiny@1", "--against", "tiny@1"), "one and the same model"),
        (("evaluate", "tiny@1", "--data", "missing.jsonl"), "missing.jsonl"),
        (("compare", "tiny@1", "tiny@1"), "one and the same model"),
    ],
)
def test_what_cannot_be_judged_is_told(finished: Path, arguments: tuple[str, ...], said: str) -> None:
    refused = CliRunner().invoke(app, [*arguments, "--workspace", str(finished / "work")])
    assert isinstance(refused.exception, UserError)
    assert said in str(refused.exception)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("mine.json", "--out and the figures beside --out both name"),
        ("mine.html", r"mine\.json is a file that is read"),  # where the figures go
        ("copy.txt", r"copy\.txt is a file that is read"),
    ],
)
def test_no_page_is_written_over_the_rows_that_are_judged_on(two: Path, out: str, said: str) -> None:
    mine = two / "mine.json"
    mine.write_text(json.dumps([{"prompt": f"an unheard-of question {n * 7919}", "completion": "yes"} for n in range(12)]))
    (two / "copy.txt").unlink(missing_ok=True)
    (two / "copy.txt").hardlink_to(mine)
    before = mine.read_bytes()
    with pytest.raises(UserError, match=said):
        evaluate_ref("tiny@1", data=mine, out=two / out, store=Store(two / "work"))
    assert mine.read_bytes() == before


def test_an_interrupted_evaluation_keeps_nothing_and_says_so(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunesmith.pipeline.evaluation.evaluate", stop)
    before = sorted((two / "work" / "artefacts").iterdir())
    page = two / "never.html"
    with pytest.raises(Interrupted, match="Go on with the same command"):
        evaluate_ref("tiny@1", max_rows=7, out=page, store=Store(two / "work"))
    assert sorted((two / "work" / "artefacts").iterdir()) == before
    assert not page.exists()


def test_a_file_that_asks_nothing_is_refused_until_its_keys_are_named(two: Path) -> None:
    mine = two / "reviews.jsonl"
    labelled = [{"text": f"an unheard-of review, number {i * 7919}", "label": ["bad", "good"][i % 2]} for i in range(12)]
    mine.write_text("".join(json.dumps(row) + "\n" for row in labelled))
    with pytest.raises(
        DataError, match=r"text_label .* so there is nothing to ask, but tiny@1 has learned to answer.*--map prompt=KEY"
    ):
        evaluate_ref("tiny@1", data=mine, store=Store(two / "work"))
    report = printed(two, "evaluate", "tiny@1", "--data", str(mine), "--map", "prompt=text", "--map", "completion=label")
    assert {sample["reference"] for sample in report["samples"]} == {"bad", "good"}
    assert "--map prompt=text --map completion=label" in report["details"]["reproduce"]["command"]


def test_a_champion_of_another_split_is_compared_on_the_rows_that_neither_has_seen(project: Path) -> None:
    more = ("--set", "data.split.test=0.5", "--set", "train.max_steps=1")
    assert call("run", "recipe.yaml", *more, workspace=project / "work", cwd=project).returncode == 0
    second = call("run", "recipe.yaml", *more, "--set", "data.seed=1", workspace=project / "work", cwd=project)
    assert second.returncode == 0, second.stderr
    report = json.loads((project / "work" / "reports" / "tiny@2" / "evaluation.json").read_text())
    left_out = report["details"]["left_out"]["seen by tiny@1 in training"]
    assert set(report["scores"]) == {"champion", "tuned"}
    assert report["num_rows"] + left_out == 48
    assert 8 <= report["num_rows"] < 48
    assert f"(left out: {left_out} seen by tiny@1 in training)" in report["verdict"]
    assert f"the champion tiny@1 has seen {left_out} of these 48 test rows" in second.stderr
    found = compare_refs("tiny@1", "tiny@2", store=Store(project / "work")).report
    assert found.num_rows == report["num_rows"]
    for metric, score in report["scores"]["champion"].items():
        assert found.scores["tiny@1"][metric].value == pytest.approx(score["value"], rel=1e-6)

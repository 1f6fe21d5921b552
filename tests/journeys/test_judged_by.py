"""A version judged again by what its recipe said: metrics of one's own, the fact sheet, and the arms of prompting, to the same figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import EndpointError, UserError
from tunesmith.pipeline import Silent, compare_refs, evaluate_ref
from tunesmith.store import Store

from .conftest import ITEMS, RECIPE, call, rows, write_rows
from .test_arms import KEY, Oracle, oracle

OWN = """
def mean_length(answer, references):
    return len(answer) / 10


def euros(answer, references):
    return float("euros" in answer)
"""
EVALUATE = """evaluate:
  max_new_tokens: 24
  metrics: [perplexity, rouge, facts, grounding]
  own_metrics: [mine.py:euros, mine.py:mean_length]
  facts: sheet.md
  prompt: layout.jinja
  arms: [zero_shot, few_shot, tuned_few_shot]
  search: {rows: 8}
  endpoints: [{name: oracle, url: "%s", model: m, key_env: ORACLE_KEY, price_in: 100, price_out: 100}]
"""
LAYOUT = """{% for one in demonstrations %}
{% message "user" %}{{ one.question }}{% endmessage %}
{% message "assistant" %}{{ one.answer }}{% endmessage %}
{% endfor %}
{% for turn in conversation %}{% message turn.role %}{{ turn.content }}{% endmessage %}{% endfor %}
"""


class Hearing(Silent):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with oracle() as url:
        yield url


@pytest.fixture(scope="module")
def judged(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny@1 from scratch, without arms; shop@1 trained on it, with all that a recipe can say of evaluation."""
    folder = tmp_path_factory.mktemp("judged")
    write_rows(folder / "rows.jsonl", rows())
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "mine.py").write_text(OWN)
    (folder / "layout.jinja").write_text(LAYOUT)
    (folder / "sheet.md").write_text("".join(f"The {item} costs {7 * n + 5} euros.\n" for n, item in enumerate(ITEMS)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORACLE_KEY", KEY)
        done = call("run", "recipe.yaml", "--set", "train.epochs=80", workspace=folder / "work", cwd=folder)
        assert done.returncode == 0, done.stderr
        store = Store(folder / "work")
        base = store.artefacts.get(store.ledger.version("tiny@1").artefact).path
        scratch = next(line for line in RECIPE.splitlines() if line.startswith("base:"))
        recipe = (
            RECIPE.replace("name: tiny", "name: shop").replace(scratch, f"base: {base}").replace("method: full", "method: lora")
        )
        recipe = recipe.replace("evaluate: {max_new_tokens: 24}\n", EVALUATE % url)
        (folder / "shop.yaml").write_text(recipe)
        done = call("run", "shop.yaml", "--set", "train.max_steps=2", workspace=folder / "work", cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(autouse=True)
def here(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(judged)
    monkeypatch.setenv("ORACLE_KEY", KEY)
    monkeypatch.setattr(Oracle, "asked", [])


def of_run(judged: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((judged / "work" / "reports" / "shop@1" / "evaluation.json").read_text())
    return found


@pytest.fixture(scope="module")
def first(judged: Path) -> dict[str, Any]:
    """The report of the run itself, before its page is written anew."""
    return of_run(judged)


def figures(report: Any, arm: str) -> dict[str, float]:
    return {metric: score.value for metric, score in report.scores[arm].items()}


def test_a_version_is_judged_again_by_the_metrics_and_the_sheet_of_its_recipe(
    judged: Path, first: dict[str, Any], tmp_path: Path
) -> None:
    (judged / "sheet.md").rename(judged / "sheet.gone")  # the sheet is kept beside the report
    hearing = Hearing()
    try:
        report = evaluate_ref("shop@1", store=Store(judged / "work"), watcher=hearing).report
    finally:
        (judged / "sheet.gone").rename(judged / "sheet.md")
    assert {"perplexity", "rougeL", "facts", "grounding", "euros", "mean_length"} <= report.scores["shop@1"].keys()
    for arm, name in (("base", "base"), ("shop@1", "tuned")):
        expected = {metric: score["value"] for metric, score in first["scores"][name].items()}
        assert figures(report, arm) == pytest.approx(expected, rel=1e-6)
    assert list(report.scores) == ["base", "shop@1"]  # other arms only when they are asked for
    assert Oracle.asked == []
    assert hearing.warnings == []


def test_the_arms_of_the_recipe_are_asked_again_to_the_same_figures_and_nothing_is_paid_for_twice(
    judged: Path, first: dict[str, Any]
) -> None:
    store, hearing = Store(judged / "work"), Hearing()
    done = evaluate_ref("shop@1", arms=["recipe"], store=store, watcher=hearing)
    report = done.report
    names = {"base": "base", "base+few_shot": "base+few_shot", "tuned": "shop@1", "tuned+few_shot": "shop@1+few_shot"} | {
        "oracle": "oracle"
    }
    assert set(report.scores) == set(names.values())
    for name, arm in names.items():
        expected = {metric: score["value"] for metric, score in first["scores"][name].items()}
        assert figures(report, arm) == pytest.approx(expected, rel=1e-6), arm
    assert report.details["prompts"]["base+few_shot"] == first["details"]["prompts"]["base+few_shot"]
    assert report.details["prompts"]["base+few_shot"]["prompt"]["name"] == "layout.jinja"
    assert report.details["prompts"].keys() == {"base+few_shot", "shop@1+few_shot"}
    assert report.details["arms"]["oracle"]["cost"] == pytest.approx(40 * 100 / 1e6)
    assert report.details["prompting"]["arm"] == "oracle"
    assert "oracle" in report.verdict
    assert Oracle.asked == []
    assert report.details["kept answers"]["oracle"]["answers"] == 19
    assert any("oracle: 19 answers were kept from before" in said for said in hearing.warnings)
    assert report.details["reproduce"]["command"] == "tunesmith evaluate shop@1 --arms recipe"
    assert done.page.name == "evaluation-with-arms.html"
    assert evaluate_ref("shop@1", arms=["recipe"], store=store) == done  # equal inputs are not judged twice


def test_one_arm_may_be_asked_for_on_a_file_of_rows(judged: Path, tmp_path: Path) -> None:
    new = [
        {"messages": [{"role": "user", "content": f"{start} the {item}, madam?"}, {"role": "assistant", "content": "5 euros."}]}
        for start in ("Would you sell me", "Who on earth has made", "May I have a closer look at")
        for item in ITEMS
    ]
    write_rows(tmp_path / "new.jsonl", new)
    shown = call(
        *("evaluate", "shop@1", "--data", str(tmp_path / "new.jsonl"), "--arms", " oracle, tuned_few_shot", "--json"),
        workspace=judged / "work",
        cwd=judged,
    )
    assert shown.returncode == 0, shown.stderr
    report = json.loads(shown.stdout)
    assert report["scores"].keys() == {"base", "shop@1", "shop@1+few_shot", "oracle"}
    assert len(Oracle.asked) == report["num_rows"]
    assert "--arms oracle,tuned_few_shot" in report["details"]["reproduce"]["command"]


def test_two_versions_are_compared_by_what_the_recipe_of_the_second_said(judged: Path) -> None:
    report = compare_refs("tiny@1", "shop@1", store=Store(judged / "work")).report
    assert {"grounding", "euros", "mean_length"} <= report.scores["tiny@1"].keys()
    assert figures(report, "shop@1")["euros"] == pytest.approx(of_metric(judged, "euros"))


def of_metric(judged: Path, metric: str) -> float:
    return Store(judged / "work").ledger.version("shop@1").metrics[metric]


def test_a_metric_of_ones_own_that_is_elsewhere_or_has_changed_is_left_out_and_told(
    judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, hearing = Store(judged / "work"), Hearing()
    report = evaluate_ref("shop@1", max_rows=8, store=store, watcher=hearing).report
    assert not {"euros", "mean_length"} & report.scores["shop@1"].keys()
    assert [said.partition(" is left out")[0] for said in hearing.warnings] == ["mine.py:euros", "mine.py:mean_length"]
    assert "mine.py does not stand in this folder" in hearing.warnings[0]
    (tmp_path / "mine.py").write_text("raise SystemExit('never run')\n" + OWN)
    hearing = Hearing()
    evaluate_ref("shop@1", max_rows=8, store=store, watcher=hearing)
    assert "mine.py is not the file that judged shop@1" in hearing.warnings[0]


def test_a_report_that_kept_no_texts_loses_what_rests_on_them_and_says_so(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.pipeline.judged_by.SHEETS", "none.json")
    hearing = Hearing()
    report = evaluate_ref("shop@1", max_rows=9, store=Store(judged / "work"), watcher=hearing).report
    assert "grounding" not in report.scores["shop@1"]
    assert "perplexity" in report.scores["shop@1"]
    assert hearing.warnings[0].startswith("the fact sheet of shop@1 was not kept")


@pytest.mark.parametrize(
    ("ref", "arms", "said"),
    [
        (
            "shop@1",
            ["fewshot"],
            r"'fewshot' is unknown\. Known for shop@1: few_shot, instruction, tuned_few_shot, its endpoints oracle",
        ),
        ("tiny@1", ["oracle"], r"'oracle' is unknown\. Known for tiny@1: few_shot, instruction, tuned_few_shot, or `recipe`"),
        ("tiny@1", ["few_shot"], "few_shot prompts the base, and tiny@1 started from scratch"),
    ],
)
def test_an_arm_that_cannot_be_asked_is_told(judged: Path, ref: str, arms: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        evaluate_ref(ref, arms=arms, store=Store(judged / "work"))


def test_an_endpoint_without_its_key_is_told_before_a_model_is_opened(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORACLE_KEY")
    with pytest.raises(EndpointError, match="oracle needs its key in the environment variable ORACLE_KEY"):
        evaluate_ref("shop@1", arms=["oracle"], store=Store(judged / "work"))


def test_the_arms_of_a_recipe_that_has_no_base_are_those_of_its_run(judged: Path) -> None:
    report = evaluate_ref("tiny@1", arms=["zero_shot", "recipe"], store=Store(judged / "work")).report
    assert list(report.scores) == ["tiny@1"]

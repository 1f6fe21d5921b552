"""The data report that a recipe keeps: of the rows at first, and in the end with what is learned of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.data import DataConfig, SourceConfig, SplitConfig, freeze
from tunesmith.errors import GateRefused
from tunesmith.pipeline import Silent, check, load_recipe
from tunesmith.pipeline.data_given import coverage_section
from tunesmith.pipeline.data_kept import KeptReport
from tunesmith.pipeline.data_report import tokens_of
from tunesmith.pipeline.page import page as report_page
from tunesmith.records import Snapshot
from tunesmith.store import Store

RECIPE = """
name: tiny
base: {vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, context: 96}
data:
  sources: [{path: prices.jsonl}, {path: hours.jsonl, weight: 3}]
  split: {validation: 0.1, test: 0.2, near_duplicates: null}
train: {method: full, epochs: 2, max_length: 96, batch_tokens: 256}
"""


class Hearing(Silent):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def chat(question: str, answer: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def write(path: Path, *content: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write(tmp_path / "prices.jsonl", *(chat(f"What does hat {i} cost?", f"Hat {i} costs {i} euros.") for i in range(40)))
    write(tmp_path / "hours.jsonl", *(chat(f"Are you open on day {i}?", f"On day {i} we open at nine.") for i in range(10)))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def figures(page: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(page.with_suffix(".json").read_text())
    return found


def test_near_duplicates_are_shown_up_to_so_many_rows_and_beyond_it_is_said(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, page = Store(tmp_path / "work"), tmp_path / "work" / "reports" / "tiny" / "data.html"
    long = "We close on public holidays, Easter too"
    hours = [chat(f"Are you open on day {i}?", f"On day {i} we open at nine.") for i in range(8)]
    write(
        tmp_path / "hours.jsonl",
        *hours,
        chat("When are you closed?", f"{long}."),
        chat("When are you closed?", f"{long}, I fear."),
    )
    check(load_recipe(recipe), store=store)
    found = figures(page)["near_duplicates"]
    assert isinstance(found, dict)
    assert found["rows_in_clusters"] == 2
    page.unlink()
    page.with_suffix(".json").unlink()
    monkeypatch.setattr("tunesmith.pipeline.data_kept._MOST_SEARCHED", 49)
    check(load_recipe(recipe), store=store)
    assert figures(page)["near_duplicates"] == {"searched": False, "most_rows": 49}
    assert "Not looked for here: the page searches up to 49 rows, and there are 50." in page.read_text()


def test_check_keeps_a_page_with_the_ledger_the_mix_and_the_coverage(recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    checked = check(load_recipe(recipe), store=store)
    page = store.reports / "tiny" / "data.html"
    found = figures(page)
    assert found["ledger"] == checked.plan.ledger.as_json()
    assert found["mixing"] == {"sources": {name: passed._asdict() for name, passed in checked.plan.sources.items()}}
    assert checked.plan.sources["hours.jsonl"].epochs == pytest.approx(6, abs=1)
    assert checked.coverage is not None
    assert found["coverage"] == json.loads(json.dumps(checked.coverage.as_json()))
    assert list(found)[-3:] == ["ledger", "mixing", "coverage"]
    html = page.read_text()
    for name in ("splits", "ledger", "mixing", "coverage"):
        assert f'<section id="{name}"' in html
    written = page.stat().st_mtime_ns
    check(load_recipe(recipe), store=store)
    assert page.stat().st_mtime_ns == written
    again = check(load_recipe(recipe, overrides=["data.sources.1.weight=1"]), store=store)
    assert figures(page)["mixing"] == {"sources": {name: passed._asdict() for name, passed in again.plan.sources.items()}}
    assert again.plan.sources["hours.jsonl"].epochs == pytest.approx(2, abs=0.5)


def test_a_job_that_is_refused_leaves_the_page_of_its_rows_and_no_ledger_of_another(recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    page = store.reports / "tiny" / "data.html"
    check(load_recipe(recipe), store=store)
    with pytest.raises(GateRefused):
        check(load_recipe(recipe, overrides=["train.max_length=24"]), store=store)
    found = figures(page)
    assert found["splits"]["rows"]["train"] == 35  # type: ignore[index]
    assert "ledger" not in found
    assert '<section id="ledger"' not in page.read_text()


def test_a_source_of_which_nothing_is_read_is_told_of(recipe: Path, tmp_path: Path) -> None:
    write(tmp_path / "hours.jsonl", *(chat(f"What does hat {i} cost?", f"Hat {i} costs {i} euros.") for i in range(10)))
    hearing = Hearing()
    loaded = load_recipe(recipe, overrides=["data.clean=[exact_duplicates]"])
    checked = check(loaded, store=Store(tmp_path / "work"), watcher=hearing)
    assert checked.plan.sources["hours.jsonl"] == (0, 0, 0, 0.0)
    assert [warning for warning in hearing.warnings if "nothing is read of hours.jsonl" in warning]


def test_the_page_is_made_anew_when_rows_settings_or_training_change_and_only_then(tmp_path: Path) -> None:
    store = Store(tmp_path / "work")
    tokens = tokens_of(None)
    assert tokens is not None
    config = DataConfig(sources=(SourceConfig(path="a.jsonl"),), split=SplitConfig(validation=0, test=0.2), max_bad_share=0.5)
    page = store.reports / "shop" / "data.html"
    asked: list[str] = []

    def frozen(*contents: dict[str, object]) -> Snapshot:
        write(tmp_path / "a.jsonl", *contents)
        return freeze(config, folder=tmp_path, store=store)

    def kept(snapshot: Snapshot, **settings: object) -> KeptReport:
        return KeptReport("shop", snapshot=snapshot, store=store, tokens=tokens, settings=settings)

    def complete(report: KeptReport, tokens_read: int) -> bool:
        passed = {name: {"sequences": 1, "tokens": tokens_read, "supervised": 1, "epochs": 1.0} for name in "ab"}
        return report.complete(ledger=None, sources=passed, cover=lambda: asked.append("asked"))

    rows = [chat(f"Question {i}?", f"Answer {i}.") for i in range(10)]
    first = frozen(*rows, rows[0], {})
    assert kept(first).begin()
    assert figures(page)["splits"]["rows"] == {"train": 8, "test": 2}  # type: ignore[index]
    assert figures(page)["dropped"]["by_reason"] == {"exact_duplicate": 1, "missing_field": 1}  # type: ignore[index]
    assert complete(kept(first), 5)
    assert not kept(first).begin()
    assert not complete(kept(first), 5)
    assert asked == ["asked"]
    assert complete(kept(first), 6)
    assert figures(page)["mixing"]["sources"]["a"]["tokens"] == 6  # type: ignore[index]
    assert kept(first, max_length=5).begin()
    assert "mixing" not in figures(page)
    assert kept(frozen(*rows)).begin()
    assert "dropped" not in figures(page)
    page.with_suffix(".json").write_text("[")
    assert kept(frozen(*rows)).begin()


def test_coverage_shows_what_is_missing_beside_its_nearest_row() -> None:
    target = {"source": "t.jsonl:4", "text": "Do you sell <gift> cards?", "nearness": 0.12, "nearest": "a.jsonl:9"}
    coverage = {
        "verdict": "thin",
        "num_rows": 100,
        "num_targets": 4,
        "num_well": 2,
        "num_thin": 1,
        "num_uncovered": 1,
        "num_near_rows": 30,
        "effective_rows": 21.4,
        "histogram": [0, 1, 0, 1, 0, 2, 0, 0, 0, 0],
        "gaps": [{"topic": "gift cards", "num_targets": 1, "examples": [target]}],
        "advice": ["collect rows about 'gift cards'"],
    }
    section = coverage_section(coverage, num_train=100, num_test=4)
    assert section.figures == coverage
    assert section.summary == (
        "thin: of 4 test rows 2 well, 1 thinly, 1 not at all; 30 of 100 rows are near one, worth 21 that fit alike."
    )
    drawn = coverage_section(coverage, num_train=200, num_test=8)
    assert drawn.summary == section.summary + " Drawn evenly from 200 rows and 8 test rows."
    page = report_page("t", [section])
    for words in ("Missing: gift cards (1 test row)", "Do you sell &lt;gift&gt; cards?", "0.12: a.jsonl:9", "0.5 to 0.6"):
        assert words in page


def test_a_label_that_nothing_learns_is_told_of(recipe: Path, tmp_path: Path) -> None:
    write(tmp_path / "hours.jsonl", *({"review": f"Hat {i} is fine.", "sentiment": ("good", "bad")[i % 2]} for i in range(10)))
    hearing = Hearing()
    check(load_recipe(recipe), store=Store(tmp_path / "work"), watcher=hearing)
    (told,) = [warning for warning in hearing.warnings if "not learned" in warning]
    assert told.startswith("hours.jsonl: `sentiment` is kept beside `review` and not learned")
    assert told.endswith("write map: {question: review, answer: sentiment} beside the path")
    hearing = Hearing()
    mapped = "data.sources.1.map={question: review, answer: sentiment}"
    check(load_recipe(recipe, overrides=[mapped]), store=Store(tmp_path / "work"), watcher=hearing)
    assert not [warning for warning in hearing.warnings if "not learned" in warning]

"""What is different between two stored versions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import NotFound, UserError
from tunesmith.pipeline.evaluating import stored_report
from tunesmith.pipeline.version_diff import diff_versions
from tunesmith.records import ModelVersion, Report
from tunesmith.store import Store


def command(store: Store, *arguments: str) -> str:
    done = CliRunner(env={"TUNESMITH_WORKSPACE": str(store.root), "COLUMNS": "100"}).invoke(
        app, arguments, catch_exceptions=False
    )
    return done.stdout


def test_rows_are_added_removed_or_answered_otherwise(told: Store) -> None:
    """The second has rows 0 to 78 of the first's 99, one with another answer, and 5 new ones."""
    data = diff_versions("first@1", "first@2", store=told).data
    assert {kind: data["rows"][kind] for kind in ("before", "after", "added", "removed", "changed")} == {
        "before": 99,
        "after": 84,
        "added": 5,
        "removed": 20,
        "changed": 1,
    }
    assert data["shown"]["changed"] == ["others.jsonl:2"]
    assert data["sources"] == {
        "rows.jsonl": {"state": "removed", "rows": [99, 0]},
        "others.jsonl": {"state": "added", "rows": [0, 84]},
    }
    # Of 0 to 98 the even ones were hats, but 0 is of shoes; 2 to 78 even are 39.
    assert data["domains"] == {"colours": [0, 5], "hats | caps": [49, 39], "shoes": [50, 40]}


def test_the_way_back_swaps_added_and_removed(told: Store) -> None:
    back = diff_versions("first@2", "first@1", store=told).data["rows"]
    assert (back["added"], back["removed"], back["changed"]) == (20, 5, 1)


def test_changed_keys_of_the_recipe_are_named_as_set_names_them(told: Store) -> None:
    diff = diff_versions("first@1", "first@2", store=told)
    assert diff.configuration["changed"] == {
        "data.sources[0].path": ["rows.jsonl", "others.jsonl"],
        "data.sources[0].licence": ["CC-BY-4.0", ""],
        "train.learning_rate": [0.01, 0.02],
    }
    assert {"snapshot", "weights_digest"} <= set(diff.made_of["changed"])
    assert not {"torch", "machine", "code", "seed", "base"} & set(diff.made_of["changed"])
    other = diff_versions("first@1", "adapter@1", store=told)
    assert other.made_of["changed"]["base"] == ["scratch", "tunesmith/base"]
    assert other.data == {"is_same": True, "snapshot": told.ledger.version("first@1").lineage["snapshot"], "rows": 99}


def test_paired_differences_are_means_over_the_rows_that_both_reports_share(told: Store) -> None:
    found = diff_versions("first@1", "adapter@1", store=told).metrics
    reports = [stored_report(told.ledger.version(ref), store=told) for ref in ("first@1", "adapter@1")]
    assert reports[0]
    assert reports[1]
    before, after = ({row.record: row.scores["tuned"]["perplexity"] for row in report.samples} for report in reports if report)
    assert before.keys() == after.keys()
    expected = np.mean([np.log(after[record]) - np.log(before[record]) for record in before])
    assert found["paired"]["perplexity"]["value"] == pytest.approx(expected, abs=1e-9)
    assert found["paired"]["perplexity"]["low"] < expected < found["paired"]["perplexity"]["high"]
    assert found["num_rows"] == len(before)
    assert found["figures"]["rougeL"] == [told.ledger.version(ref).metrics["rougeL"] for ref in ("first@1", "adapter@1")]


def test_reports_without_a_row_in_common_are_not_paired_and_say_why(told: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(samples: Any) -> dict[str, Any]:
        def read(version: ModelVersion, *, store: Store) -> Report | None:
            report = stored_report(version, store=store)
            return replace(report, samples=samples(report)) if report and version.name == "adapter" else report

        monkeypatch.setattr("tunesmith.pipeline.version_diff.stored_report", read)
        return dict(diff_versions("first@1", "adapter@1", store=told).metrics)

    elsewhere = changed(lambda report: tuple(replace(row, record="elsewhere") for row in report.samples[:1]))
    assert (elsewhere["paired"], elsewhere["num_rows"]) == ({}, 0)
    assert "share no test row" in elsewhere["why"]
    assert "keeps no single rows" in changed(lambda _: ())["why"]


def test_a_lost_snapshot_costs_no_other_part(told: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    first, second = (told.ledger.version(ref) for ref in ("first@1", "first@2"))
    for version in (first, second):
        for digest in (version.artefact, *version.reports, version.lineage["recipe"]):
            source = told.artefacts.get(digest).path
            target = other.artefacts.root / digest
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
        other.ledger.register(version)
    diff = diff_versions("first@1", "first@2", store=other)
    assert "there is no artefact" in diff.data["missing"]
    assert diff.configuration["changed"]["train.learning_rate"] == [0.01, 0.02]
    without = other.ledger.register(replace(second, number=0, run="another", reports=(), lineage={}))
    said = diff_versions("first@1", without.ref, store=other)
    assert said.metrics["paired"] == {}
    assert "no report" in said.metrics["why"]
    assert "kept no recipe" in said.configuration["missing"]


def test_proofs_stand_side_by_side(told: Store) -> None:
    proofs = diff_versions("first@1", "adapter@1", store=told).proofs
    one, other = proofs["proofs"]["packed = unpacked"]
    assert one["holds"] is other["holds"] is True
    assert 0 <= one["figure"] <= one["tolerance"]
    assert proofs["proofs"]["adapter on ≠ adapter off"][0] is None


def test_the_commands_show_versions_to_people_and_machines(told: Store) -> None:
    assert [version["ref"] for version in json.loads(command(told, "models", "--json"))] == ["first@1", "first@2", "adapter@1"]
    assert "first@2" in command(told, "models")
    shown = json.loads(command(told, "models", "show", "first@1", "--json"))
    assert (shown["data"]["num_read"], shown["data"]["dropped"]) == (101, {"exact_duplicate": 1, "missing_field": 1})
    assert shown["recipe"]["train"]["learning_rate"] == 0.01
    screen = command(told, "models", "show", "first@1")
    assert "tunesmith reproduce first@1" in screen or "Reproduced" in screen
    assert json.loads(command(told, "models", "diff", "first@1", "first@2", "--json"))["data"]["rows"]["changed"] == 1
    screen = command(told, "models", "diff", "first@1", "first@2")
    assert "train.learning_rate: 0.01 → 0.02" in screen
    assert "99 → 84 rows" in screen
    with pytest.raises(NotFound, match="first@9"):
        command(told, "models", "show", "first@9")


def test_an_option_in_front_of_the_verb_is_not_silently_lost(told: Store) -> None:
    with pytest.raises(UserError, match="behind `models show`"):
        command(told, "models", "--json", "show", "first@1")

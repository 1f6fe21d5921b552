"""A version's card: read by the hub's own library, true to what is stored, safe whatever stands in rows and recipes."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tunesmith.cli.common import open_store
from tunesmith.errors import UserError
from tunesmith.pipeline import card_parts as parts
from tunesmith.pipeline.card import _languages, version_card, write_card
from tunesmith.pipeline.evaluating import stored_report
from tunesmith.pipeline.lineage import keep_recipe, stored_recipe
from tunesmith.pipeline.proving import stored_sheet
from tunesmith.pipeline.recipe import Recipe
from tunesmith.pipeline.version_facts import facts_of
from tunesmith.records import Message, ModelVersion, Role, Score
from tunesmith.store import Store


def card_of(store: Store, ref: str) -> str:
    return version_card(store.ledger.version(ref), store)


def section(card: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    assert found, card
    return found[1]


@pytest.mark.parametrize("ref", ["first@1", "first@2", "adapter@1"])
def test_the_hubs_library_reads_the_card_and_finds_the_stored_figures(told: Store, ref: str) -> None:
    card = ModelCard(card_of(told, ref), ignore_metadata_errors=False)
    version = told.ledger.version(ref)
    assert card.data.eval_results
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {name: pytest.approx(value, abs=5e-5) for name, value in version.metrics.items()}
    assert {result.task_type for result in card.data.eval_results} == {"text-generation"}
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.library_name == ("peft" if ref == "adapter@1" else "transformers")
    assert card.data.model_name == ref
    assert card.text.strip().startswith(f"# {ref}")


def test_an_adapters_card_names_its_base_and_a_licence_that_fits(told: Store) -> None:
    """The embedded base's card says apache-2.0, and the rows say CC-BY-4.0."""
    card = ModelCard(card_of(told, "adapter@1"))
    assert (card.data.base_model, card.data.license) == ("tunesmith/base", "apache-2.0")
    assert "CC-BY-4.0 asks that its notice or its authors be named" in section(card.text, "Licences")


def test_where_no_licence_can_be_named_the_card_says_why(told: Store) -> None:
    card = ModelCard(card_of(told, "first@2"))
    assert card.data.license == "other"
    assert card.data.base_model is None
    assert "84 rows name no licence." in section(card.text, "Licences")


def test_metrics_stand_with_their_intervals_and_the_verdict_as_it_is_stored(told: Store) -> None:
    report = stored_report(told.ledger.version("adapter@1"), store=told)
    assert report is not None
    text = section(card_of(told, "adapter@1"), "How good it is")
    plain = re.sub(r"\\([^\w\s])", r"\1", text)
    assert plain.strip().startswith(report.verdict)
    score = report.scores["tuned"]["bits_per_byte"]
    assert f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" in text
    difference = report.differences["tuned"]["bits_per_byte"]
    assert f"{difference.value:+.3f} [{difference.low:.3f}, {difference.high:.3f}]" in text


def test_where_it_got_worse_says_which_rows_or_that_nothing_was_compared(told: Store) -> None:
    """Beside a report whose slice is worse for certain, as `direction` reads an interval below 0."""
    assert "no other model to compare it with" in section(card_of(told, "first@1"), "Where it got worse")
    facts = facts_of(told.ledger.version("adapter@1"), store=told)
    assert facts.report is not None
    assert "worse for certain" in parts.worse(facts)
    lower = {"tuned": {"rougeL": Score(value=-11.2, low=-18.9, high=-3.4)}}
    spoiled = replace(facts.report.slices[0], name="domain: returns", num_rows=34, differences=lower)
    text = parts.worse(replace(facts, report=replace(facts.report, slices=(spoiled,))))
    assert "- domain: returns (34 rows): ROUGE-L -11.2 [-18.9, -3.4]" in text
    assert "for certain" not in text
    assert "bits per byte" in text  # what it forgot


def test_every_proof_stands_with_its_figure_and_its_bound(told: Store) -> None:
    version = told.ledger.version("adapter@1")
    sheet = stored_sheet(version, store=told)
    assert sheet is not None
    rows = [line.split(" | ") for line in section(version_card(version, told), "What is proved of it").splitlines()]
    by_name = {row[0].removeprefix("| ").replace("\\", ""): row for row in rows}
    for proof in sheet.proofs:
        shown = by_name[proof.name]
        assert shown[1] == {True: "holds", None: "does not arise"}[proof.holds]  # type: ignore[index]
        if proof.holds is not None:
            assert shown[2] == f"{proof.figure:.2g}"
            assert shown[3] == (f"at {proof.rule[3:]} {proof.tolerance:.0e}" if proof.tolerance else "must be 0")


def test_the_data_is_accounted_for_row_by_row(told: Store) -> None:
    """101 rows read: 1 cannot be used, 1 is a duplicate, and one holds an address that cleaning took out."""
    text = section(card_of(told, "first@1"), "What it learned from")
    splits = told.artefacts.get(told.ledger.version("first@1").lineage["snapshot"]).path / "snapshot.json"
    counts = json.loads(splits.read_text())["splits"]
    assert f"| `rows.jsonl` | {counts['train']} | {counts['validation']} | {counts['test']} | 2 | `CC-BY-4.0` (99) |" in text
    for said in ("101 rows were read", "could not be read or used: 1.", "1 by `exact_duplicate`", "1 by `missing_field`"):
        assert said in text
    assert "Found by `pii`: 1 email." in text
    assert "jane.roe" not in card_of(told, "first@1")


def test_the_recipe_inside_makes_the_same_recipe_again(told: Store) -> None:
    text = section(card_of(told, "first@1"), "Make it again")
    assert "tunesmith reproduce first@1" in text
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block
    recipe = stored_recipe(told.ledger.version("first@1"), store=told)
    assert Recipe.model_validate(yaml.safe_load(block[1])) == Recipe.model_validate(recipe)


@pytest.mark.parametrize("ref", ["first@1", "adapter@1"])
def test_the_snippet_on_the_card_runs_with_plain_libraries_beside_the_weights(told: Store, ref: str, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(told.artefacts.get(told.ledger.version(ref).artefact).path, folder)
    folder.chmod(0o755)
    write_card(told.ledger.version(ref), store=told, out=folder / "README.md")
    block = re.search(r"```python\n(.*?)```", section((folder / "README.md").read_text(), "Use it"), re.DOTALL)
    assert block
    asked = block[1].replace('"..."', '"Price of 3?"').replace("max_new_tokens=128", "max_new_tokens=4")
    (tmp_path / "use.py").write_text(f"{asked}\nimport sys\nassert 'tunesmith' not in sys.modules or {ref == 'adapter@1'}\n")
    done = subprocess.run([sys.executable, str(tmp_path / "use.py")], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    from tunesmith.pipeline import open_version

    own = open_version(ref, store=told, max_new_tokens=4).generate([[Message(role=Role.USER, content="Price of 3?")]])
    assert done.stdout.strip() == own[0]


def test_equal_stores_give_equal_cards_and_the_file_holds_what_is_printed(told: Store, tmp_path: Path) -> None:
    card = card_of(told, "first@1")
    assert card == card_of(open_store(told.root), "first@1")
    write_card(told.ledger.version("first@1"), store=told, out=tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == card
    with pytest.raises(UserError, match="Name a file in a folder that exists"):
        write_card(told.ledger.version("first@1"), store=told, out=tmp_path / "nowhere" / "README.md")


def test_languages_are_named_where_the_rows_are_long_enough_to_be_sure(told: Store) -> None:
    facts = facts_of(told.ledger.version("first@1"), store=told)
    assert facts.rows is not None
    assert _languages(facts) == []  # all but one are too short
    said = (
        "We are open from nine in the morning until six in the evening.",
        "Wir haben von neun Uhr morgens bis sechs Uhr abends offen.",
    )
    records = tuple(replace(facts.rows.sample[0], messages=(Message(role=Role.USER, content=text),)) for text in said)
    sample = (*[records[0]] * 19, records[1])  # a twentieth is German
    assert _languages(replace(facts, rows=replace(facts.rows, sample=sample))) == ["en"]
    assert _languages(replace(facts, rows=replace(facts.rows, sample=records))) == ["en", "de"]


def test_no_path_of_this_machine_stands_on_a_card(told: Store) -> None:
    for version in told.ledger.versions():
        card = version_card(version, told)
        assert str(told.root.parent) not in card
        assert str(Path(__file__).parents[2]) not in card


NASTY = "<img src=x onerror=alert(1)> | `a` [b](javascript:c) \u202e\n---\nlicense: mit\n# own"


@pytest.fixture
def nasty(told: Store, tmp_path: Path) -> tuple[Store, ModelVersion]:
    """The adapter as it would be had its rows, recipe and report said nasty things."""
    shutil.copytree(told.root, tmp_path / "work")
    store = Store(tmp_path / "work")
    version = store.ledger.version("adapter@1")
    recipe = stored_recipe(version, store=store)
    assert recipe is not None
    recipe["data"]["sources"][0] |= {
        "licence": NASTY,
        "path": f"/home/jane/{NASTY.partition('/')[0]}",
        "instruction": "```\n" + NASTY,
    }
    old = store.artefacts.get(version.lineage["snapshot"]).path
    with store.artefacts.publish("snapshot") as staging:
        for file in old.iterdir():
            if file.name == "manifest.json":
                continue
            text = file.read_text()
            if file.name == "snapshot.json":
                account = json.loads(text)
                account["sources"] = {f"{NASTY}.jsonl": account["sources"]["rows.jsonl"]}
                account["steps"].append(NASTY)
                account["dropped"] = {NASTY: 2}
                text = json.dumps(account)
            elif file.name != "dropped.jsonl":
                rows = [json.loads(line) for line in text.splitlines()]
                spoiled = [row | {"domain": NASTY, "licence": NASTY, "source": f"{NASTY}.jsonl:1"} for row in rows]
                text = "".join(json.dumps(row) + "\n" for row in spoiled)
            (staging.path / file.name).write_text(text)
    facts = store.artefacts.get(version.artefact)
    with store.artefacts.publish("model") as model:
        for file in facts.path.iterdir():
            if file.name == "tunesmith.json":
                known = json.loads(file.read_text())
                (model.path / file.name).write_text(
                    json.dumps(known | {"snapshot": staging.artefact.digest, "warnings": [NASTY]})
                )
            elif file.name != "manifest.json":
                shutil.copyfile(file, model.path / file.name)
    lineage = {**version.lineage, "recipe": keep_recipe(recipe, store=store), "torch": NASTY}
    changed = replace(version, number=0, run="nasty", artefact=model.artefact.digest, lineage=lineage)
    return store, store.ledger.register(changed)


def test_nasty_names_licences_and_domains_stay_text(nasty: tuple[Store, ModelVersion]) -> None:
    store, version = nasty
    text = version_card(version, store)
    card = ModelCard(text)
    assert card.data.license == "other"
    assert "is not known here" in card.text
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)
    assert "<img" not in shown
    assert not re.search(r"<a\b", shown)
    titles = re.findall(r"<h[1-6]>(.*?)</h[1-6]>", shown)
    assert titles == [version.ref, *re.findall(r"^## (.*)$", card_of(store, "adapter@1"), re.MULTILINE)]
    assert "\u202e" not in text
    assert "/home/jane" not in text
    for table in re.findall(r"<table>.*?</table>", shown, re.DOTALL):
        widths = {row.count("<td>") + row.count("<th>") for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}
        assert len(widths) == 1, table


def test_what_was_not_measured_or_is_gone_is_said_to_be(told: Store, tmp_path: Path) -> None:
    shutil.copytree(told.root, tmp_path / "work")
    store = Store(tmp_path / "work")
    version = store.ledger.version("first@1")
    bare = store.ledger.register(replace(version, number=0, run="bare", reports=(), lineage={}, metrics={}))
    text = version_card(bare, store)
    assert ModelCard(text).data.eval_results is None
    assert "Not measured" in section(text, "How good it is")
    assert f"`tunesmith prove {bare.ref}`" in section(text, "What is proved of it")
    assert "recipe was not kept" in section(text, "Make it again")
    assert "Libraries and machine were not kept" in section(text, "How it was trained")
    rows = store.artefacts.get(version.lineage["snapshot"]).path
    for path in (rows, *rows.iterdir()):
        path.chmod(0o755)
    shutil.rmtree(rows)
    text = version_card(bare, store)
    assert "gone from the store" in section(text, "What it learned from")
    assert "nothing can be said of their licences" in section(text, "Licences")

"""A first recipe for somebody's own data: the kind of task, the keys, settings that the recipe's own checks accept."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from tunesmith.data import read
from tunesmith.errors import DataError, NotFound, UserError
from tunesmith.pipeline import load_recipe
from tunesmith.pipeline.proposing import Proposal, propose
from tunesmith.pipeline.starter import start_from_data
from tunesmith.records import Record


def rows_to(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def proposed(tmp_path: Path, rows: list[dict[str, object]]) -> tuple[Proposal, dict[str, dict[str, object]]]:
    proposal = propose([rows_to(tmp_path / "rows.jsonl", rows)], folder=tmp_path, name="shop")
    return proposal, yaml.safe_load(proposal.recipe)


def labelled(count: int, labels: list[str]) -> list[dict[str, object]]:
    return [{"text": f"sentence number {at} of a review", "label": labels[at % len(labels)]} for at in range(count)]


def test_a_table_of_texts_and_labels_learns_the_label(tmp_path: Path) -> None:
    with (tmp_path / "mails.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "category"])
        writer.writerows((f"mail {at} about something", ("invoice", "complaint", "praise")[at % 3]) for at in range(60))
    start_from_data(tmp_path / "shop", [str(tmp_path / "mails.csv")])
    recipe = load_recipe(tmp_path / "shop").recipe
    (source,) = recipe.data.sources
    assert (source.map, source.instruction) == (
        {"question": "text", "answer": "category"},
        "Which of these fits: complaint, invoice, praise?",
    )
    assert "classification" in recipe.evaluate.metrics
    (first, *_) = (row for row in read(source, folder=tmp_path / "shop").rows if isinstance(row, Record))
    assert [message.content for message in first.messages] == [
        "Which of these fits: complaint, invoice, praise?\n\nmail 0 about something",
        "invoice",
    ]


def test_many_labels_are_not_listed_in_every_question(tmp_path: Path) -> None:
    _, recipe = proposed(tmp_path, labelled(130, [f"label {at}" for at in range(13)]))
    assert recipe["data"]["sources"][0]["instruction"] == "Which label fits?"  # type: ignore[index]


@pytest.mark.parametrize(
    ("rows", "kind", "metrics"),
    [
        ([{"question": f"what is {at}?", "answer": f"it is the number {at}"} for at in range(40)], "conversation", ["rouge", "bleu"]),
        ([{"question": f"is {at} even?", "answer": "yes" if at % 2 else "no"} for at in range(40)], "classification", None),
        ([{"question": f"is {at} even?", "answer": "yes"} for at in range(40)], "conversation", ["rouge", "bleu"]),
        ([{"text": f"a text about {at} and more"} for at in range(40)], "text", []),
        (labelled(40, ["good", "bad"]), "classification", None),
        (labelled(40, [f"label {at}" for at in range(20)]), "conversation", ["rouge", "bleu"]),  # two rows each are no classes
        ([{"question": f"q {at}", "answer": "a much longer answer than any label has" + " more" * (at % 2)} for at in range(40)],
         "conversation", ["rouge", "bleu"]),
    ],
)  # fmt: skip
def test_the_kind_of_task_is_told_from_the_answers(
    tmp_path: Path, rows: list[dict[str, object]], kind: str, metrics: list[str] | None
) -> None:
    proposal, recipe = proposed(tmp_path, rows)
    assert (proposal.kind, proposal.num_rows, proposal.num_bad) == (kind, 40, 0)
    assert recipe["evaluate"]["metrics"] == ["perplexity", *(["classification"] if metrics is None else metrics)]


def test_long_rows_are_not_refused_by_the_recipe_that_was_made_for_them(tmp_path: Path) -> None:
    long = "one word and another " * 600
    _, recipe = proposed(tmp_path, [{"text": f"{at} {long}"} for at in range(12)])
    assert (recipe["data"]["overlong"], recipe["train"]["max_length"]) == ("split", 1024)
    _, recipe = proposed(tmp_path, [{"question": f"{at} {long}", "answer": f"in short, {at}"} for at in range(12)])
    assert (recipe["data"]["overlong"], recipe["train"]["max_length"]) == ("left", 1024)
    _, recipe = proposed(tmp_path, [{"question": f"why {at}", "answer": f"because of {at}"} for at in range(12)])
    assert recipe["train"]["max_length"] == 128
    assert "overlong" not in recipe["data"]


def test_few_rows_are_read_often_and_many_seldom(tmp_path: Path) -> None:
    few = [{"question": f"why {at}", "answer": f"because of {at}"} for at in range(20)]
    assert proposed(tmp_path, few)[1]["train"]["epochs"] == 15
    assert proposed(tmp_path, few * 50)[1]["train"]["epochs"] == 6  # 6,500 / 1,000 = 6.5, to the even one
    long = [{"text": f"{at} " + "some words that are many " * 150} for at in range(4000)]
    epochs = proposed(tmp_path, long)[1]["train"]["epochs"]
    assert isinstance(epochs, float)
    assert 0.1 <= epochs < 2  # about 2.5 million tokens


def test_rows_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "why", "answer": "because"}\n' * 9 + "{broken\n")
    proposal = propose([str(tmp_path / "rows.jsonl")], folder=tmp_path, name="shop")
    assert (proposal.num_rows, proposal.num_bad) == (9, 1)
    assert f"1 cannot be read: tunesmith data validate {tmp_path / 'rows.jsonl'} tells why" in proposal.summary
    assert "1 more cannot be read" in proposal.recipe.splitlines()[0]


@pytest.mark.parametrize("place", ["shop", "far/away/shop", "."])
def test_a_path_is_written_as_the_recipe_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows_to(Path("rows.jsonl"), [{"question": f"why {at}", "answer": f"because of {at}"} for at in range(12)])
    start_from_data(Path(place), ["rows.jsonl"])
    (source,) = load_recipe(Path(place)).recipe.data.sources
    assert not Path(source.path).is_absolute()
    assert sum(isinstance(row, Record) for row in read(source, folder=Path(place)).rows) == 12


def test_a_path_from_home_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    rows_to(tmp_path / "rows.jsonl", [{"question": f"why {at}", "answer": f"because of {at}"} for at in range(12)])
    start_from_data(tmp_path / "shop", ["~/rows.jsonl"])
    assert load_recipe(tmp_path / "shop").recipe.data.sources[0].path == "~/rows.jsonl"


def test_a_whole_path_stays_whole(tmp_path: Path) -> None:
    path = rows_to(tmp_path / "rows.jsonl", [{"question": f"why {at}", "answer": f"because of {at}"} for at in range(12)])
    start_from_data(tmp_path / "shop", [path])
    assert load_recipe(tmp_path / "shop").recipe.data.sources[0].path == path


def test_nothing_is_written_where_nothing_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        start_from_data(tmp_path / "shop", [str(tmp_path / "none.csv")])
    with pytest.raises(DataError, match="known format"):
        start_from_data(tmp_path / "shop", [rows_to(tmp_path / "odd.jsonl", [{"a": 1, "b": 2}])])
    assert not (tmp_path / "shop").exists()
    good = rows_to(tmp_path / "rows.jsonl", [{"question": f"why {at}", "answer": f"because of {at}"} for at in range(12)])
    start_from_data(tmp_path / "shop", [good])
    before = (tmp_path / "shop" / "recipe.yaml").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        start_from_data(tmp_path / "shop", [good])
    assert (tmp_path / "shop" / "recipe.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["faq.csv", "rows.jsonl", "rows.jsonl.gz", "NOTES.MD"])
def test_data_in_a_recipe_s_place_is_told_how_to_get_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("question,answer\nwhy,because\n")
    with pytest.raises(UserError, match="data and no recipe") as refused:
        load_recipe(tmp_path / name)
    assert f"tunesmith init my-shop --data {tmp_path / name}" in str(refused.value)


def test_a_folder_of_data_is_told_how_to_get_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="init"):
        load_recipe(tmp_path)


def test_ratings_that_are_numbers_are_labels(tmp_path: Path) -> None:
    proposal, recipe = proposed(tmp_path, [{"review": f"review number {at}", "rating": at % 3 + 1} for at in range(40)])
    assert (proposal.kind, proposal.num_rows, proposal.num_bad) == ("classification", 40, 0)
    assert recipe["data"]["sources"][0]["instruction"] == "Which of these fits: 1, 2, 3?"  # type: ignore[index]

"""A file to judge on is read as the version's recipe reads its own rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.pipeline.evaluation_file import read_file
from tunesmith.records import Record

REVIEWS = [{"text": f"film number {i}", "label": ["neg", "pos"][i % 2]} for i in range(4)]
CHATS = [
    {"messages": [{"role": "user", "content": f"Run {i}!"}, {"role": "assistant", "content": f"Cours {i} !"}]} for i in range(4)
]


def recipe(*sources: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"sources": [{"map": {}, "roles": {}, "instruction": "", **source} for source in sources]}}


def questions(folder: Path, rows: list[dict[str, Any]], known: dict[str, Any] | None, *names: str) -> tuple[list[str], list[str]]:
    """First questions of what is read, and what was said of it."""
    file, told = folder / "test.jsonl", list[str]()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_file(file, names=names, recipe=known, warn=told.append)
    assert all(isinstance(row, Record) for row in read.rows)
    return [record.messages[0].content if record.messages else "" for record in read.records], told


def test_keys_and_instruction_come_from_the_recipe(tmp_path: Path) -> None:
    known = recipe({"map": {"question": "text", "answer": "label"}, "instruction": "Is this pos or neg?"})
    found, told = questions(tmp_path, REVIEWS, known)
    assert found == [f"Is this pos or neg?\n\nfilm number {i}" for i in range(4)]
    assert "question=text, answer=label" in told[0]
    assert "Is this pos or neg?" in told[1]


def test_keys_that_no_layout_knows_are_found_by_the_recipes_mapping(tmp_path: Path) -> None:
    rows = [{"frage": f"Wie viel {i}?", "antwort": str(i)} for i in range(3)]
    found, _ = questions(tmp_path, rows, recipe({"map": {"question": "frage", "answer": "antwort"}}))
    assert found == [f"Wie viel {i}?" for i in range(3)]


def test_an_instruction_stands_before_rows_of_chats_and_not_twice(tmp_path: Path) -> None:
    known = recipe({"instruction": "Translate into French:"})
    once, _ = questions(tmp_path, CHATS, known)
    assert once == [f"Translate into French:\n\nRun {i}!" for i in range(4)]
    asked = [
        {"messages": [{**row["messages"][0], "content": text}, row["messages"][1]]} for row, text in zip(CHATS, once, strict=True)
    ]
    again, told = questions(tmp_path, asked, known)
    assert again == once
    assert told == []
    read = read_file(tmp_path / "test.jsonl", names=(), recipe=known, warn=told.append)
    assert {record.instruction for record in read.records} == {"Translate into French:"}  # rows are compared without it


def test_names_given_go_before_the_recipes_and_keep_its_instruction(tmp_path: Path) -> None:
    known = recipe({"map": {"question": "q", "answer": "a"}, "instruction": "Which?"})
    found, _ = questions(tmp_path, REVIEWS, known, "prompt=text", "completion=label")
    assert found == [f"Which?\n\nfilm number {i}" for i in range(4)]


def test_a_file_without_the_recipes_keys_is_read_by_its_own(tmp_path: Path) -> None:
    found, told = questions(tmp_path, CHATS, recipe({"map": {"question": "q", "answer": "a"}}))
    assert found == [f"Run {i}!" for i in range(4)]
    assert told == []


@pytest.mark.parametrize("known", [None, recipe({}), recipe()])
def test_nothing_is_taken_from_a_recipe_that_says_nothing(tmp_path: Path, known: dict[str, Any] | None) -> None:
    assert questions(tmp_path, CHATS, known) == ([f"Run {i}!" for i in range(4)], [])


def test_unlike_instructions_are_told_and_none_is_taken(tmp_path: Path) -> None:
    known = recipe({"instruction": "Translate:"}, {"instruction": "Summarise:"})
    found, told = questions(tmp_path, CHATS, known)
    assert found == [f"Run {i}!" for i in range(4)]
    assert len(told) == 1
    assert "unlike instructions" in told[0]

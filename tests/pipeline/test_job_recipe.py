"""What a client asks for, as a recipe."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.chat import ChatFormat
from tunesmith.model.base import EMBEDDED, open_base
from tunesmith.pipeline.job_process import _without_paths
from tunesmith.pipeline.job_recipe import TRAINING, VALIDATION, write_recipe
from tunesmith.pipeline.recipe import Recipe, load_recipe
from tunesmith.records import Message, Role
from tunesmith.store import Store

TURNS = ("Do you open on Sundays?", "No, we open at nine on Mondays.")
ROW = {"messages": [{"role": role, "content": text} for role, text in zip(("user", "assistant"), TURNS, strict=True)]}


def recipe_of(folder: Path, *, validation: bool = False, **hyperparameters: Any) -> Recipe:
    for name in (TRAINING, *([VALIDATION] if validation else [])):
        (folder / name).write_text(json.dumps(ROW) + "\n")
    request = {"name": "prices", "base": "tunesmith/base", "seed": 7, "hyperparameters": hyperparameters}
    return load_recipe(write_recipe(folder, request, store=Store(folder / "work"))).recipe


def test_what_is_left_out_or_auto_is_the_recipes_own_default(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, n_epochs="auto", batch_size="auto", learning_rate_multiplier="auto")
    default = Recipe.model_validate({"name": "x", "base": "tunesmith/base", "data": {"sources": [{"path": "a"}]}})
    assert recipe.train == default.train.model_copy(update={"seed": 7})
    assert (recipe.name, recipe.base, recipe.promote) == ("prices", "tunesmith/base", "never")
    assert (recipe.data.split.validation, recipe.data.split.test) == (0.1, 0)


def test_a_batch_holds_so_many_rows_and_the_rate_is_a_multiple_of_the_usual_one(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, n_epochs=2, batch_size=4, learning_rate_multiplier=0.5)
    base = open_base(EMBEDDED, folder=Path("/"), cache=Path("/")).path
    chat = ChatFormat.load(base)
    whole = chat.encode_prompt([Message(role=Role.USER, content=TURNS[0])])
    answer = chat.encode_text(TURNS[1], begun=False)
    assert 4 * len(whole) < recipe.train.batch_tokens - 4 * len(answer) <= 4 * (len(whole) + 3)  # the end of the turn
    width = json.loads((base / "config.json").read_text())["hidden_size"]
    # Schulman et al. 2025: 5e-5 x (2000 / width)^0.78 for full training, ten times that for LoRA.
    assert recipe.train.learning_rate == pytest.approx(0.5 * 10 * 5e-5 * (2000 / width) ** 0.78)
    assert recipe.train.epochs == 2


def test_a_validation_file_is_the_validation_split(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, validation=True)
    assert [(source.path, source.split) for source in recipe.data.sources] == [
        ("training.jsonl", "train"),
        ("validation.jsonl", "validation"),
    ]
    assert recipe.data.split.validation == 0


def test_a_recipe_that_was_written_is_not_written_again(tmp_path: Path) -> None:
    first = recipe_of(tmp_path, n_epochs=2)
    assert recipe_of(tmp_path, n_epochs=3) == first


def test_what_a_client_is_told_holds_no_path() -> None:
    told = _without_paths("2 of 3 rows quarantined: /data/shop/quarantine/training.jsonl. Mend the rows")
    assert told == "2 of 3 rows quarantined: … Mend the rows"

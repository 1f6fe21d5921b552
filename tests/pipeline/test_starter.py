"""What `init` puts into a folder: a recipe whose model is called like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.errors import UserError
from tunesmith.pipeline import load_recipe
from tunesmith.pipeline.recipe import LONGEST_NAME
from tunesmith.pipeline.starter import model_name, start_project
from tunesmith.store.rows import check_name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("my-shop", "my-shop"),
        ("My Shop", "My-Shop"),
        ("Café Größe", "Cafe-Gro-e"),
        (".hidden.", "hidden"),
        ("店", "boutique"),
        ("2024-11-30", "2024-11-30"),
        ("007", "007"),
        ("1.50", "1.50"),
        ("yes", "yes"),
        ("null", "null"),
        ("x" * 100, "x" * LONGEST_NAME),
    ],
)
def test_the_model_of_a_new_project_is_called_like_its_folder(tmp_path: Path, folder: str, name: str) -> None:
    start_project(tmp_path / folder)
    assert load_recipe(tmp_path / folder).recipe.name == name
    check_name(name, what="a model name")


def test_nothing_else_in_the_recipe_is_changed(tmp_path: Path) -> None:
    start_project(tmp_path / "my-shop")
    example = Path(__file__).parents[2] / "examples" / "boutique"
    made = (tmp_path / "my-shop" / "recipe.yaml").read_bytes()
    assert made == (example / "recipe.yaml").read_bytes().replace(b"name: boutique\n", b"name: my-shop\n")
    assert b"name: my-shop\n" in made
    assert (tmp_path / "my-shop" / "facts.md").read_bytes() == (example / "facts.md").read_bytes()


def test_the_folder_one_is_in_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    assert model_name(Path()) == "shop"


def test_a_name_as_long_as_a_recipe_allows_is_not_refused_after_training() -> None:
    check_name("x" * LONGEST_NAME, what="a model name")
    with pytest.raises(UserError, match="63"):
        check_name("x" * (LONGEST_NAME + 1), what="a model name")

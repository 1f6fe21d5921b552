"""A first project for somebody who has none: a recipe, data and a fact sheet to change into their own."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import yaml

from tunesmith.errors import NotFound, UserError
from tunesmith.pipeline.proposing import Proposal, propose
from tunesmith.pipeline.recipe import LONGEST_NAME

__all__ = ["model_name", "start_from_data", "start_project"]

_EXAMPLE = "boutique"


def start_project(folder: Path) -> list[Path]:
    """Copy the boutique example into a folder, its model called like the folder; what is there is never overwritten.

    Returns:
        The files written.

    Raises:
        UserError: one of the files exists already.
    """
    example = _example_folder()
    names = sorted(file.name for file in example.iterdir() if file.is_file())
    if taken := [name for name in names if (folder / name).exists()]:
        raise UserError(f"{folder / taken[0]} exists already; nothing was written. Choose another folder: tunesmith init my-shop")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(example / name, folder / name)
    recipe = folder / "recipe.yaml"
    recipe.write_text(_named(recipe.read_text("utf-8"), name=model_name(folder)), "utf-8", newline="\n")
    return [folder / name for name in names]


def start_from_data(folder: Path, data: Sequence[str]) -> Proposal:
    """Write a recipe for somebody's own data into a folder; the data stay where they are.

    Raises:
        UserError: the folder has a recipe already, or the data cannot be learned from.
    """
    recipe = folder / "recipe.yaml"
    if recipe.exists():
        raise UserError(f"{recipe} exists already; nothing was written. Choose another folder: tunesmith init my-shop --data …")
    proposal = propose(data, folder=folder, name=model_name(folder))
    folder.mkdir(parents=True, exist_ok=True)
    recipe.write_text(proposal.recipe, "utf-8", newline="\n")
    return proposal


def model_name(folder: Path) -> str:
    """What a model made in this folder is called: the folder's name, as far as a model can be called so."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name)
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", letters).strip("-._")[:LONGEST_NAME] or _EXAMPLE


def _named(recipe: str, *, name: str) -> str:
    """The recipe with another name, in quotes where YAML would read a number, a date or a truth value."""
    is_text = yaml.safe_load(name) == name
    return re.sub(r"^name: .*$", f"name: {name}" if is_text else f'name: "{name}"', recipe, count=1, flags=re.MULTILINE)


def _example_folder() -> Path:
    """Inside an installed package, or in the repository of an editable one."""
    package = Path(__file__).parents[1]
    for candidate in (package / "examples" / _EXAMPLE, package.parents[1] / "examples" / _EXAMPLE):
        if candidate.is_dir():
            return candidate
    raise NotFound(f"the example {_EXAMPLE} is not in this installation; reinstall tunesmith")

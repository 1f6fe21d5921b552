"""A first project for somebody who has none: a recipe, data and a fact sheet to change into their own."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunesmith.errors import NotFound, UserError

__all__ = ["start_project"]

_EXAMPLE = "boutique"


def start_project(folder: Path) -> list[Path]:
    """Copy the boutique example into a folder; what is there is never overwritten.

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
    return [folder / name for name in names]


def _example_folder() -> Path:
    """Inside an installed package, or in the repository of an editable one."""
    package = Path(__file__).parents[1]
    for candidate in (package / "examples" / _EXAMPLE, package.parents[1] / "examples" / _EXAMPLE):
        if candidate.is_dir():
            return candidate
    raise NotFound(f"the example {_EXAMPLE} is not in this installation; reinstall tunesmith")

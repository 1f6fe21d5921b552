"""A recipe: the whole job in one YAML file.

Composed of each room's own configuration, which lives in its room; this module only puts them side by side and checks what
concerns two of them. Reading it loads neither torch nor a database.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from tunesmith.data.config import DataConfig
from tunesmith.errors import NotFound, Problem, RecipeError, UserError
from tunesmith.evaluate.config import EvaluateConfig
from tunesmith.model.config import ScratchConfig
from tunesmith.pipeline.configuration import read_config
from tunesmith.pipeline.policy import SCHEMA, checked
from tunesmith.pipeline.relevance import resolved
from tunesmith.store.digest import digest_of
from tunesmith.train.config import TrainConfig

__all__ = ["LONGEST_NAME", "LoadedRecipe", "Recipe", "json_schema", "load_recipe"]

MAX_BYTES = 1 << 18
"""A larger file is no recipe, but perhaps a data file given by mistake; 256 KiB of YAML take PyYAML some seconds."""


_OF_DATA = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".txt", ".md", ".html", ".pdf", ".docx"})
"""How the names of data files end that somebody gives in a recipe's place."""

LONGEST_NAME = 63
"""Letters of a model's name, in a recipe and in the ledger."""


class Recipe(BaseModel):
    """Everything that decides what a run does."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, title="tunesmith recipe")

    name: str = Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}$")
    """A name is 1 to 63 letters, digits, `-`, `_` or `.`, and begins with a letter or digit.

    Versions are called after it: `boutique@1`.
    """
    base: Annotated[str, Field(min_length=1)] | ScratchConfig
    """What to start from: `tunesmith/base` (the embedded one), a version trained in full (`boutique@2`), a folder, a hub id, or a mapping
    that describes a new model."""
    data: DataConfig
    """What it learns from."""
    train: TrainConfig = TrainConfig()
    """How it learns."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How it is judged."""
    promote: Annotated[str, AfterValidator(checked), WithJsonSchema(SCHEMA)] = "if_better"
    """When the new version becomes champion: `if_better` (the report's verdict says so), `if_not_worse(1.0)` (no leading metric can be
    worse by more than that many points, or percent of a perplexity), `always`, or not by itself (`manual`, `never`)."""

    @model_validator(mode="after")
    def _random_weights_train_in_full(self) -> Recipe:
        if isinstance(self.base, ScratchConfig) and self.train.method != "full":
            raise ValueError(
                f"train.method is `{self.train.method}`, but `base` describes a model from scratch: "
                "an adapter needs weights that have learned something. Write train.method: full"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRecipe:
    """A recipe as it was read from a file."""

    recipe: Recipe
    path: Path
    folder: Path
    """Relative paths in the recipe count from here."""
    digest: str
    """Sha256 of the resolved configuration: the same whatever the order of keys, comments, or defaults written out."""

    def resolved(self) -> dict[str, Any]:
        """Plain JSON values, every default filled in; what is stored with a run."""
        return resolved(self.recipe)


def load_recipe(path: Path, *, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe, or the `recipe.yaml` of a folder.

    Args:
        path: a YAML file or a folder.
        overrides: `key=value` options such as `train.learning_rate=1e-4`, laid over the file.

    Raises:
        NotFound: no such file; near names are listed.
        RecipeError: everything that is wrong with it, at once.
    """
    file = _find(path)
    recipe = read_config(_read(file), model=Recipe, source=str(file), overrides=overrides)
    return LoadedRecipe(recipe=recipe, path=file, folder=file.parent, digest=digest_of(resolved(recipe)))


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, with a description of every key, for editors to complete and check."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _find(path: Path) -> Path:
    if path.is_file():
        if _OF_DATA & {suffix.lower() for suffix in path.suffixes}:
            raise UserError(
                f"{path} is data and no recipe. Make a recipe for it: tunesmith init my-shop --data {quote(str(path))}"
            )
        return path
    if path.is_dir():
        inside = [file for file in (path / "recipe.yaml", path / "recipe.yml") if file.is_file()]
        if inside:
            return inside[0]
        raise NotFound(f"{path} has no recipe.yaml.{_there_are(path, 'recipe.yaml')}")
    raise NotFound(f"{path} does not exist.{_there_are(path.parent, path.name)}")


def _there_are(folder: Path, name: str) -> str:
    """A sentence with the recipe nearest to a name, or with all that a folder has."""
    there = sorted(file.name for suffix in ("*.yaml", "*.yml") for file in folder.glob(suffix)) if folder.is_dir() else []
    near = difflib.get_close_matches(name, there, n=1)
    if near:
        return f" Did you mean {folder / near[0]}?"
    return (
        f" There are: {', '.join(there[:10])}."
        if there
        else " Make one with `tunesmith init`, for data of your own with --data PATH."
    )


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except PermissionError:
        raise RecipeError(str(file), [Problem(None, "file", "permission to read it is denied")]) from None
    if len(data) > MAX_BYTES:
        message = "more than 256 KiB, too large for a recipe. Is it a data file? Name it under data.sources"
        raise RecipeError(str(file), [Problem(None, "file", message)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; the file seems to be in {guess}. Save it as UTF-8"
        raise RecipeError(str(file), [Problem(line, "encoding", message)]) from None

"""What a version was made of, written down when it is registered: snapshot, recipe, base, code, libraries, machine, seed and parent."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from tunesmith import __version__
from tunesmith.errors import UserError
from tunesmith.pipeline.recipe import Recipe
from tunesmith.pipeline.reproducing import library_versions
from tunesmith.pipeline.stages import code_digest
from tunesmith.records import ModelVersion
from tunesmith.store import Store

if TYPE_CHECKING:
    from tunesmith.pipeline.preparation import Prepared

__all__ = ["LIBRARIES", "RECIPE", "ROOMS", "keep_recipe", "lineage_of", "recipe_of", "stored_recipe"]

ROOMS = ("data", "evaluate", "model", "pipeline", "train")
"""Packages whose code decides what a run gives."""
LIBRARIES = ("numpy", "tokenizers", "torch", "transformers")
"""Whose arithmetic and tokens decide what a training gives."""
RECIPE = "recipe.json"
"""In the artefact of a recipe: every key with its value, defaults filled in."""


def keep_recipe(resolved: dict[str, Any], *, store: Store) -> str:
    """Store a resolved recipe; returns the digest of its artefact, which is the same for equal recipes."""
    with store.artefacts.publish("recipe") as staging:
        (staging.path / RECIPE).write_bytes(orjson.dumps(resolved, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    return staging.artefact.digest


def stored_recipe(version: ModelVersion, *, store: Store) -> dict[str, Any] | None:
    """The recipe that made a version; None for one that was made before recipes were kept.

    Raises:
        NotFound: its artefact is gone.
        BrokenArtefact: its artefact was altered.
    """
    digest = version.lineage.get("recipe")
    if digest is None:
        return None
    content: dict[str, Any] = orjson.loads((store.artefacts.get(digest).path / RECIPE).read_bytes())
    return content


def recipe_of(version: ModelVersion, *, store: Store) -> Recipe:
    """The same as a recipe, to run it again.

    Raises:
        UserError: none was kept, or this release does not understand it.
    """
    content = stored_recipe(version, store=store)
    if content is None:
        raise UserError(
            f"{version.ref} was registered by a release that kept no recipe, so there is nothing to run again. Run its recipe file: "
            "the new version keeps it"
        )
    data = content["data"]
    if data["mix"]["by"] == "temperature":  # which reads no weights, and refuses those that are written out
        data = data | {"sources": [{k: v for k, v in source.items() if k != "weight"} for source in data["sources"]]}
    try:
        return Recipe.model_validate(content | {"data": data})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the recipe kept with {version.ref} (tunesmith {version.lineage.get('tunesmith', '?')}) cannot be read by tunesmith "
            f"{__version__}: {where}: {first['msg']}. Install that release to run it again"
        ) from error


def lineage_of(prepared: Prepared, *, store: Store) -> dict[str, str]:
    """Where a version comes from, by kind; the recipe is stored with it."""
    found = {
        "base": prepared.base_name,
        "code": code_digest(ROOMS),
        "machine": prepared.machine_kind,
        "processor": prepared.processor,
        "python": platform.python_version(),
        "recipe": keep_recipe(prepared.loaded.resolved(), store=store),
        "seed": str(prepared.job.config.seed),
        "snapshot": prepared.snapshot.id,
        "threads": str(prepared.num_threads),
        "tunesmith": __version__,
        **{name: release for name, release in library_versions().items() if name in LIBRARIES},
    }
    return found | ({"parent": prepared.base_name} if _is_version(prepared.base_name, store=store) else {})


def _is_version(name: str, *, store: Store) -> bool:
    return "@" in name and any(version.ref == name for version in store.ledger.versions(name.partition("@")[0]))

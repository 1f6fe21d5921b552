"""What a version was made of, written down when it is registered: snapshot, recipe, base, code, machine, seed and parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from tunesmith import __version__
from tunesmith.pipeline.stages import code_digest
from tunesmith.records import ModelVersion
from tunesmith.store import Store

if TYPE_CHECKING:
    from tunesmith.pipeline.preparation import Prepared

__all__ = ["RECIPE", "ROOMS", "keep_recipe", "lineage_of", "stored_recipe"]

ROOMS = ("data", "evaluate", "model", "pipeline", "train")
"""Packages whose code decides what a run gives."""
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


def lineage_of(prepared: Prepared, *, store: Store) -> dict[str, str]:
    """Where a version comes from, by kind; the recipe is stored with it."""
    found = {
        "base": prepared.base_name,
        "code": code_digest(ROOMS),
        "machine": prepared.machine_kind,
        "recipe": keep_recipe(prepared.loaded.resolved(), store=store),
        "seed": str(prepared.job.config.seed),
        "snapshot": prepared.snapshot.id,
        "tunesmith": __version__,
    }
    return found | ({"parent": prepared.base_name} if _is_version(prepared.base_name, store=store) else {})


def _is_version(name: str, *, store: Store) -> bool:
    return "@" in name and any(version.ref == name for version in store.ledger.versions(name.partition("@")[0]))

"""What a bridge tells others of a version; the same for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.pipeline.lineage import stored_recipe
from tunesmith.pipeline.proving import stored_sheet
from tunesmith.pipeline.trackers import flat
from tunesmith.records import ModelVersion
from tunesmith.store import Store, sound_files_of

__all__ = ["documents_of", "identity_of", "params_of", "sound_version"]


def sound_version(ref: str, *, store: Store) -> ModelVersion:
    """The version, with its files hashed again.

    Raises:
        NotFound: no such version.
        BrokenArtefact: its files are not what was stored.
    """
    version = store.ledger.version(ref)
    sound_files_of(version, store=store)
    return version


def identity_of(version: ModelVersion) -> str:
    """What a version is found again by, for two workspaces may each have a boutique@1."""
    return f"{version.run}:{version.artefact}"


def params_of(version: ModelVersion, *, store: Store) -> dict[str, object]:
    """The recipe as `train.epochs`, and the lineage as `lineage.snapshot`; what is empty is left out."""
    recipe = flat(stored_recipe(version, store=store) or {})
    lineage = {f"lineage.{kind}": value for kind, value in version.lineage.items()}
    return {key: value for key, value in (recipe | lineage).items() if value not in (None, "", [], {})}


def documents_of(version: ModelVersion, *, store: Store) -> Mapping[str, Any]:
    """The recipe and the sheet of proofs, as far as there are any, by the names of their files."""
    sheet = stored_sheet(version, store=store)
    documents = {"recipe.json": stored_recipe(version, store=store), "proofs.json": sheet.as_json() if sheet else None}
    return {name: content for name, content in documents.items() if content is not None}

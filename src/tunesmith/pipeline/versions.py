"""Open what a run has left: a registered version, ready to answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from tunesmith.errors import ModelError, NotFound
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.store import Artefact, Store, files_of, sound_files_of

if TYPE_CHECKING:
    from tunesmith.model import BaseFolder, SharedBases
    from tunesmith.model.machine import Precision

__all__ = ["MODEL_FACTS", "base_of", "find_base", "moves", "open_artefact", "open_version", "snapshot_of"]

MODEL_FACTS = "tunesmith.json"
"""Stored beside the weights: what they were made of."""
ADAPTER_CONFIG = "adapter_config.json"


def open_version(
    ref: str, *, store: Store, max_new_tokens: int = 128, precision: Precision = "fp32", bases: SharedBases | None = None
) -> ChatModel:
    """Load a version: `boutique` (its champion, else the newest), `boutique@3`, `boutique@champion`.

    Adapters that are opened with the same `bases` have their base in memory once; its weights must not change any more.

    Raises:
        NotFound: no such version.
        BrokenArtefact: its files are not what was stored.
        ModelError: it is an adapter, and its base is gone or has changed.
    """
    version = store.ledger.version(ref)
    artefact = sound_files_of(version, store=store)
    return open_artefact(artefact, ref=version.ref, max_new_tokens=max_new_tokens, precision=precision, bases=bases)


def open_artefact(
    artefact: Artefact,
    *,
    ref: str,
    max_new_tokens: int = 128,
    precision: Precision = "fp32",
    bases: SharedBases | None = None,
) -> ChatModel:
    """Load a model artefact with its own tokenizer and template, on its own base."""
    from tunesmith.data.chat import ChatFormat
    from tunesmith.model import load_model, load_version, this_machine

    facts = orjson.loads((artefact.path / MODEL_FACTS).read_bytes())
    machine = this_machine(precision=precision)
    base, why_no_base = None, ""
    try:
        base = base_of(facts)
    except (NotFound, ModelError) as error:
        if (artefact.path / ADAPTER_CONFIG).is_file():
            raise
        why_no_base = str(error)  # a whole model answers without it
    return ChatModel(
        ref=ref,
        model=load_version(artefact.path, base=base, machine=machine, load_base=load_model if bases is None else bases.load),
        chat=ChatFormat.load(artefact.path),
        machine=machine,
        max_length=facts["max_length"],
        max_new_tokens=max_new_tokens,
        base_folder=base,
        why_no_base=why_no_base,
    )


def snapshot_of(ref: str, *, store: Store) -> str:
    """The snapshot that a version has learned from.

    Raises:
        NotFound: no such version.
    """
    artefact = files_of(store.ledger.version(ref), store=store)
    return str(orjson.loads((artefact.path / MODEL_FACTS).read_bytes())["snapshot"])


def find_base(name: str, *, folder: Path, store: Store) -> BaseFolder:
    """Find what a recipe's `base` names: a version of this workspace (`boutique@2`), or whatever `open_base` knows.

    Raises:
        NotFound: there is no such version, folder or hub model.
        BrokenArtefact: the version's files are not what was stored.
        ModelError: it is unsafe, holds no model, or is an adapter and no whole model.
    """
    from tunesmith.model import open_base

    if "@" not in name or "/" in name or (folder / name).is_dir():
        return open_base(name, folder=folder, cache=store.cache)
    version = store.ledger.version(name)
    path = sound_files_of(version, store=store).path
    if (path / ADAPTER_CONFIG).exists():
        raise ModelError(
            f"base: {version.ref} is an adapter; a base is a whole model, such as a version trained with method `full`"
        )
    return replace(open_base(str(path), folder=folder, cache=store.cache), name=version.ref)


def moves(base: BaseFolder) -> str | None:
    """What to say of a base from the hub whose revision is not fixed: another workspace may get other weights by the same recipe."""
    from tunesmith.model.base import EMBEDDED
    from tunesmith.model.hub import hub_name

    if base.name == EMBEDDED or base.path.parent.name != "hub":  # a folder of the cache
        return None
    hub = hub_name(base.name)
    if hub is None or hub.is_pinned:
        return None
    _, _, revision = base.path.name.partition("@")
    mend = (
        f"base: {base.name}@{revision}"
        if revision
        else f"base: {base.name}@<commit>, which `tunesmith hub pull {base.name}` finds"
    )
    return f"base: {base.name} names no revision, and what the hub gives for it can change. Fix it: {mend}"


def base_of(facts: dict[str, str | None]) -> Path | None:
    """The base a version was trained on, if it started from one; it must still hold the same bytes."""
    from tunesmith.model import open_base
    from tunesmith.model.base import EMBEDDED

    if facts["base_files"] is None:
        return None
    name = EMBEDDED if facts["base"] == EMBEDDED else str(facts["base_files"])
    base = open_base(name, folder=Path("/"), cache=Path("/"))
    if not base.is_the_one(str(facts["base_digest"])):
        raise ModelError(
            f"the base {facts['base']} ({base.path}) is not the one this version was trained on: its files have changed. "
            "Put the old files back, or run the recipe again"
        )
    return base.path

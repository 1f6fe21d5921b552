"""The files of a registered version: where they lie, and whether they are what was stored."""

from __future__ import annotations

from tunesmith.errors import BrokenArtefact, NotFound
from tunesmith.records import ModelVersion
from tunesmith.store.artefacts import Artefact
from tunesmith.store.workspace import Store

__all__ = ["files_of", "sound_files_of"]


def files_of(version: ModelVersion, *, store: Store) -> Artefact:
    """Where a version's files lie. They are not hashed.

    Raises:
        NotFound: they are gone, or were broken and set aside.
    """
    try:
        return store.artefacts.get(version.artefact)
    except NotFound as error:
        aside = store.quarantine / version.artefact
        why = f"were broken and lie in {aside} now" if aside.is_dir() else f"are not in {store.artefacts.root}"
        raise NotFound(f"{version.ref} cannot be used: its files {why}. Its recipe makes them again") from error


def sound_files_of(version: ModelVersion, *, store: Store) -> Artefact:
    """The same, hashed again.

    Raises:
        NotFound: they are gone, or were broken and set aside.
        BrokenArtefact: they are not what was stored.
    """
    artefact = files_of(version, store=store)
    if problems := store.artefacts.verify(version.artefact):
        raise BrokenArtefact(f"{version.ref} cannot be trusted: {problems[0]}. `tunesmith doctor` says more")
    return artefact

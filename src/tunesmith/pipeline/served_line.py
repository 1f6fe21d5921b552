"""What the registry says of a model, as what is served: its aliases with their traffic, and versions to load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tunesmith.errors import NotFound
from tunesmith.pipeline.versions import open_version
from tunesmith.records import Deployment
from tunesmith.serve import Engine, Route
from tunesmith.store import Store, current

if TYPE_CHECKING:
    from tunesmith.model.decode_speed import Decoding

__all__ = ["ServedLine"]

_CHAMPION, _PREVIOUS = "champion", "previous"


class ServedLine:
    """A model's aliases and versions, as a `serve.Registry`.

    `boutique` serves every alias of the model, and the name alone stands for its champion; `boutique@staging` serves that alias, and
    `boutique@3` that version. Without a champion the version is served that was the newest when this was made, until there is one.
    """

    def __init__(
        self, ref: str, *, store: Store, settled: Decoding | None = None, also: Callable[[], Sequence[str]] = tuple
    ) -> None:
        """Look which version is meant.

        Args:
            ref: `boutique`, `boutique@staging` or `boutique@3`.
            store: the workspace.
            settled: in which numbers versions are loaded; None: as they are.
            also: refs of versions to serve besides, the most wanted first.

        Raises:
            NotFound: none is.
        """
        from tunesmith.model import SharedBases

        self.first = store.ledger.version(ref).ref
        self._ref = ref
        self._name, _, self._choice = ref.partition("@")
        self._store = store
        self._settled = settled
        self._also = also
        self._bases = SharedBases()

    def routes(self) -> dict[str, Route]:
        """What every alias stands for.

        Raises:
            NotFound: the one alias that is served is gone.
        """
        others = {ref: _alone(ref) for ref in self._also() if self._is_there(ref)}
        return self._own_routes() | others

    def version_of(self, name: str) -> str | None:
        """The version that a served name points to; None for other names."""
        route = self.routes().get(name)
        return route.version if route else None

    def _is_there(self, ref: str) -> bool:
        try:
            return self._store.ledger.version(ref).ref == ref
        except NotFound:
            return False

    def _own_routes(self) -> dict[str, Route]:
        if self._choice.isdecimal():
            return {self._ref: _alone(self._ref)}
        found = {held.alias: _route(held) for held in current(self._store.ledger, self._name)}
        if self._choice:
            if self._choice not in found:
                raise NotFound(f"there is no {self._ref} any more")
            return {self._ref: found[self._choice]}
        first = found.get(_CHAMPION, _alone(self.first))
        others = sorted(found, key=lambda alias: (alias != _CHAMPION, alias != _PREVIOUS, alias))
        return {self._name: first, **{f"{self._name}@{alias}": found[alias] for alias in others}}

    def load(self, ref: str, /) -> Engine:
        """Load a version.

        Raises:
            NotFound: no such version.
            BrokenArtefact: its files are not what was stored.
            ModelError: it is an adapter, and its base is gone or has changed.
        """
        if self._settled is None:
            return open_version(ref, store=self._store, bases=self._bases).served()
        opened = open_version(ref, store=self._store, precision=self._settled.weights, bases=self._bases)
        return opened.served(packing=self._settled.packing)

    def unload(self, ref: str, /) -> None:  # noqa: ARG002 - nothing is kept by name
        """Free memory that is used no more."""
        from tunesmith.model.machine import release_memory

        release_memory()


def _alone(ref: str) -> Route:
    return Route(ref, ref, {ref: 1.0})


def _route(held: Deployment) -> Route:
    return Route(f"{held.name}@{held.alias}", f"{held.name}@{held.version}", held.arms)

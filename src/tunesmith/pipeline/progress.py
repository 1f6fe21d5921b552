"""How a run tells what it is doing, without knowing who watches: a terminal, a log, the studio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tunesmith.train import Step

__all__ = ["Silent", "Watcher"]


class Watcher(Protocol):
    """Whoever watches a run."""

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:
        """A stage is done; `lines` say what came of it."""
        ...

    def step(self, step: Step) -> None:
        """One optimiser step is done."""
        ...

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        """Part of a long piece of work is done; `total` is None while it is unknown."""
        ...

    def warn(self, text: str) -> None:
        """Something the user should know."""
        ...


class Silent:
    """Nobody watches."""

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:
        """Say nothing."""

    def step(self, step: Step) -> None:
        """Say nothing."""

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

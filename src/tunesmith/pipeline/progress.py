"""How a run tells what it is doing, without knowing who watches: a terminal, a log, the studio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tunesmith.train import Step

__all__ = ["Remembering", "Silent", "Watcher"]


class Watcher(Protocol):
    """Whoever watches a run."""

    def begin(self, name: str, what: str) -> None:
        """Part of a stage begins that may take a while before it can tell how far it is."""
        ...

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

    def stopping(self) -> None:
        """The user has asked to stop, and the step at work is finished first. Called in a signal handler: do next to nothing."""
        ...


class Silent:
    """Nobody watches."""

    def begin(self, name: str, what: str) -> None:
        """Say nothing."""

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:
        """Say nothing."""

    def step(self, step: Step) -> None:
        """Say nothing."""

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def stopping(self) -> None:
        """Say nothing."""


class Remembering:
    """Passes everything on, and remembers the warnings for those who read the result alone."""

    def __init__(self, watcher: Watcher) -> None:
        self.begin, self.stage, self.step = watcher.begin, watcher.stage, watcher.step
        self.progress, self.stopping = watcher.progress, watcher.stopping
        self._warn = watcher.warn
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Pass it on, and remember it."""
        self.warnings.append(text)
        self._warn(text)

"""A run's progress on stderr: a bar that moves in a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from tunesmith.pipeline import Silent, Watcher
from tunesmith.terminal.layout import LABEL, duration

if TYPE_CHECKING:
    from tunesmith.train import Step

__all__ = ["watching"]

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def watching(*, is_quiet: bool) -> Iterator[Watcher]:
    """Show what a run is doing, or nothing when quiet."""
    console = Console(stderr=True, highlight=False)
    if is_quiet:
        yield Silent()
    elif console.is_terminal:
        head = TextColumn(f"● {{task.fields[label]:<{LABEL - 1}}}")
        with Progress(
            head, BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"), console=console, transient=True
        ) as bars:
            yield _Bars(console, bars)
    else:
        yield _Lines(console)


class _Lines:
    """Progress as plain lines, one now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = time.monotonic()

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:
        tail = "  (as before)" if is_cached else f"  ({duration(seconds)})"
        for i, line in enumerate(lines):
            head = f"● {name}" if i == 0 else ""
            self._print(f"{head:<{LABEL + 2}}{line}{tail if i == len(lines) - 1 else ''}")

    def step(self, step: Step) -> None:
        line = f"  {'train':<{LABEL}}{step.step}/{step.total_steps} · {_step_text(step)}"
        self._now_and_then(line, is_last=step.step == step.total_steps)

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        of = f" of {total:,}" if total is not None else ""
        self._now_and_then(f"  {'':<{LABEL}}{what} {done:,}{of}", is_last=False)

    def warn(self, text: str) -> None:
        self._print(f"  {'warning':<{LABEL}}{text}", style="yellow")

    def _now_and_then(self, line: str, *, is_last: bool) -> None:
        now = time.monotonic()
        if is_last or now - self._told > _SECONDS_BETWEEN_LINES:
            self._told = now
            self._print(line)

    def _print(self, line: str, *, style: str | None = None) -> None:
        self._console.print(line, soft_wrap=True, markup=False, style=style)


class _Bars(_Lines):
    """Progress as one bar that moves; each finished stage is left standing as lines."""

    def __init__(self, console: Console, bars: Progress) -> None:
        super().__init__(console)
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:
        self._clear()
        super().stage(name, lines, seconds=seconds, is_cached=is_cached)

    def step(self, step: Step) -> None:
        self._show("train", done=step.step, total=step.total_steps, text=_step_text(step))

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        self._show("", done=done, total=total, text=f"{what} {done:,}")

    def _show(self, label: str, *, done: int, total: int | None, text: str) -> None:
        if self._task is None:
            self._task = self._bars.add_task("", label=label)
        self._bars.update(self._task, completed=done, total=total, description=text, label=label)
        if done == total:
            self._clear()

    def _clear(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


def _step_text(step: Step) -> str:
    measured = f" · validation {step.validation_loss:.2f}" if step.validation_loss is not None else ""
    return f"loss {step.loss:.2f}{measured} · {step.tokens_per_s:,.0f} tok/s · {duration(step.eta_s)} left"

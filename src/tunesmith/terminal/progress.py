"""A run's progress on stderr: one line that moves in a terminal, plain lines in a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from tunesmith.pipeline import Silent, Watcher
from tunesmith.terminal.layout import LABEL, duration, size

if TYPE_CHECKING:
    from tunesmith.train import Step

__all__ = ["watching"]

_SECONDS_BETWEEN_LINES = 10.0
_BAR = range(7, 25)
"""The bar takes what the figures leave, within these widths; where there is less, figures make room, the last first."""
_STOPPING = "finishing this step, then saving · Ctrl-C again: at once"


@contextmanager
def watching(*, is_quiet: bool) -> Iterator[Watcher]:
    """Show what a run is doing, or nothing when quiet."""
    console = Console(stderr=True, highlight=False)
    if is_quiet:
        yield Silent()
    elif console.is_terminal and not console.is_dumb_terminal:
        line = _MovingLine()
        with Live(line, console=console, transient=True, refresh_per_second=8) as live:
            yield _Bar(live, line)
    else:
        yield _Lines(console)


class _Lines:
    """Progress as plain lines, one now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = time.monotonic()
        self._steps_seen = 0
        self._validation_loss: float | None = None

    def begin(self, name: str, what: str) -> None:
        self._print(f"  {name:<{LABEL}}{what} …")

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:
        tail = "  (as before)" if is_cached else f"  ({duration(seconds)})"
        for i, line in enumerate(lines):
            head = f"● {name}" if i == 0 else ""
            self._print(f"{head:<{LABEL + 2}}{line}{tail if i == len(lines) - 1 else ''}")

    def step(self, step: Step) -> None:
        self._steps_seen += 1
        is_news = self._steps_seen == 1 or step.validation_loss is not None or step.step == step.total_steps
        if step.validation_loss is not None:
            self._validation_loss = step.validation_loss
        self._show_step(step, is_news=is_news)

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        of = f" of {total:,}" if total is not None else ""
        self._now_and_then(f"  {'':<{LABEL}}{what} {done:,}{of}", is_news=False)

    def warn(self, text: str) -> None:
        self._print(f"  {'warning':<{LABEL}}{text}", style="yellow")

    def stopping(self) -> None:
        # The main thread may be inside a write just now, and a signal handler must not write into that: another thread waits.
        threading.Thread(target=self._print, args=(f"  {'':<{LABEL}}{_STOPPING}",)).start()

    def _show_step(self, step: Step, *, is_news: bool) -> None:
        figures = " · ".join(_figures(step, validation_loss=self._validation_loss))
        self._now_and_then(f"  {'train':<{LABEL}}{step.step}/{step.total_steps} · {figures}", is_news=is_news)

    def _now_and_then(self, line: str, *, is_news: bool) -> None:
        now = time.monotonic()
        if is_news or now - self._told > _SECONDS_BETWEEN_LINES:
            self._told = now
            self._print(line)

    def _print(self, line: str, *, style: str | None = None) -> None:
        self._console.print(line, soft_wrap=True, markup=False, style=style)


class _Bar(_Lines):
    """Progress as one line that moves; each finished stage is left standing. News is drawn at once, however soon it is old."""

    def __init__(self, live: Live, line: _MovingLine) -> None:
        super().__init__(live.console)
        self._live = live
        self._line = line

    def begin(self, name: str, what: str) -> None:
        self._line.show(name, parts=[what], done=0, total=None)
        self._live.refresh()

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:
        self._line.clear()
        super().stage(name, lines, seconds=seconds, is_cached=is_cached)

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        self._line.show("", parts=[f"{what} {done:,}"], done=done, total=total)

    def stopping(self) -> None:
        self._line.note = _STOPPING

    def _show_step(self, step: Step, *, is_news: bool) -> None:
        figures = _figures(step, validation_loss=self._validation_loss)
        self._line.show("train", parts=figures, done=step.step, total=step.total_steps)
        if is_news:
            self._live.refresh()


class _MovingLine:
    """What the last line of the terminal holds at any moment. It is drawn anew a few times a second, by a thread of its own."""

    def __init__(self) -> None:
        self.note = ""
        """Stands in place of the figures."""
        self._shown: _Shown | None = None

    def show(self, label: str, *, parts: Sequence[str], done: int, total: int | None) -> None:
        self._shown = _Shown(label, parts, done, total)

    def clear(self) -> None:
        self._shown = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._shown
        if shown is None:
            return
        percent = f" {shown.done / max(shown.total, 1):>4.0%} " if shown.total is not None else " "
        head = f"● {shown.label} " if shown.label else "● "
        room = options.max_width - 1 - len(head) - len(percent)  # the last column stays free: some terminals wrap there
        parts = [self.note] if self.note else list(shown.parts)
        while len(parts) > 1 and len(" · ".join(parts)) > room - _BAR.start:
            parts.pop()
        text = " · ".join(parts)[: max(room - _BAR.start, 0)]
        bar = _bar(max(min(room - len(text), _BAR.stop - 1), 1), done=shown.done, total=shown.total)
        yield Text.assemble(head, bar, percent, text, no_wrap=True, overflow="crop", end="")


class _Shown(NamedTuple):
    label: str
    parts: Sequence[str]
    done: int
    total: int | None


def _bar(width: int, *, done: int, total: int | None) -> Text:
    """Thick what is done and thin what is left; a thick piece that wanders where nobody knows how much is left."""
    if total is not None:
        first, last = 0, round(width * done / max(total, 1))
    else:
        size_of_piece = max(width // 4, 1)
        first = int(time.monotonic() * 8) % (width - size_of_piece + 1)
        last = first + size_of_piece
    return Text.assemble(("─" * first, "dim"), ("━" * (last - first), "green"), ("─" * (width - last), "dim"))


def _figures(step: Step, *, validation_loss: float | None) -> list[str]:
    """Most important first."""
    validation = f" val {validation_loss:.2f}" if validation_loss is not None else ""
    left = "done" if step.step == step.total_steps else f"{duration(step.eta_s)} left"
    return [f"loss {step.loss:.2f}{validation}", left, f"{step.tokens_per_s:,.0f} tok/s", size(step.memory_bytes)]

"""Ctrl-C and SIGTERM: the first asks to save and stop, the second stops at once. What is finished is kept either way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tunesmith.errors import Interrupted

__all__ = ["asked_to_stop", "interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C or SIGTERM anywhere in a run into `Interrupted`."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        with _handled_by(stop):
            yield
    except KeyboardInterrupt as error:
        raise Interrupted("Interrupted; what was finished is kept. Go on with the same command.") from error


@contextmanager
def asked_to_stop(on_ask: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Give a question that the first signal answers with yes; a second one raises KeyboardInterrupt at once.

    Args:
        on_ask: called in the signal handler, so that the user sees at once that the wish was heard.
    """
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        on_ask()

    with _handled_by(ask):
        yield lambda: asked


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    try:
        before = {number: signal.signal(number, handler) for number in _SIGNALS}
    except ValueError:  # not the main thread: whoever started the thread handles signals
        yield
        return
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

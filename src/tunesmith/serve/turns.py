"""Several answers to one request, each a generator, in turns."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

from tunesmith.serve.engine import Wait

__all__ = ["in_turns"]

E = TypeVar("E")


def in_turns(answers: Sequence[Generator[E | Wait, None, None]]) -> Generator[E | Wait, None, None]:
    """All that each has to say before the engine's next step, then one `Wait` for all who go on. Closing this closes all."""
    with ExitStack() as stack:
        for answer in answers:
            stack.enter_context(closing(answer))
        going_on = list(answers)
        while going_on:
            waiting = []
            for answer in going_on:
                for event in answer:
                    if isinstance(event, Wait):
                        waiting.append(answer)
                        break
                    yield event
            going_on = waiting
            if going_on:
                yield Wait.FOR_STEP

"""The events of an answer, timed on their way to the client."""

from __future__ import annotations

import time
from typing import Generic, Protocol, TypeVar

from starlette.types import Scope

from tunesmith.serve.answer import TextPart
from tunesmith.serve.engine import Piece
from tunesmith.serve.lane import ClientGone, Generation
from tunesmith.serve.metrics import AnswerTimes, Metrics, Served
from tunesmith.serve.service import Target

__all__ = ["Events", "note_served", "observed"]

E_co = TypeVar("E_co", covariant=True)
E = TypeVar("E")


class Events(Protocol[E_co]):
    """What an answer is read from: the prompt's number of tokens first, then its parts."""

    async def event(self, *, patience_s: float | None = None) -> E_co | None:
        """The next event; None if nothing happened for so long."""
        ...


def note_served(scope: Scope, target: Target) -> Served:
    """Say which model a request is for, so that it is counted under its name."""
    served = Served(model=target.deployment, version=target.lane.engine.ref)
    scope["state"]["served"] = served
    return served


def observed(generation: Generation[E], scope: Scope, *, target: Target, received: float) -> Events[E]:
    """The events of a generation, which tell the metrics their times as they pass."""
    return _Watched(generation, scope["app"].state.metrics, note_served(scope, target), received=received)


class _Watched(Generic[E]):
    def __init__(self, generation: Generation[E], metrics: Metrics, served: Served, *, received: float) -> None:
        self._generation = generation
        self._metrics = metrics
        self._served = served
        self._received = received
        self._num_prompt_tokens = 0
        self._has_begun = False
        self._times: dict[int, AnswerTimes] = {}

    async def event(self, *, patience_s: float | None = None) -> E | None:
        """The next event, as of `Generation.event`."""
        try:
            event = await self._generation.event(patience_s=patience_s)
        except Exception as error:
            self._metrics.answered(self._served, finish_reason="cancelled" if isinstance(error, ClientGone) else "error")
            raise
        if isinstance(event, int):
            self._num_prompt_tokens = event
        elif event is not None and not self._has_begun:  # an upstream corrects the first count
            self._has_begun = True
            waited_s = self._generation.waited_s or 0.0
            self._metrics.began(self._served, num_prompt_tokens=self._num_prompt_tokens, waited_s=waited_s)
        if isinstance(event, Piece | TextPart):
            self._see(event)
        return event

    def _see(self, part: Piece | TextPart) -> None:
        now = time.monotonic()
        times = self._times.setdefault(part.answer, AnswerTimes(to_first_s=now - self._received))
        times.num_tokens += part.num_tokens
        times.total_s = now - self._received
        if part.finish_reason is not None:
            self._metrics.answered(self._served, finish_reason=part.finish_reason, times=times)

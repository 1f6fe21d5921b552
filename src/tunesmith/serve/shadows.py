"""Copies of requests for versions that are on trial: few at once, never tried again, given up as soon as anybody has to wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from tunesmith.serve.lane import Ask, Lane
from tunesmith.serve.refusal import Refusal

__all__ = ["Shadows"]

_LOG = logging.getLogger("tunesmith.serve")


class Shadows:
    """Answers that only the log sees. Used on the event loop."""

    def __init__(self, *, max_running: int = 2) -> None:
        self._max_running = max_running
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_left_out = 0
        """Copies so far that were not made, or given up, for want of room."""

    @property
    def num_running(self) -> int:
        return len(self._tasks)

    def begin(self, ask: Ask, lanes: Iterable[Lane]) -> None:
        """Send copies of a request; where there is no room for one, there is none."""
        for lane in lanes:
            if len(self._tasks) >= self._max_running or lane.room <= 0:
                self.num_left_out += 1
                continue
            copy = replace(ask, id=f"{ask.id}-{lane.engine.ref}", shadow_of=ask.id)
            task = asyncio.get_running_loop().create_task(self._answer(copy, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def give_up(self) -> None:
        """End them all: the place is needed."""
        self.num_left_out += len(self._tasks)
        for task in self._tasks:
            task.cancel()

    async def _answer(self, ask: Ask, lane: Lane) -> None:
        num_open = ask.request.num_answers
        try:
            with lane.submit(ask) as generation:
                while num_open:
                    event = await generation.event()
                    num_open -= event is not None and not isinstance(event, int) and event.finish_reason is not None
        except Refusal:
            self.num_left_out += 1
        except Exception:
            _LOG.exception("the copy %s of a request failed at its shadow", ask.id)

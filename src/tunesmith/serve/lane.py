"""One engine, one worker thread, and a bounded first-come-first-served queue before it.

The event loop submits and listens; the thread counts prompts, generates, and puts events back on the loop. A batching engine goes on
with several requests in turns: each says what it has, then one step is made for all. An engine is never touched from anywhere else.
A slow reader does not hold the engine: events wait in memory, at most `max_tokens` of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from tunesmith.records import Interaction
from tunesmith.serve.answer import TextPart
from tunesmith.serve.asked import Ask, answer_chat
from tunesmith.serve.engine import BatchingEngine, Engine, Piece, Wait
from tunesmith.serve.refusal import Refusal

__all__ = ["NO_LOAD", "Ask", "ClientGone", "Generation", "Lane", "Load", "Produce"]

_LOG = logging.getLogger("tunesmith.serve")
_RETRY_AFTER_S = 5
"""Between 1 and 120, so that the openai client heeds it."""


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


def _unmetered(_: int) -> None:
    pass


class Load(NamedTuple):
    """What a request weighs."""

    num_prompt_tokens: int = 0
    """An estimate; it bounds the queue."""
    deadline: float = math.inf
    """`time.monotonic()` by which it must be done; waiting counts."""
    meter: Callable[[int], None] = _unmetered
    """Told the tokens as they are read and written, 0 when the engine begins; called on the engine's thread."""


NO_LOAD = Load()
E = TypeVar("E")
Produce = Callable[[Engine, Callable[[], bool]], Generator[E | Wait, None, None]]
"""Makes the events of one request, on the engine's thread. Its second argument tells whether anybody still waits for them."""


class Generation(Generic[E]):
    """The events of one request. Of a chat: the prompt's number of tokens, then pieces; the last one has a finish reason.

    A context manager: leaving it early abandons the request, at the next event if it is being answered.
    """

    def __init__(self, produce: Produce[E], *, lane: Lane, loop: asyncio.AbstractEventLoop, load: Load) -> None:
        self.load = load
        self._produce = produce
        self._lane = lane
        self._loop = loop
        self._events: asyncio.Queue[E | Exception] = asyncio.Queue()
        self._abandoned = threading.Event()
        self._num_prompt_tokens = 0
        self._source: Generator[E | Wait, None, None] | None = None
        self._queued = time.monotonic()
        self.waited_s: float | None = None
        """In the queue; None while it still waits there."""

    def __enter__(self) -> Generation[E]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._abandoned.set()
        self._lane.leave(self)

    async def event(self, *, patience_s: float | None = None) -> E | None:
        """The next event; None if nothing happened for so long.

        Raises:
            Refusal: 504, the request's time is over.
            Exception: what the engine raised, or the argument of `fail`.
        """
        left_s = self.load.deadline - time.monotonic()
        is_last = left_s <= (math.inf if patience_s is None else patience_s)
        wait_s = left_s if is_last else patience_s
        try:
            async with asyncio.timeout(None if wait_s == math.inf else wait_s):
                event = await self._events.get()
        except TimeoutError:
            if is_last:
                message = "The answer took too long; waiting for its turn counts. Ask for fewer tokens, or when less is going on."
                raise Refusal(message, status=504, code="timeout") from None
            return None
        if isinstance(event, Exception):
            raise event
        return event

    def fail(self, error: Exception) -> None:
        """Abandon the request and wake its reader with an error. Called on the event loop."""
        self._abandoned.set()
        self._events.put_nowait(error)

    def advance(self, engine: Engine) -> bool:
        """Tell all that there is to tell before the engine's next step. Called on the worker thread; raises nothing.

        Returns:
            Whether it goes on.
        """
        if self.waited_s is None:
            self.waited_s = time.monotonic() - self._queued
        try:
            if self._source is None:
                self.load.meter(0)
                self._source = self._produce(engine, self._abandoned.is_set)
            for event in self._source:
                if self._abandoned.is_set():
                    break
                if isinstance(event, Wait):
                    return True
                self._tell(event)
        except Exception as error:
            self._tell(error)
        except BaseException as error:  # an engine's `sys.exit()` must not end the thread and leave all others waiting
            self._tell(RuntimeError(f"the engine raised {type(error).__name__}"))
        self.end()
        return False

    def end(self, error: Exception | None = None) -> None:
        """Leave the engine, with an error for whoever still waits. Called on the worker thread; raises nothing."""
        if error is not None:
            self._tell(error)
        if self._source is not None:
            try:
                self._source.close()
            except BaseException:
                _LOG.exception("an answer could not be abandoned")

    def _tell(self, event: E | Exception) -> None:
        num_tokens = _num_tokens(event)
        if isinstance(event, int):  # the prompt's, which an upstream corrects once it has read it
            num_tokens, self._num_prompt_tokens = event - self._num_prompt_tokens, event
        self.load.meter(num_tokens)
        self._lane.beat()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


def _num_tokens(event: object) -> int:
    """Of a chat's event, or of a whole answer that tells its usage."""
    if isinstance(event, int):
        return event
    if isinstance(event, Piece | TextPart):
        return event.num_tokens
    usage = event.get("usage") if isinstance(event, dict) else None
    return int(usage["total_tokens"]) if usage else 0


class Lane:
    """Submit here. The thread starts with the first request."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue: int,
        max_queue_tokens: int = 2**18,
        on_interaction: Callable[[Interaction], None] | None = None,
    ) -> None:
        self.engine = engine
        self._max_queue = max_queue
        self._max_queue_tokens = max_queue_tokens
        self._on_interaction = on_interaction
        self._open: set[Generation[Any]] = set()
        self._waiting: deque[Generation[Any]] = deque()
        self._running: list[Generation[Any]] = []
        self._max_running = engine.max_running if isinstance(engine, BatchingEngine) else 1
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._beat_at = time.monotonic()

    @property
    def open(self) -> tuple[Generation[Any], ...]:
        """Answers that somebody waits for."""
        return tuple(self._open)

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests that the engine goes on with."""
        return len(self._running)

    @property
    def room(self) -> int:
        """Requests that could be taken up at once; below 0 so many wait."""
        return self._max_running - len(self._waiting) - len(self._running)

    def silence_s(self) -> float:
        """Since when the thread has done nothing though there is work; without end where it has died."""
        if self._thread is not None and not self._thread.is_alive() and not self._is_closed:
            return math.inf
        is_busy = self._waiting or self._running
        return time.monotonic() - self._beat_at if is_busy else 0.0

    def beat(self) -> None:
        """Something is done, or there is something to do again."""
        self._beat_at = time.monotonic()

    def submit(self, ask: Ask, load: Load = NO_LOAD) -> Generation[int | Piece]:
        """Queue a chat. Called on the event loop.

        Raises:
            Refusal: 503 `overloaded`, the queue is full.
        """
        return self.queue(partial(answer_chat, ask, on_interaction=self._on_interaction), load)

    def queue(self, produce: Produce[E], load: Load = NO_LOAD) -> Generation[E]:
        """Queue a request of any kind. Called on the event loop.

        Raises:
            Refusal: 503 `overloaded`, the queue is full.
        """
        generation = Generation(produce, lane=self, loop=asyncio.get_running_loop(), load=load)
        with self._changed:
            self._check_room(load)
            if not self._waiting and not self._running:
                self.beat()
            self._waiting.append(generation)
            self._changed.notify()
        self._open.add(generation)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"engine {self.engine.ref}", daemon=True)
            self._thread.start()
        return generation

    def _check_room(self, load: Load) -> None:
        num_free = max(self._max_running - len(self._running), 0)
        kept = [waiting.load.num_prompt_tokens for waiting in islice(self._waiting, num_free, None)]
        # A prompt that is longer than the whole queue may wait alone.
        is_too_long = bool(kept) and sum(kept) + load.num_prompt_tokens > self._max_queue_tokens
        if is_too_long or len(self._waiting) + len(self._running) >= self._max_queue + self._max_running:
            raise Refusal(
                f"{len(self._waiting)} requests are waiting for this model already. Try again in {_RETRY_AFTER_S} s.",
                status=503,
                code="overloaded",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )

    def leave(self, generation: Generation[Any]) -> None:
        """Nobody waits for this answer any more."""
        self._open.discard(generation)
        with self._changed, contextlib.suppress(ValueError):
            self._waiting.remove(generation)

    def close(self, *, patience_s: float) -> None:
        """End the thread once its engine has given its next piece; do not wait longer than this for it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._running or self._is_closed)
                if self._is_closed:
                    break
                self.beat()
                while self._waiting and len(self._running) < self._max_running:
                    self._running.append(self._waiting.popleft())
            going_on = [generation for generation in self._running if generation.advance(self.engine)]
            if going_on:
                going_on = self._step(going_on)
            with self._changed:
                self._running = going_on
        for generation in self._running:
            generation.end()

    def _step(self, going_on: list[Generation[Any]]) -> list[Generation[Any]]:
        """One step for all; where it fails, all fail, and the engine begins anew."""
        assert isinstance(self.engine, BatchingEngine), "only a batching engine lets its streams wait"
        try:
            self.engine.step()
        except BaseException as error:
            for generation in going_on:
                generation.end(
                    error if isinstance(error, Exception) else RuntimeError(f"the engine raised {type(error).__name__}")
                )
            self.engine.reset()
            return []
        return going_on

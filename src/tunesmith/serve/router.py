"""The versions that a registry wants served, loaded and let go while requests go on.

Load the new one, have it write a token, point the names to it, wait until nobody reads an answer of the old one any more, let it go. A
request is given its version once, when it comes in, and holds it until its answer has ended. A version that does not load is told in the
log and in `status`, and what answered before goes on. Everything here happens on the event loop, except loading and closing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from math import fsum
from typing import Any, NamedTuple, Protocol, TypeVar

from tunesmith.errors import TunesmithError
from tunesmith.records import Message, Role
from tunesmith.serve.arms import Route, choose_arm
from tunesmith.serve.engine import Engine, Piece, SamplingParams, Wait
from tunesmith.serve.lane import Lane
from tunesmith.serve.refusal import Refusal, clipped

__all__ = ["Registry", "Router", "Target"]

_LOG = logging.getLogger("tunesmith.serve")
_RETRY_S = 60.0
"""Until a version that did not load is tried again by itself."""
_LOOK_S = 0.02
"""Between two looks at whether anybody still reads of an old version."""
_CLOSE_PATIENCE_S = 60.0
T = TypeVar("T")


class Registry(Protocol):
    """Where it stands what is served. Its calls may take time and are made beside the event loop, one at a time."""

    def routes(self) -> Mapping[str, Route]:
        """By the names that clients ask for, the one that matters most first: only with it is the server ready. Asked every second."""
        ...

    def load(self, ref: str, /) -> Engine:
        """Load a version."""
        ...

    def unload(self, ref: str, /) -> None:
        """Free what is kept for a version; its engine is not used any more."""
        ...


class Target(NamedTuple):
    """What a request for a model's name has been given."""

    deployment: str
    lane: Lane
    shadows: tuple[Lane, ...] = ()


class _Failure(NamedTuple):
    error: Exception
    retry_at: float


class Router:
    """Names and loaded versions."""

    def __init__(self, registry: Registry, *, open_lane: Callable[[Engine], Lane], max_loaded: int) -> None:
        """Keep the parts; nothing is loaded before `refresh`.

        Args:
            registry: what is wanted.
            open_lane: makes the queue before an engine.
            max_loaded: versions at once, except those that wait to be let go. The first names come first.
        """
        self._registry = registry
        self._open_lane = open_lane
        self._max_loaded = max_loaded
        self._wanted: Mapping[str, Route] = {}
        self._may_hold: frozenset[str] = frozenset()
        self._routes: dict[str, Route] = {}
        self._lanes: dict[str, Lane] = {}
        self._leaving: dict[str, Lane] = {}
        self._failures: dict[str, _Failure] = {}
        self._loading = ""
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: Exception | None = None
        """Why there was nothing to serve from the start; later failures leave it alone."""

    @property
    def is_ready(self) -> bool:
        """Whether the first of the names is answered."""
        return next(iter(self._wanted), None) in self._routes

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Of all that is in memory."""
        return *self._lanes.values(), *self._leaving.values()

    @property
    def names(self) -> list[str]:
        """Those that are answered: aliases, then versions."""
        return [*self._routes, *(ref for ref in self._lanes if ref not in self._routes)]

    def find(self, name: str, *, sticky: str) -> Target | None:
        """What a name stands for at this moment, for whoever has this sticky key; None where the name is unknown.

        Raises:
            Refusal: 503, what it stands for is not loaded yet; 404, and will not be, for want of room.
        """
        if route := self._routes.get(name):
            ref = choose_arm(route.answering, key=sticky)
            shadows = tuple(self._lanes[shadow] for shadow in route.shadows if shadow in self._lanes)
            return Target(route.deployment, self._lanes[ref], shadows)
        if name in self._lanes:
            return Target(name, self._lanes[name])
        if name in self._wanted and not self._may_hold.issuperset(self._wanted[name].answering):
            message = f"The model {clipped(name)!r} is not loaded: this server holds {self._max_loaded} versions at most."
            raise Refusal(message, status=404, code="model_not_found", param="model")
        if name in self._wanted or not self._wanted:
            message = f"The model {clipped(name)!r} is not loaded yet. GET /readyz tells when the server is ready."
            raise Refusal(message, status=503, code="loading", headers={"Retry-After": "5"})
        return None

    def version_of(self, name: str) -> str:
        """The version that a known name points to, whatever its traffic."""
        return self._routes[name].version if name in self._routes else name

    def status(self) -> dict[str, Any]:
        """What is loaded, and what would not load."""
        states = dict.fromkeys(self._lanes, "ready") | dict.fromkeys(self._leaving, "draining")
        if self._loading:
            states[self._loading] = "loading"
        return {
            "routes": {name: {"deployment": one.deployment, "arms": dict(one.arms)} for name, one in self._routes.items()},
            "versions": states,
            "problems": {ref: _told(failure.error) for ref, failure in self._failures.items()},
        }

    async def refresh(self, *, at_once: bool = True) -> None:
        """Do what the registry says by now; raises nothing, `status` tells what went wrong.

        Args:
            at_once: try again what failed a moment ago.
        """
        async with self._turn:
            if at_once:
                self._failures.clear()
            try:
                wanted = dict(await _beside(self._registry.routes))
            except Exception as error:
                self._fail("registry", error)
                return
            self._failures = {ref: kept for ref, kept in self._failures.items() if ref in _refs(wanted.values())}
            self._wanted = wanted
            order = _refs(wanted.values())[: self._max_loaded]
            self._may_hold = frozenset(order)
            for ref in order:
                if ref in self._leaving:
                    self._lanes[ref] = self._leaving.pop(ref)
                if ref not in self._lanes and not self._is_given_up(ref):
                    self._flip()
                    await self._load(ref)
            self._flip()
            self._let_go()

    async def follow(self, *, poll_s: float) -> None:
        """Look at the registry again and again."""
        await self.refresh()
        if not self.is_ready:
            first = next(iter(self._wanted.values()), None)
            known = self._failures.get(first.version if first else "registry")
            self.failure = known.error if known else RuntimeError("the registry names nothing to serve")
        while True:
            await asyncio.sleep(poll_s)
            await self.refresh(at_once=False)

    def _flip(self) -> None:
        """Point every name to what is wanted, where that is loaded."""
        pending = {ref for ref in self._may_hold if ref not in self._lanes and ref not in self._failures}
        routes = {}
        for name, route in self._wanted.items():
            missing = [ref for ref in route.answering if ref not in self._lanes]
            if not self._may_hold.issuperset(route.answering):
                continue  # loaded perhaps, but only until the versions before it are
            if not missing:
                routes[name] = route
            elif name in self._routes:
                routes[name] = self._routes[name]
            elif route.version in self._lanes and pending.isdisjoint(missing):
                routes[name] = _without(route, missing)
        if routes != self._routes:
            told = ("{} -> {}".format(name, ", ".join(route.arms)) for name, route in routes.items())
            _LOG.info("serving %s", "; ".join(told))
        self._routes = routes

    def _let_go(self) -> None:
        needed = {*self._may_hold, *_refs(self._routes.values())}
        for ref in [ref for ref in self._lanes if ref not in needed]:
            self._leaving[ref] = self._lanes.pop(ref)
            task = asyncio.create_task(self._drain(ref))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drain(self, ref: str) -> None:
        """Wait for the last answer, then free the memory. Wanted again before that, the version stays."""
        while ref in self._leaving:
            if not self._leaving[ref].open:
                async with self._turn:  # nobody loads it anew meanwhile
                    if ref in self._leaving and not self._leaving[ref].open:
                        await self._close(ref)
                        return
            await asyncio.sleep(_LOOK_S)

    async def _close(self, ref: str) -> None:
        """The lane is held by nothing any more when the registry is told, so that its memory is free."""
        await _beside(partial(self._leaving.pop(ref).close, patience_s=_CLOSE_PATIENCE_S))
        try:
            await _beside(partial(self._registry.unload, ref))
        except Exception:
            _LOG.exception("%s could not be let go", ref)
        _LOG.info("%s is unloaded", ref)

    async def _load(self, ref: str) -> None:
        self._loading = ref
        begun = time.monotonic()
        try:
            self._leaving[ref] = self._open_lane(await _beside(partial(self._registry.load, ref)))
            await _warm(self._leaving[ref])
        except Exception as error:
            self._fail(ref, error)
            if ref in self._leaving:
                await self._close(ref)
        else:
            self._failures.pop(ref, None)
            self._lanes[ref] = self._leaving.pop(ref)
            _LOG.info("%s is loaded and warm after %.1f s", ref, time.monotonic() - begun)
        finally:
            self._loading = ""

    def _is_given_up(self, ref: str) -> bool:
        return ref in self._failures and time.monotonic() < self._failures[ref].retry_at

    def _fail(self, ref: str, error: Exception) -> None:
        if ref not in self._failures or _told(self._failures[ref].error) != _told(error):
            trace = None if isinstance(error, TunesmithError) else error
            _LOG.error("%s: %s; what answered before goes on", ref, _told(error), exc_info=trace)
        # Its frames hold the model that failed.
        self._failures[ref] = _Failure(error.with_traceback(None), time.monotonic() + _RETRY_S)


def _refs(routes: Iterable[Route]) -> list[str]:
    """Every version once: those that answer, by the routes' order, then shadows."""
    routes = list(routes)
    answering = [ref for route in routes for ref in (route.version, *route.answering)]
    return list(dict.fromkeys([*answering, *(ref for route in routes for ref in route.shadows)]))


def _without(route: Route, missing: Iterable[str]) -> Route:
    """The traffic of what is missing given to the others."""
    left = {ref: share for ref, share in route.arms.items() if ref not in set(missing)}
    total = fsum(left.values())
    return route._replace(arms={ref: share / total for ref, share in left.items()})


def _told(error: Exception) -> str:
    """For people; our own errors are written for them."""
    return str(error) if isinstance(error, TunesmithError) else f"{type(error).__name__}: {error}"


async def _warm(lane: Lane) -> None:
    """Have a version write one token, so that its first user waits for nothing."""
    with lane.queue(_first_token) as generation:
        while (piece := await generation.event()) is None or piece.finish_reason is None:
            pass


def _first_token(engine: Engine, _: Callable[[], bool]) -> Generator[Piece | Wait, None, None]:
    messages = (Message(role=Role.USER, content="Hi"),)
    engine.count_prompt(messages)
    yield from engine.stream(messages, SamplingParams(max_tokens=1, temperature=0.0))


async def _beside(call: Callable[[], T]) -> T:
    """Run a call in a thread of its own that no exit waits for: a version may take minutes to load."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result(value) if error is None else done.set_exception(error)

    def work() -> None:
        value, found = None, None
        try:
            value = call()
        except Exception as error:
            found = error
        except BaseException as error:
            found = RuntimeError(f"{type(error).__name__}: {error}")
        try:
            loop.call_soon_threadsafe(tell, value, found)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    threading.Thread(target=work, name="registry", daemon=True).start()
    return await done

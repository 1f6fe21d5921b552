"""What is served under which name, and whether new requests are let in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar

from tunesmith.errors import UserError
from tunesmith.records import Interaction
from tunesmith.serve.answer import model_card
from tunesmith.serve.engine import Engine, Piece
from tunesmith.serve.lane import NO_LOAD, Ask, Generation, Lane, Load, Produce
from tunesmith.serve.limits import Limits
from tunesmith.serve.refusal import Refusal, clipped
from tunesmith.serve.router import Registry, Router, Target
from tunesmith.serve.shadows import Shadows

__all__ = ["Service", "Target"]

E = TypeVar("E")
_BEGIN_PATIENCE_S = 60.0


class Service:
    """The engines by name, each with its lane. A name is an alias (`boutique`) or a version (`boutique@7`).

    `is_stopping` set to True says so to whoever asks whether the server is ready; `is_draining` lets nobody in any more. Answers
    under way go on.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        on_interaction: Callable[[Interaction], None] | None,
        registry: Registry | None = None,
        limits: Limits,
    ) -> None:
        if not engines and registry is None:
            raise UserError("there is no model to serve")
        open_lane = partial(
            Lane, max_queue=limits.max_queue, max_queue_tokens=limits.max_queue_tokens, on_interaction=on_interaction
        )
        lanes = {id(engine): open_lane(engine) for engine in engines.values()}
        self._targets = {name: Target(name, lanes[id(engine)]) for name, engine in engines.items()}
        for name, engine in engines.items():
            self._targets.setdefault(engine.ref, Target(name, lanes[id(engine)]))
        self._fixed = tuple(lanes.values())
        self._router = None if registry is None else Router(registry, open_lane=open_lane, max_loaded=limits.max_loaded)
        self._shadows = Shadows()
        self._created = int(time.time())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_begun = threading.Event()
        self.is_stopping = False
        self.is_draining = False

    def find(self, name: str | None, *, sticky: str = "") -> Target:
        """Look a model up. What it stands for holds as long as nothing is awaited before the request is queued.

        Args:
            name: an alias or a version; None for the only model that there is.
            sticky: of `sticky_key`; requests with the same one are answered by the same version.

        Raises:
            Refusal: 404 `model_not_found`; 503 `loading`, it will be there; 400, no name and several models.
        """
        name = self._only_name() if name is None else name
        target = self._targets.get(name)
        if target is None and self._router is not None:
            target = self._router.find(name, sticky=sticky)
        if target is None:
            known = sorted([*self._targets, *(self._router.names if self._router else ())])
            near = get_close_matches(clipped(name), known, n=1) or known[:5]
            message = f"The model {clipped(name)!r} is not served here. Known: {', '.join(near)}; GET /v1/models lists all."
            raise Refusal(message, status=404, code="model_not_found", param="model")
        return target

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """One for each engine."""
        return self._lanes

    def card(self, name: str) -> dict[str, Any]:
        """One model, as `/v1/models` shows it: of an alias, the version that it points to.

        Raises:
            Refusal: as of `find`.
        """
        target = self.find(name if self._router is None or name in self._targets else self._router.version_of(name))
        engine = target.lane.engine
        return model_card(name, ref=engine.ref, created=self._created, max_length=engine.max_length)

    def cards(self) -> list[dict[str, Any]]:
        """All models: the aliases in the order given, then the versions."""
        return [self.card(name) for name in (*self._targets, *(self._router.names if self._router else ()))]

    def submit(self, ask: Ask, load: Load = NO_LOAD, target: Target | None = None) -> Generation[int | Piece]:
        """Queue a chat at its engine, and copies at the shadows.

        Raises:
            Refusal: 503, draining or the queue is full; as of `find`, where no target is given.
        """
        self._let_in()
        target = target or self.find(ask.request.model)
        generation = target.lane.submit(ask, load)
        self._shadows.begin(ask, target.shadows)
        self._make_room(target)
        return generation

    def queue(self, model: str | Target, produce: Produce[E], load: Load = NO_LOAD) -> Generation[E]:
        """Queue a request of any kind at a model's engine.

        Raises:
            Refusal: as of `submit`.
        """
        self._let_in()
        target = self.find(model) if isinstance(model, str) else model
        generation = target.lane.queue(produce, load)
        self._make_room(target)
        return generation

    async def refresh(self) -> dict[str, Any]:
        """Do at once what the registry says; returns `status`."""
        if self._router is not None:
            await self._router.refresh()
        return self.status()

    def require(self, ref: str) -> None:
        """Have a version loaded that the registry has come to name. Called from a thread beside the event loop.

        Raises:
            UserError: it cannot be served.
        """
        if not self._has_begun.wait(_BEGIN_PATIENCE_S) or self._loop is None:
            raise UserError(f"{ref} is not served: the server does not run")
        told = asyncio.run_coroutine_threadsafe(self.refresh(), self._loop).result()
        if ref not in told["versions"]:
            raise UserError(f"{ref} is not served: {told['problems'].get(ref, 'this server holds no more versions')}")

    async def follow(self, *, poll_s: float) -> None:
        """Do what the registry says, for ever."""
        self._loop = asyncio.get_running_loop()
        self._has_begun.set()
        if self._router is not None:
            await self._router.follow(poll_s=poll_s)

    def _only_name(self) -> str:
        if len(self._lanes) > 1:
            raise Refusal(
                "model: required, because several models are served here.", code="missing_required_parameter", param="model"
            )
        return next(iter((*self._targets, *(self._router.names if self._router else ()))), "")

    def _let_in(self) -> None:
        if self.is_draining:
            headers = {"Retry-After": "5", "Connection": "close"}
            raise Refusal("The server is stopping.", status=503, code="stopping", headers=headers)

    def _make_room(self, target: Target) -> None:
        if target.lane.room < 0:
            self._shadows.give_up()

    @property
    def is_ready(self) -> bool:
        """Whether the first of the models is loaded and has written a token. Engines that were handed over are taken to be."""
        return self._router is None or self._router.is_ready

    @property
    def failure(self) -> Exception | None:
        """Why there is nothing to serve, and never was."""
        return self._router.failure if self._router else None

    @property
    def silence_s(self) -> float:
        """How long the stillest engine has work and does nothing; without end where its thread has died."""
        return max((lane.silence_s() for lane in self._lanes), default=0.0)

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return *self._fixed, *(self._router.lanes if self._router else ())

    def drain(self) -> None:
        """Let nobody in any more. Called on the event loop."""
        self.is_stopping = self.is_draining = True
        self._shadows.give_up()

    @property
    def num_open(self) -> int:
        """Answers that somebody waits for."""
        return sum(len(lane.open) for lane in self._lanes)

    def status(self) -> dict[str, Any]:
        """What is served, what would not load, and how much there is to do, for the operator."""
        told = self._router.status() if self._router else {"routes": {}, "versions": {}, "problems": {}}
        fixed = {name: {"deployment": one.deployment, "arms": {one.lane.engine.ref: 1.0}} for name, one in self._targets.items()}
        shadows = {"running": self._shadows.num_running, "left_out": self._shadows.num_left_out}
        return told | {
            "status": "draining" if self.is_draining else "serving",
            "num_open": self.num_open,
            "routes": fixed | told["routes"],
            "lanes": [
                {"version": lane.engine.ref, "num_open": len(lane.open), "num_waiting": lane.num_waiting} for lane in self._lanes
            ],
            "shadows": shadows,
        }

    def abandon_all(self) -> None:
        """End every answer with an error that its client sees."""
        for lane in self._lanes:
            for generation in lane.open:
                generation.fail(Refusal("The server is stopping; the answer is incomplete.", status=503, code="stopping"))

    def close(self, *, patience_s: float) -> None:
        """End the worker threads."""
        for lane in self._lanes:
            lane.close(patience_s=patience_s)

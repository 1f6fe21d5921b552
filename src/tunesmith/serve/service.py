"""What is served under which name, and whether new requests are let in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar

from tunesmith.errors import UserError
from tunesmith.records import Interaction
from tunesmith.serve.answer import model_card
from tunesmith.serve.engine import Engine, Piece
from tunesmith.serve.lane import NO_LOAD, Ask, Generation, Lane, Load, Produce
from tunesmith.serve.refusal import Refusal, clipped

__all__ = ["Service", "Target"]

E = TypeVar("E")


class Target(NamedTuple):
    """What a model name stands for."""

    deployment: str
    lane: Lane


class Service:
    """The engines by name, each with its lane. A name is an alias (`boutique`) or a version (`boutique@7`).

    `is_draining` set to True lets nobody in any more; answers under way go on.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        max_queue: int,
        max_queue_tokens: int = 2**18,
        on_interaction: Callable[[Interaction], None] | None,
    ) -> None:
        if not engines:
            raise UserError("there is no model to serve")
        lanes = {
            id(engine): Lane(engine, max_queue=max_queue, max_queue_tokens=max_queue_tokens, on_interaction=on_interaction)
            for engine in engines.values()
        }
        self._targets = {name: Target(name, lanes[id(engine)]) for name, engine in engines.items()}
        for name, engine in engines.items():
            self._targets.setdefault(engine.ref, Target(name, lanes[id(engine)]))
        self._lanes = tuple(lanes.values())
        self._created = int(time.time())
        self.is_draining = False

    def find(self, name: str) -> Target:
        """Look a model up.

        Raises:
            Refusal: 404 `model_not_found`.
        """
        target = self._targets.get(name)
        if target is None:
            known = sorted(self._targets)
            near = get_close_matches(clipped(name), known, n=1) or known[:5]
            message = f"The model {clipped(name)!r} does not exist here. Known: {', '.join(near)}; GET /v1/models lists all."
            raise Refusal(message, status=404, code="model_not_found", param="model")
        return target

    def card(self, name: str) -> dict[str, Any]:
        """One model, as `/v1/models` shows it."""
        engine = self.find(name).lane.engine
        return model_card(name, ref=engine.ref, created=self._created, max_length=engine.max_length)

    def cards(self) -> list[dict[str, Any]]:
        """All models: the aliases in the order given, then the versions."""
        return [self.card(name) for name in self._targets]

    def submit(self, ask: Ask, load: Load = NO_LOAD) -> Generation[int | Piece]:
        """Queue a chat at its engine.

        Raises:
            Refusal: 503, draining or the queue is full; 404, no such model.
        """
        self._let_in()
        return self.find(ask.request.model).lane.submit(ask, load)

    def queue(self, name: str, produce: Produce[E], load: Load = NO_LOAD) -> Generation[E]:
        """Queue a request of any kind at a model's engine.

        Raises:
            Refusal: as of `submit`.
        """
        self._let_in()
        return self.find(name).lane.queue(produce, load)

    def _let_in(self) -> None:
        if self.is_draining:
            headers = {"Retry-After": "5", "Connection": "close"}
            raise Refusal("The server is stopping.", status=503, code="stopping", headers=headers)

    @property
    def num_open(self) -> int:
        """Answers that somebody waits for."""
        return sum(len(lane.open) for lane in self._lanes)

    def status(self) -> dict[str, Any]:
        """What is served, and how much there is to do, for the operator."""
        models = [
            {
                "name": name,
                "version": target.lane.engine.ref,
                "arms": {target.lane.engine.ref: 1.0},
                "num_open": len(target.lane.open),
                "num_waiting": target.lane.num_waiting,
            }
            for name, target in self._targets.items()
        ]
        return {"status": "draining" if self.is_draining else "serving", "num_open": self.num_open, "models": models}

    def abandon_all(self) -> None:
        """End every answer with an error that its client sees."""
        for lane in self._lanes:
            for generation in lane.open:
                generation.fail(Refusal("The server is stopping; the answer is incomplete.", status=503, code="stopping"))

    def close(self, *, patience_s: float) -> None:
        """End the worker threads."""
        for lane in self._lanes:
            lane.close(patience_s=patience_s)

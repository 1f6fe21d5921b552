"""Endpoints whose answer comes at once and whole: read a body, ask the engine on its own thread, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tunesmith.serve.admission import admit
from tunesmith.serve.arms import sticky_key
from tunesmith.serve.body import read_body, watch_client
from tunesmith.serve.engine import Engine, Wait
from tunesmith.serve.json_body import read_json
from tunesmith.serve.lane import NO_LOAD, ClientGone, Load
from tunesmith.serve.observed import note_served
from tunesmith.serve.refusal import Refusal, json_response
from tunesmith.serve.service import Service

__all__ = ["OneAnswer", "Steps", "ask_engine"]

Steps = Generator[dict[str, Any] | Wait | None, None, None]
"""None while something goes on, so that a client that is gone is noticed; the answer at last."""


class _ForModel(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def contents(self) -> Sequence[str | Sequence[int]]:
        """What is to be read; it bounds the queue."""
        ...


R = TypeVar("R", bound=_ForModel)
K = TypeVar("K", bound=Engine)


class OneAnswer(Generic[R, K]):
    """An endpoint."""

    def __init__(
        self,
        service: Service,
        *,
        read: Callable[[object], R],
        kind: type[K],
        answer: Callable[[K, R], Steps],
        lacking: str,
        max_body_bytes: int,
    ) -> None:
        """Keep the parts.

        Args:
            service: finds the model. A request that names none is for the only one.
            read: a parsed body to a request, or a `Refusal`.
            kind: what an engine must be, a protocol of `engine`.
            answer: run on the engine's thread.
            lacking: said of a model whose engine is of no such kind: "The model boutique@1 ...".
            max_body_bytes: of a request.
        """
        self._service = service
        self._read = read
        self._kind = kind
        self._steps = answer
        self._lacking = lacking
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(Request(scope, receive), max_bytes=self._max_body_bytes)
        except ClientDisconnect:
            return
        request = self._read(read_json(body))

        def answer(engine: K) -> Steps:
            return self._steps(engine, request)

        load = admit(scope, model=request.model, prompts=request.contents)
        await ask_engine(
            self._service, request.model, scope, receive, send, kind=self._kind, answer=answer, lacking=self._lacking, load=load
        )


async def ask_engine(
    service: Service,
    model: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    kind: type[K],
    answer: Callable[[K], Steps],
    lacking: str,
    load: Load | None = None,
) -> None:
    """Let an engine answer, and send what it says; the rest is as in `OneAnswer`."""
    target = service.find(model or None, sticky=sticky_key(scope))
    if not isinstance(target.lane.engine, kind):
        message = f"The model {target.lane.engine.ref} {lacking}."
        raise Refusal(message, code="unsupported_parameter", param="model")
    note_served(scope, target)

    def produce(engine: Engine, _: Callable[[], bool]) -> Steps:
        assert isinstance(engine, kind)
        yield from answer(engine)

    with service.queue(target, produce, load or NO_LOAD) as generation:
        watch = asyncio.create_task(watch_client(receive, generation))
        try:
            while (content := await generation.event()) is None:
                pass
        except ClientGone:
            return
        finally:
            watch.cancel()
        await json_response(content, headers={"x-model-version": target.lane.engine.ref})(scope, receive, send)

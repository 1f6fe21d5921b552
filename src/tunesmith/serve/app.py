"""The application: routes, layers, and errors in one shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from tunesmith import __version__
from tunesmith.errors import UserError
from tunesmith.records import Interaction
from tunesmith.serve.access_log import Write, with_access_log
from tunesmith.serve.admission import with_deadline
from tunesmith.serve.api_chat import CHAT
from tunesmith.serve.api_server import FEEDBACK, SERVER
from tunesmith.serve.api_tokens import TOKENS
from tunesmith.serve.auth import require_key
from tunesmith.serve.chat import ChatCompletions
from tunesmith.serve.completions import Completions
from tunesmith.serve.disk import require_room
from tunesmith.serve.embeddings import embed
from tunesmith.serve.engine import Engine
from tunesmith.serve.envelope import with_request_id
from tunesmith.serve.feedback import FeedbackBook, FeedbackEndpoint
from tunesmith.serve.key_ring import KeyRing, known_keys
from tunesmith.serve.limits import DEFAULT_LIMITS, Limits
from tunesmith.serve.metrics import Metrics, metrics_page, with_metrics
from tunesmith.serve.openapi import api_document
from tunesmith.serve.own_names import check_names, require_own_name
from tunesmith.serve.quotas import within_quotas
from tunesmith.serve.refusal import Refusal, clipped, json_response, no_such_path, refusal_of, refusal_response
from tunesmith.serve.router import Registry
from tunesmith.serve.scopes import Door, admin_door, door_of
from tunesmith.serve.service import Service
from tunesmith.serve.tokens import TokenizerInfo, detokenize, tokenize

if TYPE_CHECKING:
    from tunesmith.serve.tuning import Tuning
    from tunesmith.store.keys import Keys

__all__ = ["create_admin_app", "create_app"]

_CLOSE_PATIENCE_S = 2.0
_MAX_SILENCE_S = 300.0
"""Longer than any step: an engine that is stiller than this will not wake."""


def create_app(
    engines: Mapping[str, Engine],
    *,
    api_key: str | Sequence[str] | None,
    keys: Keys | None = None,
    allowed_hosts: Collection[str] = (),
    on_interaction: Callable[[Interaction], None] | None = None,
    access_log: Write | None = None,
    feedback: FeedbackBook | None = None,
    dropped: Callable[[], Mapping[str, int]] | None = None,
    disk: Path | None = None,
    registry: Registry | None = None,
    tuning: Tuning | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> FastAPI:
    """Make the API over some engines.

    Args:
        engines: by the name that clients ask for; each is also found by its `ref`. One engine may have several names.
        api_key: one or more keys that open everything.
        keys: the ledger's. With neither these nor `api_key` the door stands open, and the server can listen on this machine only.
        allowed_hosts: names by which clients may call the server, beside this machine's own; `*` is any, and needs keys.
        on_interaction: given each finished answer, on the engine's thread, before the client has its end. What it raises is
            logged, and the client has its answer all the same.
        access_log: given a line for each request that has ended, on the event loop.
        feedback: keeps what is said of answers; without it there is no `/v1/feedback`.
        dropped: how many rows the log of answers has lost, by what was lost; for the metrics.
        disk: the folder in which answers and feedback are kept; the server is not ready while it has no room.
        registry: says which versions are served beside the engines, and loads them.
        tuning: runs fine-tuning jobs; None: there are no files and no jobs here.
        limits: how much is taken on.

    Raises:
        UserError: no engines, a key that no client could send, or a name that is none.
    """
    ring = KeyRing(known_keys(api_key), keys=keys)
    names = check_names(allowed_hosts, has_keys=ring.guards)
    service = Service(engines, on_interaction=on_interaction, registry=registry, limits=limits)

    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=partial(_lifespan, service, poll_s=limits.poll_s))
    app.state.service = service
    app.state.has_key = ring.guards
    app.state.doors = _Doors(ring, keys, names, access_log)
    app.state.metrics = Metrics(lambda: service.lanes, dropped=dropped)
    app.state.api = [CHAT, TOKENS, SERVER]
    _add_routes(app, service, feedback=feedback, tuning=tuning, limits=limits)
    _add_health_routes(app, service, ring=ring, disk=disk)
    _answer_head(app)
    # The last added is the outermost.
    app.add_middleware(with_deadline, request_timeout_s=limits.request_timeout_s)
    app.add_middleware(within_quotas)
    _add_layers(app, app.state.doors, door_of=door_of)
    app.add_middleware(with_metrics, metrics=app.state.metrics, routes=app.router.routes)
    _add_outermost(app, app.state.doors)
    return app


@asynccontextmanager
async def _lifespan(service: Service, _: FastAPI, *, poll_s: float) -> AsyncIterator[None]:
    """Follow the registry as long as the server runs."""
    following = asyncio.create_task(service.follow(poll_s=poll_s))
    yield
    following.cancel()
    await asyncio.to_thread(service.close, patience_s=_CLOSE_PATIENCE_S)


def create_admin_app(app: FastAPI, *, drain: Callable[[], None]) -> FastAPI:
    """Make the operator's API beside a public one, with the same keys; the quotas of a key do not count here.

    Args:
        app: made by `create_app`.
        drain: begins to stop the server.

    Raises:
        UserError: no key guards the server.
    """
    from tunesmith.serve.admin import add_key_routes, add_service_routes

    doors: _Doors = app.state.doors
    if not doors.ring.guards:
        raise UserError("the admin port needs keys: leave out --no-auth, or --admin-port")
    admin = FastAPI(openapi_url=None, redirect_slashes=False)
    add_service_routes(admin, app.state.service, drain=drain)
    if doors.keys is not None:
        add_key_routes(admin, doors.keys, doors.ring)
    _answer_head(admin)
    _add_layers(admin, doors, door_of=admin_door)
    _add_outermost(admin, doors)
    return admin


class _Doors(NamedTuple):
    """Who may come in, by which names, and who is told: the same at both ports."""

    ring: KeyRing
    keys: Keys | None
    names: frozenset[str]
    access_log: Write | None


def _add_layers(app: FastAPI, doors: _Doors, *, door_of: Callable[[str], Door]) -> None:
    app.add_exception_handler(Refusal, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    if doors.ring.guards:
        app.add_middleware(require_key, ring=doors.ring, door_of=door_of)
    app.add_middleware(require_own_name, names=doors.names, has_keys=doors.ring.guards)


def _add_outermost(app: FastAPI, doors: _Doors) -> None:
    app.add_middleware(with_request_id)
    if doors.access_log is not None:
        app.add_middleware(with_access_log, write=doors.access_log)


async def _describe(request: Request) -> Response:
    return json_response(api_document(request.app.state.api, has_key=request.app.state.has_key))


def _add_routes(app: FastAPI, service: Service, *, feedback: FeedbackBook | None, tuning: Tuning | None, limits: Limits) -> None:
    chat = ChatCompletions(service, max_body_bytes=limits.max_body_bytes, keep_alive_s=limits.keep_alive_s)
    app.router.routes.append(Route("/v1/chat/completions", chat, methods=["POST"]))
    _add_token_routes(app, service, max_body_bytes=limits.max_body_bytes, keep_alive_s=limits.keep_alive_s)
    _add_model_routes(app, service)
    app.router.routes.append(Route("/metrics", metrics_page(app.state.metrics), methods=["GET"]))
    app.router.routes.append(Route("/openapi.json", _describe, methods=["GET"]))
    if feedback is not None:
        app.state.api.append(FEEDBACK)
        endpoint = FeedbackEndpoint(feedback, max_body_bytes=limits.max_body_bytes)
        app.router.routes.append(Route("/v1/feedback", endpoint, methods=["POST"]))
    if tuning is not None:
        from tunesmith.serve.api_tuning import TUNING
        from tunesmith.serve.fine_tuning import add_tuning_routes  # with SQLAlchemy, which a server without jobs need not load

        app.state.api.append(TUNING)
        add_tuning_routes(app, tuning, max_body_bytes=limits.max_body_bytes, max_file_bytes=limits.max_file_bytes)


def _answer_head(app: FastAPI) -> None:
    """Monitors ask for the head alone; of its own the framework answers that on half of the routes."""
    for route in app.router.routes:
        if isinstance(route, Route) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")


def _add_token_routes(app: FastAPI, service: Service, *, max_body_bytes: int, keep_alive_s: float) -> None:
    completions = Completions(service, max_body_bytes=max_body_bytes, keep_alive_s=keep_alive_s)
    app.router.routes.extend(
        [
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/embeddings", embed(service, max_body_bytes=max_body_bytes), methods=["POST"]),
            Route("/tokenize", tokenize(service, max_body_bytes=max_body_bytes), methods=["POST"]),
            Route("/detokenize", detokenize(service, max_body_bytes=max_body_bytes), methods=["POST"]),
            Route("/tokenizer_info", TokenizerInfo(service), methods=["GET"]),
        ]
    )


def _add_model_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=None)
    async def list_models() -> Response:
        return json_response({"object": "list", "data": service.cards()})

    @app.get("/v1/models/{name:path}", response_model=None)
    async def show_model(name: str) -> Response:
        return json_response(service.card(name))


def _add_health_routes(app: FastAPI, service: Service, *, ring: KeyRing, disk: Path | None) -> None:
    @app.get("/version", response_model=None)
    async def tell_version() -> Response:
        return json_response({"version": __version__})

    @app.get("/livez", response_model=None)
    @app.get("/health", response_model=None)
    async def is_alive() -> Response:
        if service.silence_s > _MAX_SILENCE_S:
            raise Refusal("A model has work and does nothing.", status=503, code="stuck")
        return json_response({"status": "alive"})

    @app.get("/readyz", response_model=None)
    async def is_ready() -> Response:
        if service.is_stopping or service.is_draining:
            raise Refusal("The server is stopping.", status=503, code="stopping")
        if not service.is_ready:
            raise Refusal("The model is not loaded yet.", status=503, code="loading")
        await ring.require_ledger()
        if disk is not None:
            await asyncio.to_thread(require_room, disk)
        return json_response({"status": "ready"})


async def _on_error(request: Request, error: Exception) -> Response:
    return refusal_response(refusal_of(error, request_id=request.state.request_id))


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The framework's own 404 and 405."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return refusal_response(no_such_path(request.scope, headers=error.headers))
    known = ", ".join(_methods_of(request))
    message = f"{request.method} {clipped(request.scope['path'])} is not possible; this path knows {known}."
    headers = {**(error.headers or {}), "Allow": known}
    return refusal_response(Refusal(message, status=error.status_code, code="method_not_allowed", headers=headers))


def _methods_of(request: Request) -> list[str]:
    """All that a path knows; the framework names those of its first route alone."""
    routes = [route for route in request.app.router.routes if isinstance(route, Route)]
    here = [route for route in routes if route.matches(request.scope)[0] is Match.PARTIAL]
    return sorted({method for route in here for method in route.methods or ()})

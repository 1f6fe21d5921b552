"""The operator's port: what is served, stopping, and keys. Its address is this machine's own unless told otherwise.

Nothing of it is on the public port. Each request needs a key of scope `admin`, and the layers are those of the public port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tunesmith.errors import NotFound, UserError
from tunesmith.serve.body import read_body
from tunesmith.serve.fields import Fields, Problems
from tunesmith.serve.json_body import read_json
from tunesmith.serve.key_ring import KeyRing
from tunesmith.serve.refusal import Refusal, clipped, json_response
from tunesmith.serve.service import Service
from tunesmith.store.api_keys import MAX_QUOTA, ApiKey, Quotas, Scope
from tunesmith.store.keys import MAX_DAYS, Keys

__all__ = ["add_key_routes", "add_service_routes"]

_MAX_BODY_BYTES = 64 * 1024
_KEY = frozenset({"name", "scopes", "expires_in_days", "quotas"})
_QUOTAS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


def add_service_routes(app: FastAPI, service: Service, *, drain: Callable[[], None]) -> None:
    """`/admin/v1/status`, `/admin/v1/reload` and `/admin/v1/drain`."""

    @app.get("/admin/v1/status", response_model=None)
    async def status() -> Response:
        return json_response(service.status())

    @app.post("/admin/v1/reload", response_model=None)
    async def reload() -> Response:
        return json_response(await service.refresh())

    @app.post("/admin/v1/drain", response_model=None)
    async def begin_to_drain() -> Response:
        if not service.is_stopping:  # a second signal would end answers under way; a second request must not
            drain()
        return json_response(service.status(), status=202)


def add_key_routes(app: FastAPI, keys: Keys, ring: KeyRing) -> None:
    """`/admin/v1/keys`. A secret is told once, in the answer to the request that makes its key."""

    @app.get("/admin/v1/keys", response_model=None)
    async def list_keys() -> Response:
        found = await run_in_threadpool(keys.all)
        return json_response({"object": "list", "data": [_shown(key) for key in found]})

    @app.post("/admin/v1/keys", response_model=None)
    async def create_key(request: Request) -> Response:
        given = _read_key(read_json(await read_body(request, max_bytes=_MAX_BODY_BYTES)))
        new = await _in_plain_words(lambda: keys.create(**given))
        ring.forget()
        return json_response(_shown(new.key) | {"key": new.secret}, status=201, headers={"cache-control": "no-store"})

    @app.delete("/admin/v1/keys/{ref}", response_model=None)
    async def revoke_key(ref: str) -> Response:
        revoked = await _in_plain_words(lambda: keys.revoke(ref))
        ring.forget()
        return json_response(_shown(revoked))


async def _in_plain_words(call: Callable[[], Any]) -> Any:
    try:
        return await run_in_threadpool(call)
    except NotFound as error:
        raise Refusal(clipped(str(error), 1000), status=404, code="not_found") from error
    except UserError as error:
        raise Refusal(clipped(str(error), 1000), code="invalid_value") from error


def _read_key(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refusal("The body must be a JSON object.", code="invalid_type")
    problems = Problems()
    fields = Fields(value, problems=problems)
    fields.check_names(_KEY, {})
    limits = Fields(fields.of_type("quotas", dict, "an object") or {}, problems=problems, where="quotas.")
    limits.check_names(frozenset(_QUOTAS), {})
    scopes = fields.of_type("scopes", list, "a list of strings")
    if scopes is not None and not all(isinstance(scope, str) for scope in scopes):
        fields.wrong("scopes", "must hold strings only", code="invalid_type")
    days = fields.of_type("expires_in_days", (int, float), "a number")
    if days is not None and not 0 < days <= MAX_DAYS:
        fields.wrong("expires_in_days", f"must be above 0 and at most {MAX_DAYS:,}")
    read = {
        "name": fields.text("name", required=True),
        "scopes": [Scope.INFER] if scopes is None else scopes,
        "days": days,
    }
    quotas = {name: limits.whole(name, low=1, high=MAX_QUOTA) for name in _QUOTAS}
    problems.raise_if_any()
    return read | {"quotas": Quotas(**quotas)}


def _shown(key: ApiKey) -> dict[str, Any]:
    shown = asdict(key) | {"scopes": sorted(key.scopes), "is_good": key.is_good()}
    del shown["digest"]
    return shown

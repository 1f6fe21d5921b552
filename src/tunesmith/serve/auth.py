"""Who may come in: a plain ASGI layer before every route, so that a new path is guarded until somebody opens it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.serve.key_ring import KeyRing
from tunesmith.serve.refusal import Refusal, no_such_path, refusal_response
from tunesmith.serve.scopes import OPEN_PATHS, Door, door_of
from tunesmith.store.api_keys import ApiKey

__all__ = ["require_key"]


def require_key(app: ASGIApp, *, ring: KeyRing, door_of: Callable[[str], Door] = door_of) -> ASGIApp:
    """Let only requests through whose key opens their path. The key is kept in `scope["state"]`, without its secret."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS:
            await app(scope, receive, send)
            return
        try:
            scope["state"]["key"] = await _key_of(scope, ring=ring, door=door_of(scope["path"]))
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, send)
            return
        await app(scope, receive, send)

    return guarded


async def _key_of(scope: Scope, *, ring: KeyRing, door: Door) -> ApiKey:
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, secret = sent[0].partition(b" ") if len(sent) == 1 else (b"", b"", b"")
    key = await ring.find(secret.strip()) if scheme.lower() == b"bearer" else None
    if key is None:
        message = "A valid API key is needed: Authorization: Bearer <key>."
        raise Refusal(message, status=401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
    scope["state"]["key"] = key
    if not key.scopes & door.scopes:
        if not door.is_listed:
            raise no_such_path(scope)
        raise Refusal(
            f"This needs a key of scope {' or '.join(sorted(door.scopes))}; this key has {', '.join(sorted(key.scopes))}.",
            status=403,
            code="permission_denied",
        )
    return key

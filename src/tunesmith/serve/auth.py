"""Who may come in: plain ASGI layers before every route, so that a new path is guarded until somebody opens it."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.errors import UserError
from tunesmith.serve.refusal import Refusal, refusal_response

__all__ = ["OPEN_PATHS", "known_keys", "require_key", "require_local_host"]

OPEN_PATHS = frozenset({"/livez", "/readyz"})


def known_keys(api_key: str | Sequence[str] | None) -> tuple[bytes, ...]:
    """The keys that open the door; none at all means that it stands open.

    Raises:
        UserError: a key is empty or has a space in it, which no client could send.
    """
    keys = () if api_key is None else (api_key,) if isinstance(api_key, str) else tuple(api_key)
    if api_key is not None and (not keys or not all(key and not any(c.isspace() for c in key) for key in keys)):
        raise UserError("an API key must not be empty or contain spaces; leave it out to serve on this machine without one")
    return tuple(key.encode() for key in keys)


def require_key(app: ASGIApp, *, keys: Sequence[bytes]) -> ASGIApp:
    """Let only requests through that carry one of the keys, except to the open paths."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS or _has_key(scope, keys):
            await app(scope, receive, send)
            return
        refusal = Refusal(
            "A valid API key is needed: Authorization: Bearer <key>.",
            status=401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refusal_response(refusal)(scope, receive, send)

    return guarded


def require_local_host(app: ASGIApp) -> ASGIApp:
    """Refuse requests whose Host header names another machine.

    A web page can point its own domain at 127.0.0.1 (DNS rebinding, as in CVE-2024-28224) and so reach a server without a key
    through the visitor's browser; the Host header still tells.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_local(HTTPConnection(scope).headers.getlist("host")):
            await app(scope, receive, send)
            return
        message = "This server answers under the names of this machine only: localhost, 127.0.0.1, [::1]."
        await refusal_response(Refusal(message, status=421, code="host_not_allowed"))(scope, receive, send)

    return guarded


def _has_key(scope: Scope, keys: Sequence[bytes]) -> bool:
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(sent) != 1:
        return False
    scheme, _, key = sent[0].partition(b" ")
    # Every key is compared, whichever fits: the time tells nothing.
    fits = [secrets.compare_digest(key.strip(), known) for known in keys]
    return scheme.lower() == b"bearer" and any(fits)


def _is_local(hosts: Sequence[str]) -> bool:
    if len(hosts) != 1:
        return False
    name = hosts[0].lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

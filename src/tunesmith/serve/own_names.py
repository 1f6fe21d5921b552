"""Whom a request is addressed to, and from where: what a web page makes a visitor's browser send is refused.

A page can point its own domain at this machine (DNS rebinding, as in CVE-2024-28224); the Host header still tells. A page of another
origin can post a form, or with a client's key in its hands anything; the Origin header tells, and the type of the body, which no form
can say is JSON. There is no CORS. Requests that two parsers could read differently are refused too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.errors import UserError
from tunesmith.serve.refusal import Refusal, clipped, refusal_response

__all__ = ["check_names", "name_of_host", "require_json", "require_own_name"]

ANY_NAME = "*"
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|[0-9a-f:.]{2,45}")
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ONCE = ("content-type", "content-length", "transfer-encoding", "origin")
_FORM_PATHS = frozenset({"/v1/files"})
"""Uploads are forms, as the official clients send them; they need a key or the right Origin all the same."""


def check_names(names: Collection[str], *, has_keys: bool) -> frozenset[str]:
    """The names by which a server may be called, as they are compared.

    Raises:
        UserError: one is no name of a host, or all are allowed where no key guards the server.
    """
    checked = frozenset(name.lower().strip().removeprefix("[").removesuffix("]").rstrip(".") for name in names)
    if ANY_NAME in checked and not has_keys:
        raise UserError("without an API key the server answers to names that are told, not to any: --allowed-host NAME")
    for name in checked - {ANY_NAME}:
        if not _NAME.fullmatch(name):
            raise UserError(f"{name[:80]!r} is no name of a host: --allowed-host takes one such as chat.example, without a port")
    return checked


def require_own_name(app: ASGIApp, *, names: frozenset[str], has_keys: bool) -> ASGIApp:
    """Refuse what is addressed to another name, comes from a page of another origin, or can be read in two ways.

    Args:
        app: what is guarded.
        names: beside those of this machine (localhost, 127.0.0.1, [::1]); from `check_names`.
        has_keys: with keys the address that the connection came to is a name too. A browser cannot be led there by a name.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        try:
            _check(HTTPConnection(scope), names=names, has_keys=has_keys)
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, send)
            return
        await app(scope, receive, send)

    return guarded


def require_json(headers: Sequence[str]) -> None:
    """Refuse a body that does not say it is JSON.

    Raises:
        Refusal: 415.
    """
    if len(headers) != 1 or headers[0].partition(";")[0].strip().lower() != "application/json":
        raise Refusal("Send the body as JSON, with Content-Type: application/json.", status=415, code="unsupported_media_type")


def _require_plain(encodings: Sequence[str]) -> None:
    if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
        message = f"Send the body as it is: Content-Encoding {clipped(', '.join(encodings))!r} is not read here."
        raise Refusal(message, status=415, code="unsupported_media_type", headers={"Accept-Encoding": "identity"})


def name_of_host(host: str) -> str:
    """The name in a Host header or in an origin, without its port; empty where there is none."""
    host = host.lower()
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].rstrip(".")


def _check(request: HTTPConnection, *, names: frozenset[str], has_keys: bool) -> None:
    headers = request.headers
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _is_ours(name_of_host(hosts[0]), request.scope, names=names, has_keys=has_keys):
        told = (f"[{name}]" if ":" in name else name for name in sorted(names))
        known = ", ".join(dict.fromkeys(["localhost", "127.0.0.1", "[::1]", *told]))
        message = f"This server answers under these names only: {known}. `tunesmith serve --allowed-host NAME` adds one."
        raise Refusal(message, status=421, code="host_not_allowed", headers={"Connection": "close"})
    repeated = [name for name in _ONCE if len(headers.getlist(name)) > 1]
    if repeated or ("transfer-encoding" in headers and "content-length" in headers):
        message = f"The headers are ambiguous: {', '.join(repeated) or 'transfer-encoding and content-length'}."
        raise Refusal(message, code="ambiguous_headers", headers={"Connection": "close"})
    if request.scope["method"] not in _CHANGING:
        return
    if "origin" in headers and not _is_same_origin(headers["origin"], host=hosts[0]):
        message = f"Pages of {clipped(headers['origin'])!r} may not use this server; there is no CORS here."
        raise Refusal(message, status=403, code="origin_not_allowed")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if has_body and request.scope["method"] != "DELETE":
        _require_plain(headers.getlist("content-encoding"))
        kinds = headers.getlist("content-type")
        is_form = len(kinds) == 1 and kinds[0].lower().startswith("multipart/form-data")
        if not (is_form and request.scope["path"] in _FORM_PATHS):
            require_json(kinds)


def _is_ours(name: str, scope: Scope, *, names: frozenset[str], has_keys: bool) -> bool:
    if name == "localhost" or name in names or (ANY_NAME in names and has_keys):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    came_to = (scope.get("server") or ("",))[0].partition("%")[0]
    return address.is_loopback or (has_keys and bool(came_to) and address == ipaddress.ip_address(came_to))


def _is_same_origin(origin: str, *, host: str) -> bool:
    """The scheme is not compared: before us a proxy may speak TLS."""
    try:
        return urlsplit(origin.lower()).netloc == host.lower() != ""
    except ValueError:
        return False

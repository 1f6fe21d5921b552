"""Where the server listens. Off this machine only with a key."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Sequence

from tunesmith.errors import UserError

__all__ = ["bind", "check_bind", "url_of"]


def check_bind(host: str, api_key: str | Sequence[str] | None) -> None:
    """Refuse to listen where others can reach the server unless a key guards it. Names are resolved.

    Raises:
        UserError: the address is not this machine's own and there is no key, or the name does not resolve.
    """
    if not api_key:
        for _, address in _addresses(host, 0):
            _refuse_public(address[0], host=host)


def bind(host: str, port: int, *, has_key: bool) -> socket.socket:
    """Take the address. What is checked is the address that was taken, so a name cannot resolve differently in between.

    Args:
        host: a name or an address; a name with several takes the first, IPv4 before IPv6.
        port: 0 takes any free one.
        has_key: whether a key guards the server.

    Raises:
        UserError: the port is in use or needs privileges, the address is not ours, or it is public and there is no key.
    """
    family, address = _addresses(host, port)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there the option would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if not has_key:
            _refuse_public(sock.getsockname()[0], host=host)
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise _explained(error, host=host, port=port) from error
    except UserError:
        sock.close()
        raise
    return sock


def url_of(sock: socket.socket) -> str:
    """The address as a URL that a client on this machine can use."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(f"the host {host!r} does not resolve to an address ({error}); 127.0.0.1 is this machine") from error
    usable = sorted(((family, address[:2]) for family, *_, address in found), key=lambda entry: entry[0] != socket.AF_INET)
    return [(family, (str(name), int(number))) for family, (name, number) in usable]


def _refuse_public(address: str, *, host: str) -> None:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    if not (mapped or ip).is_loopback:
        where = f"{host!r} ({address})" if host != address else address
        raise UserError(
            f"without an API key the server would answer anybody who can reach {where}. "
            "Set one with --api-key or TUNESMITH_API_KEY, or listen on 127.0.0.1 only"
        )


def _explained(error: OSError, *, host: str, port: int) -> UserError:
    place = f"port {port} on {host or 'all addresses'}"
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"{place} is in use by another program. Stop that one, or choose another port; --port 0 takes any free one"
        )
    if error.errno == errno.EACCES:
        return UserError(f"{place} needs privileges that this user has not; choose a port from 1024 up")
    return UserError(f"cannot listen on {place}: {error.strerror or error}. Is that an address of this machine?")

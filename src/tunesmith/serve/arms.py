"""Which version of several answers a request, so that one user always meets the same one.

Every version draws a number for every user by a hash, and the largest for its share wins (weighted rendezvous hashing: Schindelhauer and
Schomaker 2005, SPAA). A share that grows from 5 % to 10 % keeps its users and takes others only from those that shrink; no
table is kept, and every process agrees. The version is in the hash, so that the next trial meets other users than the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from starlette.requests import HTTPConnection
from starlette.types import Scope

__all__ = ["Route", "choose_arm", "sticky_key"]


class Route(NamedTuple):
    """What a name stands for."""

    deployment: str
    """The alias, such as `boutique@champion`."""
    version: str
    """The one it points to; its own share of the traffic is among `arms`."""
    arms: Mapping[str, float]
    """Shares of the traffic by version, 1 together. One with a share of 0 is a shadow: it gets copies, and nobody sees its answers."""

    @property
    def shadows(self) -> tuple[str, ...]:
        return tuple(ref for ref, share in self.arms.items() if not share)

    @property
    def answering(self) -> dict[str, float]:
        """The arms without the shadows."""
        return {ref: share for ref, share in self.arms.items() if share}


def choose_arm(arms: Mapping[str, float], *, key: str) -> str:
    """The version that answers whoever has this key.

    >>> choose_arm({"boutique@2": 0.9, "boutique@3": 0.1}, key="user:ada")
    'boutique@2'
    """
    return max(arms, key=lambda ref: (arms[ref] / -math.log(_draw(ref, key=key)), ref))


def sticky_key(scope: Scope, *, user: str = "") -> str:
    """What a user is told by: the request's `user`, else the header `x-session-id`, else the API key, else nothing but the request."""
    if user:
        return f"user:{user}"
    headers = HTTPConnection(scope).headers
    for header in ("x-session-id", "authorization"):
        if value := headers.get(header):
            return f"{header}:{value}"
    return f"request:{scope.get('state', {}).get('request_id', '')}"


def _draw(ref: str, *, key: str) -> float:
    """Above 0 and below 1, evenly: 52 bits, so that the largest does not round to 1."""
    digest = blake2b(f"{ref}\0{key}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest) >> 12) + 0.5) / 2**52

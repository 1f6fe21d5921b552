"""Which scope opens which path. What stands in no line is shown to keys of scope `admin` only: a new path is closed until it is listed."""

from __future__ import annotations

from typing import NamedTuple

from tunesmith.store.api_keys import ALL_SCOPES, Scope

__all__ = ["OPEN_PATHS", "Door", "admin_door", "door_of"]

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""For whoever asks, without a key."""


class Door(NamedTuple):
    """What a path needs."""

    scopes: frozenset[Scope]
    """Any of them opens it."""
    is_listed: bool = True
    """Whether others may know that it is there."""


_INFER = Door(frozenset({Scope.INFER}))
_TUNE = Door(frozenset({Scope.TUNE}))
_ADMIN = frozenset({Scope.ADMIN})
_DOORS = {
    "/v1/chat/completions": _INFER,
    "/v1/completions": _INFER,
    "/v1/embeddings": _INFER,
    "/v1/responses": _INFER,
    "/tokenize": _INFER,
    "/detokenize": _INFER,
    "/tokenizer_info": _INFER,
    "/v1/models": Door(frozenset({Scope.INFER, Scope.TUNE})),  # whoever tunes must see what has come of it
    "/v1/feedback": Door(frozenset({Scope.FEEDBACK})),
    "/v1/files": _TUNE,
    "/v1/fine_tuning": _TUNE,
    # Figures, and no text of anybody: whoever may ask may watch. A key with `infer` and a quota will do for Prometheus.
    "/metrics": Door(frozenset({Scope.INFER, Scope.ADMIN})),
    "/openapi.json": Door(ALL_SCOPES),
    "/version": Door(ALL_SCOPES),
    "/health": Door(ALL_SCOPES),  # vLLM's name for what `/livez` tells everybody
}


def door_of(path: str) -> Door:
    """What a path, or the nearest one above it that is listed, needs."""
    while path:
        if path in _DOORS:
            return _DOORS[path]
        path = path.rpartition("/")[0]
    return Door(_ADMIN, is_listed=False)


def admin_door(path: str) -> Door:  # noqa: ARG001 - the same for every path
    """What any path of the admin port needs."""
    return Door(_ADMIN)

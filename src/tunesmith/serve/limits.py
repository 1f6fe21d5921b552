"""How much a server takes on, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one server."""

    max_queue: int = 64
    """Requests waiting for one engine; more are refused with 503."""
    max_queue_tokens: int = 2**18
    """Prompt tokens, by an estimate, waiting for one engine; more are refused with 503."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Of a request."""
    max_file_bytes: int = 512 * 1024 * 1024
    """Of an uploaded file."""
    max_loaded: int = 4
    """Versions of a registry in memory at once; the champion's come first."""
    keep_alive_s: float = 15.0
    """Longest silence of a streamed answer."""
    request_timeout_s: float = 600.0
    """For a whole request, waiting included; then it ends with 504."""
    poll_s: float = 1.0
    """Between two looks at a registry."""


DEFAULT_LIMITS = Limits()

"""Whether the disk has room for what a server writes down."""

from __future__ import annotations

import os
from pathlib import Path

from tunesmith.serve.refusal import Refusal

__all__ = ["require_room"]

LEAST_ROOM_BYTES = 64 * 1024 * 1024


def require_room(folder: Path) -> None:
    """Look at the disk of a folder, or of the nearest one above it that exists.

    Raises:
        Refusal: 503, it is almost full, can only be read, or is gone. No path is told: whoever asks has no key.
    """
    place = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        found = os.statvfs(place)
    except OSError:
        raise Refusal("The server's disk cannot be looked at.", status=503, code="disk") from None
    if found.f_flag & os.ST_RDONLY:
        raise Refusal("The server's disk can only be read.", status=503, code="disk")
    if found.f_bavail * found.f_frsize < LEAST_ROOM_BYTES:
        message = "The server's disk is almost full: answers and feedback could not be kept."
        raise Refusal(message, status=503, code="disk")

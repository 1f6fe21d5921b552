"""Forgetting a user: what they asked of servers, what they were answered, and what was said of it."""

from __future__ import annotations

from tunesmith.errors import UserError
from tunesmith.store import RequestLog, Store

__all__ = ["erase_user"]


def erase_user(user: str, *, store: Store) -> int:
    """Remove a user from the request log, while a server goes on writing to it or not.

    Args:
        user: the name that clients sent.
        store: the workspace.

    Returns:
        How many answers are gone.

    Raises:
        UserError: no name, or the log cannot be written.
    """
    if not user:
        raise UserError("whose answers? The name is empty, and answers to nobody in particular have no name to be found by")
    if not store.requests.exists():
        return 0
    log = RequestLog(store.requests, keep_days=None)
    try:
        return log.erase_user(user)
    finally:
        log.close()

"""The keys that a running server knows: those given at its start, and those of the ledger, which are read again every few seconds."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunesmith.errors import UserError
from tunesmith.serve.refusal import Refusal
from tunesmith.store.api_keys import ALL_SCOPES, ApiKey, digest_of_key

if TYPE_CHECKING:
    from tunesmith.store.keys import Keys

__all__ = ["KeyRing", "known_keys"]

_LOG = logging.getLogger("tunesmith.serve")
FRESH_S = 5.0
"""A key that is revoked elsewhere opens nothing any more after so long."""
_STRANGER_S = 1.0
"""A key that was made elsewhere is good after so long; strangers make us read the ledger no more often."""
_GRACE_S = 300.0
"""Keys that are known stay good for so long while the ledger cannot be read."""


def known_keys(api_key: str | Sequence[str] | None) -> tuple[ApiKey, ...]:
    """The keys given at the start, which open everything. No part of one is logged: unlike ours it may be a short word.

    Raises:
        UserError: a key is empty or has a space in it, which no client could send.
    """
    secrets_ = () if api_key is None else (api_key,) if isinstance(api_key, str) else tuple(api_key)
    if api_key is not None and (not secrets_ or not all(one and not any(c.isspace() for c in one) for one in secrets_)):
        raise UserError("an API key must not be empty or contain spaces; leave it out, and a first key is made and printed")
    return tuple(
        ApiKey(prefix=f"given-{i}", digest=digest_of_key(one), name=f"given-{i}", scopes=ALL_SCOPES, created_at="")
        for i, one in enumerate(secrets_, start=1)
    )


class KeyRing:
    """Looks keys up. Used on the event loop only; the ledger is read on another thread."""

    def __init__(self, given: Sequence[ApiKey], *, keys: Keys | None) -> None:
        self._given = tuple(given)
        self._keys = keys
        self._by_digest: dict[str, ApiKey] = {}
        self._tried_at = self._read_at = -float("inf")
        self._reading = asyncio.Lock()
        self._noted: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def guards(self) -> bool:
        """Whether there are keys at all; without, the door stands open."""
        return bool(self._given) or self._keys is not None

    async def find(self, secret: bytes) -> ApiKey | None:
        """The good key of that secret.

        Raises:
            Refusal: 503, the ledger has not been readable for minutes.
        """
        digest = digest_of_key(secret)
        # Every one is compared, whichever fits: the time tells nothing.
        fits = [key for key in self._given if secrets.compare_digest(key.digest, digest)]
        if fits or self._keys is None:
            return fits[0] if fits else None
        await self._refresh(digest)
        key = self._by_digest.get(digest)
        if key is None or not key.is_good():
            return None
        self._note(key)
        return key

    async def require_ledger(self) -> None:
        """Look whether keys can be checked, no more often than for strangers.

        Raises:
            Refusal: as of `find`.
        """
        if self._keys is not None:
            await self._refresh("")

    def forget(self) -> None:
        """Read the ledger at the next request: this server has changed it."""
        self._tried_at = -float("inf")

    async def _refresh(self, digest: str) -> None:
        def is_due() -> bool:
            return time.monotonic() - self._tried_at > (FRESH_S if digest in self._by_digest else _STRANGER_S)

        if is_due():
            async with self._reading:
                if is_due():
                    await self._read()
        if time.monotonic() - self._read_at > _GRACE_S:
            message = "Keys cannot be checked at the moment. Try again later."
            raise Refusal(message, status=503, code="unavailable", headers={"Retry-After": "10"})

    async def _read(self) -> None:
        assert self._keys is not None
        began = time.monotonic()
        try:
            good = await asyncio.to_thread(self._keys.good)
        except Exception:
            _LOG.exception("the API keys cannot be read")
        else:
            self._by_digest, self._read_at = {key.digest: key for key in good}, began
        self._tried_at = began

    def _note(self, key: ApiKey) -> None:
        """Write down once an hour that a key is in use; nobody waits for it."""
        hour = datetime.now(UTC).strftime("%Y-%m-%dT%H")
        if self._noted.get(key.prefix) == hour or (key.last_used_at or "").startswith(hour):
            return
        self._noted[key.prefix] = hour
        task = asyncio.create_task(self._touch(key.prefix))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _touch(self, prefix: str) -> None:
        assert self._keys is not None
        try:
            await asyncio.to_thread(self._keys.touch, [prefix])
        except Exception:
            _LOG.exception("the use of a key could not be noted")

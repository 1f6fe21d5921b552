"""What an API key is: random, told once, and kept as the hash of itself. Knows no database.

A key reads `ts_` and 43 letters or digits, 256 random bits. Its first eight say which one it is, in lists and logs; the others are
208 bits that nobody can guess, so one SHA-256 keeps it as well as a slow hash would.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from tunesmith.errors import UserError

__all__ = ["ALL_SCOPES", "ApiKey", "Quotas", "Scope", "digest_of_key", "new_secret", "prefix_of"]

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NUM_BYTES = 32
_NUM_DIGITS = 43
"""So many of 62 hold 256 bits."""
_NUM_SHOWN = 8
_BEGINNING = "ts_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,62}")
MAX_QUOTA = 10**12


class Scope(StrEnum):
    """What a key opens."""

    INFER = "infer"
    """Ask the models."""
    FEEDBACK = "feedback"
    """Say what an answer was worth."""
    TUNE = "tune"
    """Upload files and start fine-tuning jobs."""
    ADMIN = "admin"
    """The admin port."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How much a key may use; None sets no limit. Each server counts for itself and from its start."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers, as they were in fact."""
    concurrent_requests: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_QUOTA:
                raise UserError(f"{name} must be between 1 and {MAX_QUOTA:,}, not {value:,}; left out, there is no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key without its secret. Times are UTC, ISO 8601."""

    prefix: str
    """The key's beginning: it names the key and opens nothing."""
    digest: str
    """SHA-256 of the whole key."""
    name: str
    """Whose it is, for people."""
    scopes: frozenset[Scope]
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None
    """To the hour."""
    quotas: Quotas = Quotas()

    def is_good(self, at: datetime | None = None) -> bool:
        """Whether it opens anything at a time, or now."""
        moment = at or datetime.now(UTC)
        return self.revoked_at is None and (self.expires_at is None or moment < datetime.fromisoformat(self.expires_at))


def new_secret() -> str:
    """A key that nobody has."""
    number = int.from_bytes(secrets.token_bytes(_NUM_BYTES))
    digits = []
    for _ in range(_NUM_DIGITS):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return _BEGINNING + "".join(digits)


def prefix_of(secret: str) -> str:
    """The beginning by which a key is named."""
    return secret[: len(_BEGINNING) + _NUM_SHOWN]


def digest_of_key(secret: str | bytes) -> str:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def check_key_name(name: str) -> None:
    """Refuse a name that would not read well in a list.

    Raises:
        UserError: it is one.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:80]!r} cannot name a key: use 1 to 63 letters, digits, blanks and . _ @ -, beginning with a letter or a digit"
        )

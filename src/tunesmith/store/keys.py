"""The API keys in the ledger. A key is told once, when it is made; what is kept cannot be turned back into it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from tunesmith.errors import NotFound, UserError
from tunesmith.store.api_keys import ApiKey, Quotas, Scope, check_key_name, digest_of_key, new_secret, prefix_of
from tunesmith.store.database import Database
from tunesmith.store.rows import now
from tunesmith.store.schema import api_keys

__all__ = ["Keys", "NewKey"]

MAX_DAYS = 36_500


class NewKey(NamedTuple):
    """A key at the only time that its secret is known."""

    secret: str
    key: ApiKey


class Keys:
    """The keys of one ledger. Rows are never deleted: what a log tells of a key can be looked up for ever."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, *, scopes: Collection[Scope | str], days: float | None = None, quotas: Quotas | None = None
    ) -> NewKey:
        """Make a key.

        Args:
            name: whose it is; two good keys cannot have one name.
            scopes: what it opens; one at least.
            days: how long it is good; None for ever.
            quotas: how much it may use; None sets no limit.

        Raises:
            UserError: a name, scope or time that cannot be, or a good key has this name.
        """
        check_key_name(name)
        if days is not None and not 0 < days <= MAX_DAYS:
            raise UserError(f"a key can be good for up to {MAX_DAYS:,} days, and more than 0; got {days:g}")
        secret, created = new_secret(), datetime.now(UTC).replace(microsecond=0)
        key = ApiKey(
            prefix=prefix_of(secret),
            digest=digest_of_key(secret),
            name=name,
            scopes=_scopes(scopes),
            created_at=created.isoformat(),
            expires_at=None if days is None else (created + timedelta(days=days)).isoformat(timespec="seconds"),
            quotas=quotas or Quotas(),
        )
        with self._database.write() as connection:
            if any(other.name == name and other.is_good() for other in _keys_in(connection)):
                raise UserError(f"there is a key {name!r} already. Revoke it, or take another name")
            connection.execute(sa.insert(api_keys).values(_row_of(key)))
        return NewKey(secret, key)

    def all(self) -> list[ApiKey]:
        """Every key there ever was, oldest first."""
        with self._database.read() as connection:
            return _keys_in(connection)

    def good(self) -> list[ApiKey]:
        """The keys that open something now, oldest first."""
        return [key for key in self.all() if key.is_good()]

    def revoke(self, ref: str) -> ApiKey:
        """Let a key open nothing any more, for ever. A running server knows it within seconds.

        Args:
            ref: its beginning (`ts_` and eight more) or its name.

        Raises:
            NotFound: no good key is called so.
        """
        with self._database.write() as connection:
            good = [key for key in _keys_in(connection) if key.is_good()]
            found = [key for key in good if ref in (key.prefix, key.name)]
            if not found:
                known = ", ".join(f"{key.name} ({key.prefix})" for key in good[:5]) or "there is none"
                # Somebody may well paste a whole key here.
                raise NotFound(f"no good key is called {prefix_of(ref)!r}. Good keys: {known}; `tunesmith keys list` lists all")
            revoked = replace(found[0], revoked_at=now())
            connection.execute(
                sa.update(api_keys).where(api_keys.c.prefix == revoked.prefix).values(revoked_at=revoked.revoked_at)
            )
        return revoked

    def touch(self, prefixes: Iterable[str]) -> None:
        """Note that keys are in use, to the hour."""
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0).isoformat()
        with self._database.write() as connection:
            connection.execute(sa.update(api_keys).where(api_keys.c.prefix.in_(list(prefixes))).values(last_used_at=hour))


def _scopes(names: Collection[Scope | str]) -> frozenset[Scope]:
    known = ", ".join(Scope)
    if not names:
        raise UserError(f"a key needs a scope, or it opens nothing. Known: {known}")
    if unknown := [name for name in names if name not in list(Scope)]:
        raise UserError(f"there is no scope {str(unknown[0])[:64]!r}. Known: {known}")
    return frozenset(Scope(name) for name in names)


def _keys_in(connection: sa.Connection) -> list[ApiKey]:
    return [_key_of(row) for row in connection.execute(sa.select(api_keys).order_by(api_keys.c.id))]


def _row_of(key: ApiKey) -> dict[str, Any]:
    quotas = {name: value for name, value in asdict(key.quotas).items() if value is not None}
    return {**asdict(key), "scopes": sorted(key.scopes), "quotas": quotas}


def _key_of(row: sa.Row[Any]) -> ApiKey:
    columns = {name: value for name, value in row._mapping.items() if name != "id"}
    return ApiKey(**{**columns, "scopes": frozenset(map(Scope, row.scopes)), "quotas": Quotas(**row.quotas)})

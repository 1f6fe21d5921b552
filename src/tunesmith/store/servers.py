"""A ledger on PostgreSQL: what its URL may be, one writer at a time, and errors that say what to do and never the password."""

from __future__ import annotations

import re
from importlib.util import find_spec

import sqlalchemy as sa
from sqlalchemy import exc

from tunesmith.errors import MissingExtra, OutOfSpace, TunesmithError, UserError, is_out_of_space

__all__ = ["PATIENCE_S", "begin_writing", "place_of", "server_url", "translate"]

PATIENCE_S = 30
"""So long one writer waits for another."""
_WRITERS = 7_165_398_114_269_013_337
"""Key of the advisory lock that writers hold: any number will do that other programs are unlikely to use."""
_KINDS = frozenset({"postgres", "postgresql", "postgresql+psycopg"})


def server_url(text: str) -> sa.URL:
    """Read the URL of a server.

    Raises:
        UserError: it is no URL of a PostgreSQL database.
        MissingExtra: the driver is not installed.
    """
    kind = text.partition("://")[0]
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError) as error:
        raise UserError("the ledger's URL (TUNESMITH_LEDGER) cannot be read; write postgresql://USER@HOST/DATABASE") from error
    if kind not in _KINDS:
        raise UserError(
            f"a ledger cannot lie in {kind!r}: TUNESMITH_LEDGER takes postgresql://USER@HOST/DATABASE; left out, the ledger is a "
            "file of the workspace"
        )
    if find_spec("psycopg") is None:
        raise MissingExtra(
            "a ledger on PostgreSQL needs the package `psycopg`, which is not installed. "
            "Install it: pip install 'tunesmith[postgres]'"
        )
    query = {"connect_timeout": "10", "application_name": "tunesmith"} | dict(url.query)
    return url.set(drivername="postgresql+psycopg", query=query)


def begin_writing(connection: sa.Connection) -> None:
    """Wait for the other writers, and keep them waiting until this transaction ends, also while there are no tables yet."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{PATIENCE_S}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def place_of(url: sa.URL) -> str:
    """Where it is, for messages: without password and options."""
    bare = sa.URL.create("postgresql", username=url.username, host=url.host, port=url.port, database=url.database)
    return bare.render_as_string()


def translate(error: exc.DatabaseError, *, url: sa.URL) -> Exception:
    """The error that people see; as it was where it is our own fault."""
    said, code, place = _without_password(str(error.orig), url=url), getattr(error.orig, "sqlstate", None), place_of(url)
    if is_out_of_space(error):
        return OutOfSpace(f"no space left for the ledger {place}; nothing was changed. Free some space and try again")
    if code == "55P03":  # lock_not_available
        return TunesmithError(f"the ledger {place} was held by another process for {PATIENCE_S} s. Try again")
    if code in {"42501", "25006", "3F000"}:  # insufficient_privilege, read_only_sql_transaction, invalid_schema_name
        return UserError(f"cannot write the ledger {place} ({said}). Give the user the right to create and change tables there")
    if isinstance(error, exc.OperationalError):
        return UserError(f"cannot reach the ledger {place}: {said}. Check TUNESMITH_LEDGER, and that the server runs")
    return error


def _without_password(said: str, *, url: sa.URL) -> str:
    """What a driver says of its connection, on one line, with no secret of the URL in it."""
    secrets = [url.password, *(value for name, value in url.query.items() if "password" in name)]
    for secret in secrets:
        if secret:
            said = said.replace(str(secret), "***")
    return re.sub(r"\s+", " ", said).strip().rstrip(".?")

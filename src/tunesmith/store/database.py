"""Transactions on the ledger's database: its rules, its migrations and its errors. Knows no table by name.

A writer overlaps no other: on SQLite by `BEGIN IMMEDIATE`, on PostgreSQL by an advisory lock that is there before any table is.

SQLite keeps a rollback journal, not a WAL: the libraries in use still carry the WAL-reset bug (fixed in SQLite 3.51.3), and
the ledger writes a few rows a minute. `synchronous=EXTRA` is FULL that also flushes the folder after a commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import orjson
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

from tunesmith.errors import BrokenArtefact, OutOfSpace, TunesmithError, UserError, is_out_of_space
from tunesmith.store.digest import canonical_json
from tunesmith.store.folders import make_folder
from tunesmith.store.schema import HEAD, METADATA
from tunesmith.store.servers import begin_writing, place_of, server_url, translate

__all__ = ["Database"]

_SQLITE = "sqlite:///"
_BUSY_TIMEOUT_S = 30.0
_VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))


class Database:
    """Reads and writes as transactions. A database that does not exist reads as an empty one and is made by the first write."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for a server."""
        return Path(self.url.removeprefix(_SQLITE)) if self.url.startswith(_SQLITE) else None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view of everything; writes nothing, except migrations that are due to a ledger that is there."""
        if self.file is not None and not self.file.exists():
            with _empty_database() as connection:
                yield connection
            return
        with self._plain_errors(), self._engine.connect() as connection:
            found = _revision(connection)
            if found is None and self.file is None:
                with _empty_database() as nothing:
                    yield nothing
                return
            if found != HEAD:
                connection.rollback()  # lets go of the lock that the write needs
                with self.write():
                    pass
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer overlaps: all of it is kept when the block ends, or nothing."""
        with self._exclusive() as connection:
            # Migrations run under the same lock, so processes that meet a new workspace at once do not race.
            if _revision(connection) != HEAD:
                _migrate(connection, to=HEAD, place=self._place)
            yield connection

    def downgrade(self, revision: str) -> None:
        """Take the schema back, for an older tunesmith to read. The next use by this one brings it up again, without what is lost.

        Args:
            revision: `0002` loses the API keys; `0001` also the lineage of versions, the marks of quarantine, and of events the
                traffic, the reasons that were overruled and the rows of deleted versions; `base` removes the ledger.

        Raises:
            UserError: there is no such revision before this one.
        """
        with self._exclusive() as connection:
            _migrate(connection, to=revision, place=self._place, is_downgrade=True)

    def problems(self) -> list[str]:
        """What the database itself finds wrong with its pages and its references; empty when sound."""
        with self.read() as connection:
            if connection.dialect.name != "sqlite":
                return []
            pages = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
            references = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return pages + [f"{table}: row {row} refers to no row of {parent}" for table, row, parent, _ in references]

    @contextmanager
    def _exclusive(self) -> Iterator[sa.Connection]:
        if self.file is not None:
            make_folder(self.file.parent)
        # A snapshot that is taken before the lock would not see what the writer before us has done.
        options = {"isolation_level": "READ COMMITTED"} if self.file is None else {"immediate": True}
        with self._plain_errors(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            if self.file is None:
                begin_writing(connection)
            yield connection

    @cached_property
    def _url(self) -> sa.URL:
        # A path may hold any character, and a URL may not: the path is handed over beside it.
        return server_url(self.url) if self.file is None else sa.URL.create("sqlite", database=str(self.file))

    @property
    def _place(self) -> str:
        return str(self.file or place_of(self._url))

    @cached_property
    def _engine(self) -> sa.Engine:
        engine = sa.create_engine(
            self._url,
            poolclass=NullPool,  # nothing stays open between two calls: safe across threads and forks
            json_serializer=_to_json,
            json_deserializer=orjson.loads,
            **(
                {"isolation_level": "REPEATABLE READ"}  # one view for all that a block reads
                if self.file is None
                else {"connect_args": {"timeout": _BUSY_TIMEOUT_S}}
            ),
        )
        if self.file is not None:
            sa.event.listen(engine, "connect", _prepare_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except exc.DatabaseError as error:
            told = translate(error, url=self._url) if self.file is None else _translate(error, place=self._place)
            if told is error:
                raise
            raise told from error


def _to_json(value: object) -> str:
    return canonical_json(value).decode()


def _prepare_sqlite(connection: object, _record: object) -> None:
    import sqlite3

    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(f"expected a connection of the sqlite3 module, got {type(connection)}")
    # The driver would otherwise begin transactions by itself, too late and not for DDL.
    connection.isolation_level = None
    for pragma in ("journal_mode=DELETE", "synchronous=EXTRA", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("immediate") else "BEGIN")


@contextmanager
def _empty_database() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://", json_serializer=_to_json, json_deserializer=orjson.loads)
    try:
        with engine.connect() as connection:
            METADATA.create_all(connection)
            yield connection
    finally:
        engine.dispose()


def _revision(connection: sa.Connection) -> str | None:
    """The schema that a database has; None where it holds no ledger."""
    # Asked at every use: SQLAlchemy's inspector would ask several times as much.
    is_there = (
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
        if connection.dialect.name == "sqlite"
        else "SELECT to_regclass('alembic_version') IS NOT NULL"
    )
    if not connection.exec_driver_sql(is_there).scalar():
        return None
    return connection.scalar(sa.select(_VERSION.c.version_num))


def _migrate(connection: sa.Connection, *, to: str, place: str, is_downgrade: bool = False) -> None:
    # Alembic takes longer to import than the ledger needs for its work, so it is loaded only when there is work for it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    try:
        (command.downgrade if is_downgrade else command.upgrade)(config, to)
    except CommandError as error:
        if is_downgrade:
            raise UserError(f"the ledger {place} cannot be taken back to schema {to!r}: {error}") from error
        found = connection.scalar(sa.select(_VERSION.c.version_num))
        raise UserError(
            f"the ledger {place} has schema {found!r}, and this tunesmith knows schemas up to {HEAD!r}: "
            "it was written by a newer one. Upgrade tunesmith"
        ) from error


def _translate(error: exc.DatabaseError, *, place: str) -> Exception:
    said = str(error.orig)
    if is_out_of_space(error):
        return OutOfSpace(f"no space left for the ledger {place}; nothing was changed. Free some space and try again")
    if "readonly" in said or "unable to open" in said:
        return UserError(f"cannot write the ledger {place} ({said}). Check the owner and mode of the file and its folder")
    if "malformed" in said or "not a database" in said:
        return BrokenArtefact(f"the ledger {place} is damaged ({said}). Move it away and put a backup in its place")
    if "locked" in said:
        return TunesmithError(f"the ledger {place} was held by another process for {_BUSY_TIMEOUT_S:g} s. Try again")
    return error

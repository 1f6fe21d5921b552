"""The migrations build what the tables say, and a ledger of another age is treated well."""

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tunesmith.errors import BrokenArtefact, UserError
from tunesmith.records import ModelVersion
from tunesmith.store import Ledger, database
from tunesmith.store.replaying import read_differences
from tunesmith.store.schema import HEAD, METADATA, events


def make_ledger(folder: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    ledger.record_stage("key", stage="freeze", artefact="a1")
    return ledger


def test_the_newest_migration_is_the_one_the_tables_describe() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_migrations_build_exactly_the_tables(tmp_path: Path) -> None:
    with make_ledger(tmp_path).database.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        # compare_metadata does not look at checks, so SQLite is asked for the text of each table as well.
        made = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all())
    assert differences == []
    with database._empty_database() as connection:
        declared = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all())
    assert {name: made[name].split() for name in declared} == {name: sql.split() for name, sql in declared.items()}


def make_version() -> ModelVersion:
    return ModelVersion(
        name="boutique", number=0, run="r", artefact="a", weights_digest="w", chat_digest="c", base_digest="b",
        created_at="2026-11-21T10:00:00+00:00", lineage={"seed": "0"},
    )  # fmt: skip


def test_going_back_a_schema_and_up_again_loses_what_it_says_and_nothing_else(ledger: Ledger) -> None:
    ledger.record_stage("key", stage="freeze", artefact="a1")
    version = ledger.register(make_version())
    ledger.point(
        "boutique", alias="champion", version=1, because=["better"], actor="ada", expected_generation=0, overruled=["worse"]
    )
    before = ledger.events("boutique")
    ledger.database.downgrade("0001")
    with ledger.database._engine.connect() as connection:
        columns = {table: {c["name"] for c in sa.inspect(connection).get_columns(table)} for table in ("versions", "events")}
    assert not columns["versions"] & {"lineage", "state"}
    assert "details" not in columns["events"]
    assert ledger.versions() == [dataclasses.replace(version, lineage={})]
    assert ledger.events("boutique") == [dataclasses.replace(event, details={}) for event in before]
    assert (ledger.stage("key"), ledger.aliases("boutique")) == ("a1", {"champion": 1})
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), ledger.database.write() as connection:
        connection.execute(sa.delete(events))
    with ledger.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert read_differences(connection) == []


def test_going_back_to_the_beginning_removes_the_ledger_and_it_can_be_made_again(ledger: Ledger) -> None:
    ledger.register(make_version())
    ledger.database.downgrade("base")
    assert ledger.versions() == []
    assert ledger.register(make_version()).number == 1


def test_there_is_no_going_back_to_a_schema_that_never_was(ledger: Ledger) -> None:
    ledger.register(make_version())
    with pytest.raises(UserError, match="cannot be taken back to schema '0000'"):
        ledger.database.downgrade("0000")
    assert len(ledger.versions()) == 1


def test_an_error_of_the_database_within_a_migration_is_told_and_never_hangs(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(sa.exc.OperationalError, match="duplicate column"):
        ledger.versions()


def test_an_empty_file_left_by_a_kill_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert ledger.versions() == []
    ledger.record_stage("key", stage="freeze", artefact="a1")
    assert ledger.stage("key") == "a1"


def test_a_ledger_of_a_newer_tunesmith_is_refused_and_left_alone(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (tmp_path / "ledger.db").read_bytes()
    for use in (ledger.versions, lambda: ledger.record_stage("key", stage="freeze", artefact="a2")):
        with pytest.raises(UserError, match=r"schema '9999'.*Upgrade tunesmith"):
            use()
    assert (tmp_path / "ledger.db").read_bytes() == before


def test_the_database_is_set_up_to_survive_a_power_cut(tmp_path: Path) -> None:
    with make_ledger(tmp_path).database.write() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
        found |= {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("foreign_keys", "busy_timeout")}
    # sqlite.org/pragma.html: synchronous 2 is FULL, 3 is EXTRA.
    assert found == {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_damaged_ledger_is_told_from_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is no database, but long enough to be one" * 100)
    with pytest.raises(BrokenArtefact, match=r"ledger\.db is damaged"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}").versions()


def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(UserError, match=r"cannot write the ledger .*ledger\.db"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}").record_stage("key", stage="freeze", artefact="a1")

"""The migrations build what the tables say, and a ledger of another age is treated well."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tunesmith.errors import BrokenArtefact, UserError
from tunesmith.store import Ledger, database
from tunesmith.store.schema import HEAD, METADATA


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


def test_a_version_registered_before_lineage_was_kept_has_none(tmp_path: Path) -> None:
    values = "'boutique', 1, 'r', 'a', 'w', 'c', 'b', '2026-11-21T10:00:00+00:00', '{}', '[]'"
    ledger = make_ledger(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute("ALTER TABLE versions DROP COLUMN lineage")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.execute(
            "INSERT INTO versions (name, number, run, artefact, weights_digest, chat_digest, base_digest, created_at, metrics, reports) "
            f"VALUES ({values})"
        )
    assert [version.lineage for version in ledger.versions()] == [{}]
    assert ledger.stage("key") == "a1"


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

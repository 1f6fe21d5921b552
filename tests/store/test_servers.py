"""A ledger's URL, and what is said where it leads nowhere; the password never."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.errors import MissingExtra, UserError
from tunesmith.store import Ledger, Store, servers


def test_the_environment_says_where_the_ledger_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Store(tmp_path).ledger.database.url == f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("TUNESMITH_LEDGER", "postgresql://ada@db/registry")
    assert Store(tmp_path).ledger.database.url == "postgresql://ada@db/registry"


@pytest.mark.parametrize(
    "url", ["mysql://ada:s3cret@db/x", "s3cret", "postgresql+asyncpg://ada:s3cret@db/x", "postgresql://ada:s3cret@db:port/x"]
)
def test_a_url_that_is_none_of_ours_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UserError, match="TUNESMITH_LEDGER") as told:
        Ledger(url).versions()
    assert "s3cret" not in str(told.value)
    assert told.value.exit_code == 2


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[postgres\]'"):
        Ledger("postgresql://ada@db/registry").versions()


@pytest.mark.parametrize("rest", ["", "?sslpassword=t0psecret"])
def test_a_server_that_does_not_answer_is_told_without_the_password(rest: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(
        UserError, match=r"cannot reach the ledger postgresql://ada@127\.0\.0\.1:1/registry: .* TUNESMITH_LEDGER"
    ) as told:
        Ledger(f"postgresql://ada:s3cret@127.0.0.1:1/registry{rest}").record_stage("k", stage="s", artefact="a")
    assert "s3cret" not in str(told.value)
    assert "t0psecret" not in str(told.value)


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "models"],
        env={"TUNESMITH_LEDGER": "postgresql://ada:s3cret@127.0.0.1:1/registry", "PYTHONPATH": ":".join(sys.path), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "cannot reach the ledger" in done.stderr
    assert "s3cret" not in done.stderr


def test_looking_into_an_empty_database_makes_nothing(postgres_url: str) -> None:
    import psycopg

    ledger = Ledger(postgres_url)
    assert (ledger.versions(), ledger.stage("k"), ledger.database.problems()) == ([], None, [])
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()").fetchone() == (0,)


def test_a_user_without_rights_is_told_so(postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
    with pytest.raises(UserError, match="cannot write the ledger"):
        Ledger(postgres_url.replace("postgres:@", "reader:@")).record_stage("k", stage="s", artefact="a")


def test_events_cannot_be_truncated_either(postgres_url: str) -> None:
    import psycopg

    Ledger(postgres_url).record_stage("k", stage="s", artefact="a")
    with (
        psycopg.connect(postgres_url) as connection,
        pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append-only"),
    ):
        connection.execute("TRUNCATE events")

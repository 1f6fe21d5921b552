"""A real PostgreSQL for the tests of the ledger, and one empty schema of it for each test."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunesmith.store import Ledger

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """From the name of a database to its URL. The server lies in a folder of its own, listens on no port and ends with the tests."""
    pytest.importorskip("psycopg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import speaks of XDG_RUNTIME_DIR
        pgserver = pytest.importorskip("pgserver")
    folder = tmp_path_factory.mktemp("pg")
    for parent in (folder, *folder.parents):
        if os.geteuid() == 0 and parent.owner() == "root" and parent != Path("/tmp"):  # the server runs as another user
            parent.chmod(parent.stat().st_mode | 0o055)
    started = pgserver.get_server(folder, cleanup_mode="delete")
    yield started.get_uri
    started.cleanup()


@pytest.fixture
def postgres_url(server: Callable[[str], str]) -> Iterator[str]:
    """An empty schema: a database would take a second to make."""
    import psycopg

    name = f"t{next(_NUMBERS)}"
    with psycopg.connect(server("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    yield f"{server('postgres')}&options=-csearch_path%3D{name}"
    with psycopg.connect(server("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger's URL, of each kind of database."""
    return f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def ledger(url: str) -> Ledger:
    """One ledger per kind of database; a new kind is one more param with its URL."""
    return Ledger(url)

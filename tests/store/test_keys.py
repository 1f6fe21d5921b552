"""API keys, on every kind of database."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tunesmith.errors import NotFound, UserError
from tunesmith.store import Keys, Ledger, Quotas, Scope
from tunesmith.store.api_keys import digest_of_key, new_secret, prefix_of
from tunesmith.store.schema import api_keys


@pytest.fixture
def keys(ledger: Ledger) -> Keys:
    return Keys(ledger.database)


def test_a_key_is_read_back_as_it_was_made_but_for_its_secret(keys: Keys) -> None:
    assert keys.all() == []
    quotas = Quotas(requests_per_minute=60, tokens_per_minute=10_000, concurrent_requests=4)
    first = keys.create("shop", scopes=["infer", Scope.FEEDBACK], days=2, quotas=quotas)
    second = keys.create("ops", scopes=["admin"])
    assert keys.all() == keys.good() == [first.key, second.key]
    assert first.key.scopes == {Scope.INFER, Scope.FEEDBACK}
    assert first.key.quotas == quotas
    assert second.key.quotas == Quotas()
    assert second.key.expires_at is None
    assert first.key.expires_at is not None
    lifetime = datetime.fromisoformat(first.key.expires_at) - datetime.fromisoformat(first.key.created_at)
    assert lifetime == timedelta(days=2)


def test_a_key_is_256_random_bits_that_are_kept_nowhere(keys: Keys, ledger: Ledger) -> None:
    secret, key = keys.create("shop", scopes=["infer"])
    assert re.fullmatch(r"ts_[0-9A-Za-z]{43}", secret)
    assert (key.prefix, key.digest) == (secret[:11], digest_of_key(secret))
    assert len({new_secret() for _ in range(1000)}) == 1000
    with ledger.database.read() as connection:
        rows = str(connection.execute(sa.select(api_keys)).all())
    assert secret not in rows
    assert secret[11:] not in rows
    assert key.digest in rows


def test_a_revoked_key_is_good_no_more_and_still_listed(keys: Keys) -> None:
    first, second = (keys.create(name, scopes=["infer"]).key for name in ("first", "second"))
    assert keys.revoke(first.prefix).revoked_at
    assert keys.good() == [second]
    keys.revoke("second")
    assert keys.good() == []
    assert [key.revoked_at is not None for key in keys.all()] == [True, True]
    assert keys.create("second", scopes=["infer"]).key.name == "second", "its name is free again"


def test_a_key_ends_at_its_time(keys: Keys) -> None:
    key = keys.create("brief", scopes=["infer"], days=1.5 / 86_400).key
    assert key.expires_at is not None
    end = datetime.fromisoformat(key.expires_at)
    assert key.is_good(end - timedelta(seconds=1))
    assert not key.is_good(end)
    while datetime.now(UTC) < end:
        time.sleep(0.05)
    assert keys.good() == []
    with pytest.raises(NotFound):
        keys.revoke("brief")


def test_what_is_said_of_a_key_that_does_not_exist_holds_no_secret(keys: Keys) -> None:
    keys.create("shop", scopes=["infer"])
    stranger = new_secret()
    with pytest.raises(NotFound, match=r"Good keys: shop \(ts_") as told:
        keys.revoke(stranger)
    assert stranger not in str(told.value)
    assert prefix_of(stranger) in str(told.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("", {"scopes": ["infer"]}, "cannot name a key"),
        ("a\nb", {"scopes": ["infer"]}, "cannot name a key"),
        ("shop", {"scopes": []}, "needs a scope"),
        ("shop", {"scopes": ["root"]}, "no scope 'root'.*infer, feedback, tune, admin"),
        ("shop", {"scopes": ["infer"], "days": 0}, "days"),
        ("shop", {"scopes": ["infer"], "days": float("nan")}, "days"),
        ("shop", {"scopes": ["infer"], "days": 1e9}, "days"),
    ],
)
def test_a_key_that_cannot_be_is_refused(name: str, options: dict[str, object], said: str, keys: Keys) -> None:
    with pytest.raises(UserError, match=said):
        keys.create(name, **options)  # type: ignore[arg-type]
    assert keys.all() == []


def test_two_good_keys_cannot_have_one_name(keys: Keys) -> None:
    keys.create("shop", scopes=["infer"])
    with pytest.raises(UserError, match="already"):
        keys.create("shop", scopes=["admin"])


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrent_requests"])
def test_a_quota_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        Quotas(**{name: 0})


def test_use_is_noted_to_the_hour(keys: Keys) -> None:
    used, idle = (keys.create(name, scopes=["infer"]).key for name in ("used", "idle"))
    keys.touch([used.prefix])
    found = {key.name: key.last_used_at for key in keys.all()}
    assert found["idle"] is None
    assert found["used"] is not None
    moment = datetime.fromisoformat(found["used"])
    assert (moment.minute, moment.second) == (0, 0)
    assert timedelta() <= datetime.now(UTC) - moment < timedelta(hours=1, seconds=5)
    assert idle.last_used_at is None


def test_a_ledger_of_the_schema_before_gains_its_keys_and_loses_them_going_back(ledger: Ledger, keys: Keys) -> None:
    ledger.record_stage("key", stage="freeze", artefact="a1")
    keys.create("shop", scopes=["infer"])
    ledger.database.downgrade("0002")
    assert keys.all() == []
    assert ledger.stage("key") == "a1"
    assert keys.create("shop", scopes=["infer"]).key in keys.good()

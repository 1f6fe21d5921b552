"""Traffic, rolling back and deleting, on every kind of database."""

from __future__ import annotations

import math

import pytest

from tunesmith.errors import GateRefused, NotFound, UserError
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store import Ledger, current, delete, mark, remove_alias, replay, rollback
from tunesmith.store.replaying import read_differences


def register(ledger: Ledger, count: int, *, name: str = "m") -> None:
    for index in range(count):
        version = ModelVersion(
            name=name, number=0, run=str(index), artefact="a", weights_digest="", chat_digest="", base_digest="", created_at=""
        )
        ledger.register(version)


def promote(ledger: Ledger, version: int, *, alias: str = "champion", arms: dict[str, float] | None = None) -> Deployment:
    return ledger.point("m", alias=alias, version=version, because=["why"], actor="ada", expected_generation=None, arms=arms)


def back(ledger: Ledger, **options: object) -> Deployment:
    return rollback(ledger, "m", because=["worse"], actor="bob", **options)


def test_traffic_is_kept_with_the_alias_and_its_event(ledger: Ledger) -> None:
    register(ledger, 2)
    arms = {"m@1": 0.9, "m@2": 0.1}
    assert promote(ledger, 1, arms=arms).arms == arms
    assert ledger.deployment("m", "champion").arms == arms
    assert ledger.events("m")[-1].details == {"arms": arms}


@pytest.mark.parametrize(
    ("arms", "error", "told"),
    [
        ({"m@1": 0.9, "m@2": 0.2}, UserError, "sum to 1.1, not to 1: m@1=0.9, m@2=0.2"),
        ({"m@1": 0.5}, UserError, "sum to 0.5"),
        ({"m@1": 1.5, "m@2": -0.5}, UserError, "m@1 cannot have 1.5"),
        ({"m@1": 0.0, "m@2": 1.0}, UserError, "m@1 itself has no share"),
        ({"m@1": math.nan, "m@2": 0.5}, UserError, "m@1 cannot have nan"),
        ({"m@2": 1.0}, UserError, "m@1 itself has no share"),
        ({"m@1": 0.5, "m@9": 0.5}, NotFound, "m@9 cannot have traffic of m"),
        ({"m@1": 0.5, "other@1": 0.5}, NotFound, "other@1 cannot have traffic of m"),
    ],
)
def test_shares_that_are_none_are_refused_and_nothing_changes(
    ledger: Ledger, arms: dict[str, float], error: type[Exception], told: str
) -> None:
    register(ledger, 2)
    register(ledger, 1, name="other")
    before = ledger.events("m")
    with pytest.raises(error, match=told):
        promote(ledger, 1, arms=arms)
    assert (ledger.aliases("m"), ledger.events("m")) == ({}, before)


def test_a_share_of_nothing_is_kept_and_holds_its_version(ledger: Ledger) -> None:
    register(ledger, 3)
    promote(ledger, 1, arms={"m@1": 0.75, "m@2": 0.25, "m@3": 0.0})
    with pytest.raises(GateRefused, match="sends it copies of its requests"):
        delete(ledger, "m@3", because=(), actor="ada")
    promote(ledger, 2)
    assert current(ledger, "m")[1].arms == {"m@1": 1.0, "m@3": 0.0}


def test_a_third_of_the_traffic_each_is_a_whole(ledger: Ledger) -> None:
    register(ledger, 3)
    assert len(promote(ledger, 1, arms={f"m@{n}": 1 / 3 for n in (1, 2, 3)}).arms) == 3


def test_rolling_back_swaps_champion_and_previous_and_twice_comes_back(ledger: Ledger) -> None:
    register(ledger, 2)
    promote(ledger, 1)
    promote(ledger, 2)
    gone_back = back(ledger)
    assert (gone_back.version, gone_back.generation, gone_back.because) == (1, 3, ("worse",))
    assert ledger.aliases("m") == {"champion": 1, "previous": 2}
    told = [(e.kind, e.alias, e.version, e.actor, e.because) for e in ledger.events("m")[-2:]]
    assert told == [("pointed", "previous", 2, "bob", ("worse",)), ("rolled_back", "champion", 1, "bob", ("worse",))]
    assert back(ledger).version == 2
    assert ledger.aliases("m") == {"champion": 2, "previous": 1}


def test_rolling_back_takes_a_trial_out_of_the_traffic(ledger: Ledger) -> None:
    register(ledger, 2)
    promote(ledger, 1)
    promote(ledger, 1, arms={"m@1": 0.9, "m@2": 0.1})
    assert back(ledger).arms == {"m@1": 1.0}
    assert back(ledger).arms == {"m@1": 0.9, "m@2": 0.1}


def test_rolling_back_from_a_trial_that_took_over_leaves_it_no_traffic(ledger: Ledger) -> None:
    register(ledger, 2)
    promote(ledger, 1, arms={"m@1": 0.9, "m@2": 0.1})
    promote(ledger, 2)
    assert back(ledger).arms == {"m@1": 1.0}


def test_there_must_be_something_to_go_back_to(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="no model 'm'"):
        back(ledger)
    register(ledger, 2)
    for _ in range(2):
        with pytest.raises(GateRefused, match="nothing to go back to"):
            back(ledger)
        promote(ledger, 1)
    promote(ledger, 2)
    mark(ledger, ledger.version("m@1"), state="quarantined", because=["broken"], actor="doctor")
    with pytest.raises(GateRefused, match="m@1 is quarantined"):
        back(ledger)
    with pytest.raises(GateRefused, match="generation 3 and points at m@2, generation 1 was expected"):
        back(ledger, expected_generation=1)


def test_previous_moves_with_the_champion_alone(ledger: Ledger) -> None:
    register(ledger, 1)
    with pytest.raises(UserError, match="tunesmith rollback"):
        promote(ledger, 1, alias="previous")


def test_a_version_that_is_set_aside_gets_no_traffic_until_it_is_given_back(ledger: Ledger) -> None:
    register(ledger, 2)
    mark(ledger, ledger.version("m@2"), state="quarantined", because=["broken"], actor="doctor")
    num_events = len(ledger.events("m"))
    mark(ledger, ledger.version("m@2"), state="quarantined", because=["broken"], actor="doctor")
    assert len(ledger.events("m")) == num_events
    for version, arms in ((2, None), (1, {"m@1": 0.5, "m@2": 0.5})):
        with pytest.raises(GateRefused, match="m@2 is quarantined"):
            promote(ledger, version, arms=arms)
    mark(ledger, ledger.version("m@2"), state="ready", because=["sound"], actor="doctor")
    assert promote(ledger, 2).version == 2


def test_a_version_that_an_alias_needs_cannot_be_deleted_and_the_reason_is_named(ledger: Ledger) -> None:
    register(ledger, 5)
    promote(ledger, 1)
    promote(ledger, 2, arms={"m@2": 0.75, "m@3": 0.25})
    promote(ledger, 4, alias="staging")
    told = {
        1: "it is `previous`.*`tunesmith promote` another version first",
        2: "m@champion points to it. Promote m without it first",
        3: "m@champion gives it 25 % of its traffic. Promote m without it first",
        4: "m@staging points to it. .*`tunesmith unalias m@staging`",
    }
    for number, reason in told.items():
        with pytest.raises(GateRefused, match=f"m@{number} cannot be deleted: {reason}"):
            delete(ledger, f"m@{number}", because=[], actor="ada")
    assert len(ledger.versions()) == 5


def test_a_deleted_version_leaves_its_row_in_an_event_and_its_number_to_nobody(ledger: Ledger) -> None:
    register(ledger, 2)
    deleted = delete(ledger, "m@2", because=["a mistake"], actor="ada")
    assert [version.ref for version in ledger.versions()] == ["m@1"]
    event = ledger.events("m")[-1]
    assert (event.kind, event.version, event.because, event.actor) == ("deleted", 2, ("a mistake",), "ada")
    assert event.details["version"]["run"] == deleted.run == "1"
    with pytest.raises(NotFound, match="no m@2"):
        ledger.version("m@2")
    again = ModelVersion(
        name="m", number=0, run="1", artefact="a", weights_digest="", chat_digest="", base_digest="", created_at=""
    )
    assert ledger.register(again).number == 3


@pytest.mark.parametrize("ref", ["m", "m@champion", "m@", "@3", ""])
def test_what_is_deleted_is_named_by_its_number(ledger: Ledger, ref: str) -> None:
    register(ledger, 1)
    promote(ledger, 1)
    with pytest.raises((UserError, NotFound)):
        delete(ledger, ref, because=[], actor="ada")
    assert len(ledger.versions()) == 1


def test_an_alias_of_ones_own_is_removed_on_record_and_lets_its_version_go(ledger: Ledger) -> None:
    register(ledger, 2)
    promote(ledger, 1)
    promote(ledger, 2, alias="staging", arms={"m@2": 0.5, "m@1": 0.5})
    held = remove_alias(ledger, "m@staging", because=["over"], actor="bob", expected_generation=1)
    assert (held.version, held.generation, held.arms) == (2, 1, {"m@2": 0.5, "m@1": 0.5})
    assert (ledger.aliases("m"), ledger.deployment("m", "staging")) == ({"champion": 1}, None)
    event = ledger.events("m")[-1]
    assert (event.kind, event.alias, event.version, event.generation) == ("removed", "staging", 2, 2)
    assert (event.because, event.actor, event.details) == (("over",), "bob", {"arms": {"m@2": 0.5, "m@1": 0.5}})
    with pytest.raises(NotFound, match="no m@staging"):
        ledger.version("m@staging")
    with ledger.database.read() as connection:
        assert read_differences(connection) == []
    delete(ledger, "m@2", because=[], actor="ada")


def test_an_alias_that_is_given_again_goes_on_with_its_generation(ledger: Ledger) -> None:
    register(ledger, 1)
    seen = promote(ledger, 1, alias="staging").generation
    remove_alias(ledger, "m@staging", because=[], actor="ada")
    again = ledger.point("m", alias="staging", version=1, because=[], actor="ada", expected_generation=0)
    assert again.generation == seen + 2
    with pytest.raises(GateRefused, match="generation 3 and points at m@1, generation 1 was expected"):
        remove_alias(ledger, "m@staging", because=[], actor="bob", expected_generation=seen)
    assert replay(ledger.events("m")).aliases == {"m@staging": ledger.deployment("m", "staging")}


@pytest.mark.parametrize(
    ("ref", "error", "told"),
    [
        ("m@champion", UserError, "belongs to the registry"),
        ("m@previous", UserError, "belongs to the registry"),
        ("m@1", UserError, "names no alias"),
        ("m", UserError, "such as m@staging"),
        ("", UserError, "such as boutique@staging"),
        ("m@stagign", NotFound, "Did you mean m@staging"),
        ("n@staging", NotFound, "no model 'n'"),
    ],
)
def test_what_is_no_alias_of_ones_own_is_not_removed(ledger: Ledger, ref: str, error: type[Exception], told: str) -> None:
    register(ledger, 2)
    promote(ledger, 1)
    promote(ledger, 2)
    promote(ledger, 2, alias="staging")
    before = (ledger.aliases("m"), ledger.events("m"))
    with pytest.raises(error, match=told):
        remove_alias(ledger, ref, because=[], actor="ada")
    assert (ledger.aliases("m"), ledger.events("m")) == before

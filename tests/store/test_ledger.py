"""What any ledger promises, whatever database is behind it."""

import dataclasses
import math
import subprocess
import sys
from collections import Counter

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.errors import GateRefused, NotFound, UserError
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store import Ledger
from tunesmith.store.schema import events


def make_version(name: str = "boutique", *, artefact: str = "a1", run: str = "r1", number: int = 0) -> ModelVersion:
    return ModelVersion(
        name=name,
        number=number,
        run=run,
        artefact=artefact,
        weights_digest="w",
        chat_digest="c",
        base_digest="b",
        created_at="2026-11-21T10:00:00+00:00",
        metrics={"perplexity": 3.1},
        reports=("report-1",),
        lineage={"snapshot": "s1", "seed": "0"},
    )


def register(ledger: Ledger, count: int, *, name: str = "boutique") -> list[ModelVersion]:
    return [ledger.register(make_version(name, artefact=f"a{index}")) for index in range(1, count + 1)]


def promote(ledger: Ledger, version: int, *, expected: int | None = None) -> Deployment:
    return ledger.point(
        "boutique", alias="champion", version=version, because=["report-1"], actor="ada", expected_generation=expected
    )


def test_a_stage_is_remembered_until_it_is_recorded_again(ledger: Ledger) -> None:
    assert ledger.stage("key") is None
    ledger.record_stage("key", stage="freeze", artefact="a1")
    ledger.record_stage("other", stage="freeze", artefact="a9")
    assert ledger.stage("key") == "a1"
    ledger.record_stage("key", stage="freeze", artefact="a2")
    assert (ledger.stage("key"), ledger.stage("other"), ledger.stage("KEY")) == ("a2", "a9", None)


def test_versions_are_numbered_from_one_per_name_and_listed_in_order_of_registration(ledger: Ledger) -> None:
    refs = [ledger.register(make_version(name, artefact=f"a{i}")).ref for i, name in enumerate(["b", "a", "b", "a", "b"])]
    assert refs == ["b@1", "a@1", "b@2", "a@2", "b@3"]
    assert [version.ref for version in ledger.versions()] == refs
    assert [version.ref for version in ledger.versions("b")] == ["b@1", "b@2", "b@3"]
    assert ledger.versions("c") == []


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    reports=st.lists(st.text()),
    run=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
)
def test_what_is_registered_is_read_back_as_it_was(
    ledger: Ledger, metrics: dict[str, float], reports: list[str], run: str
) -> None:
    given_version = dataclasses.replace(make_version(run=run), name="fresh", metrics=metrics, reports=tuple(reports))
    given_version = dataclasses.replace(given_version, artefact=str(len(ledger.versions())))
    registered = ledger.register(given_version)
    assert registered == dataclasses.replace(given_version, number=registered.number)
    assert ledger.version(registered.ref) == registered == ledger.versions()[-1]


def test_a_perplexity_that_is_not_finite_is_kept(ledger: Ledger) -> None:
    ledger.register(dataclasses.replace(make_version(), metrics={"perplexity": math.inf, "rougeL": math.nan}))
    metrics = ledger.version("boutique").metrics
    assert metrics["perplexity"] == math.inf
    assert math.isnan(metrics["rougeL"])


def test_registering_the_same_model_again_returns_the_version_there_is(ledger: Ledger) -> None:
    first, _ = register(ledger, 2)
    again = ledger.register(dataclasses.replace(make_version(), created_at="later", metrics={}))
    assert again == first
    assert len(ledger.versions()) == 2
    assert len(ledger.events("boutique")) == 2
    assert ledger.register(make_version(run="r2")).number == 3
    assert ledger.register(make_version("other")).number == 1


def test_an_empty_creation_time_becomes_now_in_utc(ledger: Ledger) -> None:
    made = ledger.register(dataclasses.replace(make_version(), created_at="")).created_at
    assert made.endswith("+00:00")
    assert ledger.version("boutique").created_at == made


def test_a_chosen_number_is_kept_and_a_taken_one_refused(ledger: Ledger) -> None:
    assert ledger.register(make_version(number=7)).number == 7
    assert ledger.register(make_version(artefact="a2")).number == 8
    with pytest.raises(UserError, match="boutique@7 exists already"):
        ledger.register(make_version(artefact="a3", number=7))


@pytest.mark.parametrize("name", ["", "a@1", "../x", "a b", ".hidden", "x" * 64, "é", "a\n"])
def test_names_that_could_not_be_typed_or_stored_are_refused(ledger: Ledger, name: str) -> None:
    with pytest.raises(UserError, match="cannot be a model name"):
        ledger.register(make_version(name))
    register(ledger, 1)
    with pytest.raises(UserError, match="cannot be an alias"):
        ledger.point("boutique", alias=name, version=1, because=[], actor="ada", expected_generation=None)


def test_an_alias_cannot_read_like_a_number(ledger: Ledger) -> None:
    register(ledger, 1)
    with pytest.raises(UserError, match="reads like a version number"):
        ledger.point("boutique", alias="3", version=1, because=[], actor="ada", expected_generation=None)


def test_a_ref_means_the_champion_else_the_newest(ledger: Ledger) -> None:
    one, two, three = register(ledger, 3)
    assert ledger.version("boutique") == three
    promote(ledger, 2)
    assert ledger.version("boutique") == ledger.version("boutique@champion") == two
    assert ledger.version("boutique@1") == one


def test_an_unknown_name_is_answered_with_the_nearest_and_how_to_list_them(ledger: Ledger) -> None:
    register(ledger, 1)
    register(ledger, 1, name="support")
    with pytest.raises(NotFound, match=r"no model 'butique'\. Did you mean boutique\? .* `tunesmith models` lists them"):
        ledger.version("butique@3")
    with pytest.raises(NotFound, match=r"no model 'zzz'\. The workspace holds 2; `tunesmith models`"):
        ledger.version("zzz")


def test_an_unknown_number_or_alias_is_answered_with_what_there_is(ledger: Ledger) -> None:
    register(ledger, 2)
    promote(ledger, 1)
    with pytest.raises(NotFound, match=r"no boutique@9\. boutique has versions 1, 2 and the aliases champion"):
        ledger.version("boutique@9")
    with pytest.raises(NotFound, match=r"no boutique@champ\. Did you mean boutique@champion\?"):
        ledger.version("boutique@champ")
    with pytest.raises(NotFound, match="no boutique@²"):
        ledger.version("boutique@²")


def test_promoting_moves_previous_along_and_rolling_back_is_the_same_call(ledger: Ledger) -> None:
    register(ledger, 3)
    first = promote(ledger, 1, expected=0)
    assert first == Deployment(
        name="boutique", alias="champion", version=1, arms={"boutique@1": 1.0}, because=("report-1",), generation=1
    )
    assert ledger.deployment("boutique", "champion") == first
    assert ledger.aliases("boutique") == {"champion": 1}
    assert promote(ledger, 3, expected=1).generation == 2
    assert ledger.aliases("boutique") == {"champion": 3, "previous": 1}
    assert promote(ledger, 1, expected=2).generation == 3
    assert ledger.aliases("boutique") == {"champion": 1, "previous": 3}


def test_promoting_the_champion_again_keeps_previous(ledger: Ledger) -> None:
    register(ledger, 2)
    promote(ledger, 1)
    promote(ledger, 2)
    assert promote(ledger, 2).generation == 3
    assert ledger.aliases("boutique") == {"champion": 2, "previous": 1}


def test_other_aliases_move_alone(ledger: Ledger) -> None:
    register(ledger, 2)
    for version in (1, 2):
        ledger.point("boutique", alias="canary", version=version, because=[], actor="ada", expected_generation=None)
    assert ledger.aliases("boutique") == {"canary": 2}


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_move_on_an_old_view_is_refused_and_changes_nothing(ledger: Ledger, expected: int) -> None:
    register(ledger, 3)
    promote(ledger, 1)
    promote(ledger, 2)
    before = (ledger.deployment("boutique", "champion"), ledger.aliases("boutique"), ledger.events("boutique"))
    with pytest.raises(GateRefused, match=f"generation 2 and points at boutique@2, generation {expected} was expected"):
        promote(ledger, 3, expected=expected)
    assert (ledger.deployment("boutique", "champion"), ledger.aliases("boutique"), ledger.events("boutique")) == before


def test_pointing_at_what_does_not_exist_is_refused(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="no model has been trained"):
        promote(ledger, 1)
    register(ledger, 1)
    with pytest.raises(NotFound, match=r"no boutique@2\. boutique has versions 1"):
        promote(ledger, 2)
    assert ledger.aliases("boutique") == {}


def test_every_change_leaves_an_event_with_its_reasons(ledger: Ledger) -> None:
    register(ledger, 2)
    promote(ledger, 1)
    promote(ledger, 2)
    told = [(e.kind, e.alias, e.version, e.generation, e.because, e.actor) for e in ledger.events("boutique")]
    assert told == [
        ("registered", "", 1, 0, (), ""),
        ("registered", "", 2, 0, (), ""),
        ("pointed", "champion", 1, 1, ("report-1",), "ada"),
        ("pointed", "previous", 1, 1, ("report-1",), "ada"),
        ("pointed", "champion", 2, 2, ("report-1",), "ada"),
    ]
    assert ledger.events("other") == []


@pytest.mark.parametrize("change", [sa.delete(events), sa.update(events).values(actor="nobody")], ids=["delete", "update"])
def test_events_cannot_be_changed_even_with_sql(ledger: Ledger, change: sa.Delete | sa.Update) -> None:
    register(ledger, 1)
    before = ledger.events("boutique")
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), ledger.database.write() as connection:
        connection.execute(change)
    assert ledger.events("boutique") == before


def test_an_aliased_version_cannot_be_deleted_even_with_sql(ledger: Ledger) -> None:
    register(ledger, 1)
    promote(ledger, 1)
    with pytest.raises(sa.exc.IntegrityError), ledger.database.write() as connection:
        connection.execute(sa.text("DELETE FROM versions"))
    assert ledger.version("boutique@champion").number == 1


_WORKER = """
import sys
from tunesmith.errors import GateRefused
from tunesmith.records import ModelVersion
from tunesmith.store import Ledger

url, worker = sys.argv[1:]
ledger = Ledger(url)
sys.stdin.readline()
for index in range(15):
    version = ledger.register(ModelVersion(
        name="boutique", number=0, run=worker, artefact=f"{worker}-{index}", weights_digest="", chat_digest="",
        base_digest="", created_at=""))
    while True:
        seen = ledger.deployment("boutique", "champion")
        generation = seen.generation if seen else 0
        try:
            ledger.point("boutique", alias="champion", version=version.number, because=[version.artefact], actor=worker,
                         expected_generation=generation)
            break
        except GateRefused:
            pass
"""


def test_four_processes_register_and_promote_at_once_and_nothing_is_lost(ledger: Ledger) -> None:
    # All four meet a ledger that does not exist yet, so its creation is part of the race.
    workers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", _WORKER, ledger.database.url, f"w{i}"], stdin=subprocess.PIPE)
        for i in range(4)
    ]
    for worker in workers:
        worker.stdin.write(b"\n")
        worker.stdin.flush()
    codes = [worker.wait(timeout=240) for worker in workers]
    for worker in workers:
        worker.stdin.close()
    assert codes == [0, 0, 0, 0]
    assert [version.number for version in ledger.versions("boutique")] == list(range(1, 61))
    assert Counter(version.run for version in ledger.versions()) == {f"w{i}": 15 for i in range(4)}
    moves = [event for event in ledger.events("boutique") if event.kind == "pointed" and event.alias == "champion"]
    assert [move.generation for move in moves] == list(range(1, 61))
    assert {move.because[0] for move in moves} == {version.artefact for version in ledger.versions()}
    # `previous` followed every move: it holds the champion before the last one.
    assert ledger.aliases("boutique") == {"champion": moves[-1].version, "previous": moves[-2].version}
    assert ledger.database.problems() == []

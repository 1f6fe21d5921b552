"""The gate before a promotion, and the registry's commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.pipeline.test_promoting import CLEAR_WIN, report
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import GateRefused, NotFound, UserError
from tunesmith.evaluate import to_json
from tunesmith.evaluate.codec import digest_report
from tunesmith.pipeline import registry
from tunesmith.pipeline.registry import clear_up, delete_ref, go_back, history, lineage, promote_ref
from tunesmith.records import ModelVersion, Report, Score
from tunesmith.store import Store

WORSE = report(perplexity=Score(value=-1.0, low=-2.0, high=0.5))
BETTER = report(**CLEAR_WIN)


def publish(store: Store, kind: str, **files: Any) -> str:
    with store.artefacts.publish(kind) as staging:
        for name, content in files.items():
            (staging.path / name.replace("_json", ".json")).write_bytes(
                content if isinstance(content, bytes) else orjson.dumps(content)
            )
    return staging.artefact.digest


def make_version(
    store: Store,
    *,
    rule: str = "if_better",
    judged: Report | None = BETTER,
    proved: bool | None = True,
    facts: dict[str, Any] | None = None,
    **lineage: str,
) -> str:
    """A registered version with its recipe, report and sheet."""
    number = len(store.ledger.versions("shop")) + 1
    reports = (publish(store, "report", report_json=to_json(replace(judged, id=digest_report(judged)))),) if judged else ()
    recipe = publish(store, "recipe", recipe_json={"promote": rule, "train": {"method": "lora"}})
    model = publish(store, "model", weights=str(number).encode(), tunesmith_json=facts or {})
    version = store.ledger.register(
        ModelVersion(
            name="shop", number=0, run=f"r{number}", artefact=model, weights_digest="w", chat_digest="c", base_digest="b",
            created_at="", reports=reports, lineage={"recipe": recipe, "seed": "0", **lineage},
        )
    )  # fmt: skip
    if proved is not None:
        proof = {
            "name": "packed = unpacked",
            "holds": proved,
            "figure": 0.0,
            "tolerance": 0.0,
            "rule": "",
            "compared": "",
            "meaning": "",
        }
        sheet = publish(store, "proof", sheet_json={"subject": version.ref, "model": model, "machine": "", "proofs": [proof]})
        store.ledger.record_proof(version, artefact=sheet, holds=proved)
    return version.ref


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "work")


def test_a_sound_proved_and_better_version_is_promoted_with_who_and_why(store: Store) -> None:
    moved = promote_ref(make_version(store), store=store, because="sounds nicer")
    assert (moved.alias, moved.version, moved.arms) == ("champion", 1, {"shop@1": 1.0})
    event = store.ledger.events("shop")[-1]
    assert (event.kind, event.because, event.details) == ("pointed", ("sounds nicer",), {"arms": {"shop@1": 1.0}})
    assert event.actor


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"proved": None}, "shop@1 was never proved"),
        ({"proved": False}, "not proved: packed = unpacked"),
        ({"judged": WORSE}, "Not better than the base"),
        ({"rule": "never"}, "`promote` is never"),
    ],
)
def test_what_speaks_against_a_version_is_told_and_can_be_set_aside_on_record(
    store: Store, made: dict[str, Any], reason: str
) -> None:
    ref = make_version(store, **made)
    with pytest.raises(GateRefused, match=reason) as refused:
        promote_ref(ref, store=store)
    assert str(refused.value).endswith('--force --because "..."')
    assert store.ledger.aliases("shop") == {}
    with pytest.raises(UserError, match="--force needs a reason"):
        promote_ref(ref, store=store, force=True)
    promote_ref(ref, store=store, force=True, because="the shop opens tomorrow")
    event = store.ledger.events("shop")[-1]
    assert event.because == ("the shop opens tomorrow",)
    (overruled,) = event.details["overruled"]
    assert reason in overruled


def test_where_a_person_decides_the_rule_has_no_say(store: Store) -> None:
    assert promote_ref(make_version(store, rule="manual", judged=WORSE), store=store).version == 1


def test_an_alias_of_ones_own_asks_for_proofs_alone(store: Store) -> None:
    assert promote_ref(make_version(store, judged=WORSE), store=store, alias="staging").alias == "staging"
    with pytest.raises(GateRefused, match="never proved"):
        promote_ref(make_version(store, proved=None), store=store, alias="staging")


def test_a_version_that_was_not_compared_with_the_champion_of_today_is_refused(store: Store) -> None:
    promote_ref(make_version(store), store=store)
    with pytest.raises(GateRefused, match="it was not compared with the champion"):
        promote_ref(make_version(store, judged=BETTER), store=store)


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("alias", ["champion", "staging"])
def test_an_alias_that_moves_while_a_version_is_judged_is_left_where_it_went(
    store: Store, monkeypatch: pytest.MonkeyPatch, alias: str, is_new: bool
) -> None:
    for _ in range(3):
        make_version(store, rule="always")
    if not is_new:
        promote_ref("shop@1", store=store, alias=alias)
    read = registry.stored_sheet

    def meanwhile(version: ModelVersion, *, store: Store) -> Any:
        store.ledger.point("shop", alias=alias, version=2, because=(), actor="somebody else", expected_generation=None)
        return read(version, store=store)

    monkeypatch.setattr(registry, "stored_sheet", meanwhile)
    with pytest.raises(GateRefused, match="generation"):
        promote_ref("shop@3", store=store, alias=alias)
    assert store.ledger.aliases("shop")[alias] == 2
    promote_ref("shop@3", store=store, alias=alias, force=True, because="it must be this one")
    assert store.ledger.aliases("shop")[alias] == 3


def test_broken_files_cannot_be_forced(store: Store) -> None:
    ref = make_version(store)
    weights = store.artefacts.root / store.ledger.version(ref).artefact / "weights"
    weights.chmod(0o600)
    weights.write_bytes(b"x")
    with pytest.raises(GateRefused, match=r"shop@1 cannot answer: weights: its sha256 is .*doctor --repair"):
        promote_ref(ref, store=store, force=True, because="now")


def test_traffic_takes_its_share_from_the_version_and_must_be_proved_too(store: Store) -> None:
    promote_ref(make_version(store), store=store)
    make_version(store, judged=WORSE)
    assert promote_ref("shop@1", store=store, traffic={"shop@2": 0.1}).arms == {"shop@1": 0.9, "shop@2": 0.1}
    make_version(store, proved=None)
    with pytest.raises(GateRefused, match="shop@3 was never proved"):
        promote_ref("shop@1", store=store, traffic={"shop@3": 0.1})
    with pytest.raises(NotFound, match="no shop@9"):
        promote_ref("shop@1", store=store, traffic={"shop@9": 0.1})
    with pytest.raises(UserError, match="--shadow shop@2"):
        promote_ref("shop@1", store=store, traffic={"shop@2": 0.0})


def test_a_shadow_has_no_share_and_must_be_proved_too(store: Store) -> None:
    promote_ref(make_version(store), store=store)
    make_version(store, judged=WORSE)
    assert promote_ref("shop@1", store=store, shadows=["shop@2"]).arms == {"shop@1": 1.0, "shop@2": 0.0}
    make_version(store, proved=None)
    with pytest.raises(GateRefused, match="shop@3 was never proved"):
        promote_ref("shop@1", store=store, shadows=["shop@3"])
    for traffic in ({}, {"shop@2": 0.5}):
        with pytest.raises(UserError, match="answers requests already"):
            promote_ref("shop@1", store=store, traffic=traffic, shadows=["shop@2" if traffic else "shop@1"])


def test_an_alias_that_gets_traffic_means_its_version_of_now(store: Store) -> None:
    promote_ref(make_version(store), store=store)
    promote_ref(make_version(store), store=store, alias="staging")
    promote_ref(make_version(store), store=store, alias="trial")
    moved = promote_ref("shop@1", store=store, traffic={"shop@staging": 0.25}, shadows=["shop@trial"])
    assert moved.arms == {"shop@1": 0.75, "shop@2": 0.25, "shop@3": 0.0}
    assert store.ledger.events("shop")[-1].details["arms"] == moved.arms
    with pytest.raises(UserError, match=r"--traffic shop \(shop@1\): the version itself"):
        promote_ref("shop@1", store=store, traffic={"shop": 0.25})
    with pytest.raises(UserError, match=r"--traffic shop@02 \(shop@2\): shop@2 is named twice"):
        promote_ref("shop@1", store=store, traffic={"shop@staging": 0.25, "shop@02": 0.25})
    with pytest.raises(UserError, match=r"--shadow shop@staging \(shop@2\): it answers requests already"):
        promote_ref("shop@1", store=store, traffic={"shop@2": 0.25}, shadows=["shop@staging"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["shop@2=1.5"], "--traffic shop@2=1.5: a share lies between 0 and 1"),
        (["shop@2=1"], "--traffic shop@2=1: a share lies between 0 and 1"),
        (["shop@2=-0.1"], "--traffic shop@2=-0.1: a share lies between 0 and 1"),
        (["shop@2=nan"], "--traffic shop@2=nan: a share lies between 0 and 1"),
        (["shop@2=inf"], "--traffic shop@2=inf: a share lies between 0 and 1"),
        (["shop@2=0.6", "shop@3=0.6"], "the others have 1.2 together, which leaves nothing to shop@1; give them less than 1"),
        (["shop@2=0.1", "shop@2=0.2"], "--traffic shop@2=0.2: shop@2 is named twice"),
        (["boots@1=0.1"], "--traffic boots@1: it is no version of shop"),
        (["shop@=0.1"], "there is no shop@. shop has versions 1, 2, 3"),
    ],
)
def test_a_share_that_is_none_is_refused_by_the_words_in_which_it_was_given(store: Store, given: list[str], told: str) -> None:
    for _ in range(3):
        make_version(store)
    store.ledger.register(replace(store.ledger.version("shop@1"), name="boots", number=0))
    with pytest.raises(UserError) as refused:
        call(store, "promote", "shop@1", *(part for one in given for part in ("--traffic", one)))
    assert told in str(refused.value)
    assert store.ledger.aliases("shop") == {}


def test_a_rollback_to_a_version_tells_which_command_chooses_one(store: Store) -> None:
    promote_ref(make_version(store), store=store)
    with pytest.raises(
        UserError, match=r"a rollback takes a model's name: `tunesmith rollback shop` .* `tunesmith promote shop@1`"
    ):
        go_back("shop@1", store=store)


def test_going_back_asks_for_sound_files(store: Store) -> None:
    promote_ref(make_version(store), store=store)
    promote_ref(make_version(store), store=store, force=True, because="try")
    assert go_back("shop", store=store, because="worse").version == 1
    folder = store.artefacts.root / store.ledger.version("shop@2").artefact
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(GateRefused, match="shop@2 cannot answer: its artefact is gone"):
        go_back("shop", store=store)


def test_where_a_version_comes_from_is_told_back_to_its_parent(store: Store) -> None:
    snapshot = publish(store, "snapshot", snapshot_json={"splits": {"train": 8, "test": 4}})
    make_version(store, snapshot=snapshot)
    make_version(store, snapshot="0" * 64, parent="shop@1", base="shop@1")
    tree = lineage("shop@2", store=store)
    found = {part.kind: part for part in tree.parts}
    assert (tree.what, found["snapshot"].detail, found["recipe"].detail) == ("shop@2", "gone", "lora")
    assert found["proofs"].what == "1 of 1 proofs hold"
    parent = {part.kind: part for part in found["parent"].parts}
    assert (found["parent"].what, parent["snapshot"].detail) == ("shop@1", "12 rows")
    delete_ref("shop@1", store=store)
    assert {part.kind: part.detail for part in lineage("shop@2", store=store).parts}["parent"] == "deleted"


def test_clearing_up_keeps_the_snapshot_and_the_base_that_only_a_versions_facts_name(store: Store) -> None:
    snapshot, base, orphan = (publish(store, "snapshot", content=content) for content in (b"s", b"b", b"o"))
    make_version(store, facts={"snapshot": snapshot, "base_files": str(store.artefacts.root / base)})
    found = clear_up(store=store, grace_days=0, is_dry_run=False)
    assert [one.digest for one in found.removed] == [orphan]


def test_the_history_of_a_model_that_never_was_is_an_error(store: Store) -> None:
    with pytest.raises(NotFound):
        history("shop", store=store)
    make_version(store)
    assert [event.kind for event in history("shop@1", store=store)] == ["registered", "proved"]


def test_the_history_of_a_version_or_an_alias_holds_its_own_events_alone(store: Store) -> None:
    promote_ref(make_version(store), store=store)
    promote_ref(make_version(store), store=store, alias="staging")
    promote_ref("shop@1", store=store, traffic={"shop@2": 0.5})
    delete_ref(make_version(store, proved=None), store=store)
    assert [event.kind for event in history("shop@3", store=store)] == ["registered", "deleted"]
    assert [(event.kind, event.alias) for event in history("shop@2", store=store)] == [
        ("registered", ""), ("proved", ""), ("pointed", "staging"), ("pointed", "champion"),
    ]  # fmt: skip
    assert [event.version for event in history("shop@staging", store=store)] == [2]
    for ref in ("shop@9", "shop@trial", "shop@"):
        with pytest.raises(NotFound, match=f"there is no {ref}. shop has versions 1, 2 and the aliases"):
            history(ref, store=store)


def call(store: Store, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--workspace", str(store.root)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_says_in_words_and_in_json_what_it_did(store: Store) -> None:
    make_version(store)
    make_version(store)
    assert "shop@1" in CliRunner().invoke(app, ["models"], env={"TUNESMITH_WORKSPACE": str(store.root)}).stdout
    assert "shop@1 · generation 1" in call(store, "promote", "shop@1", "--expected-generation", "0")
    moved = call(store, "promote", "shop@2", "--traffic", "shop@1=0.25", "--force", "--because", "a trial")
    assert "shop@2 75 % · shop@1 25 %" in moved
    assert "previous   shop@1" in moved
    told = call(store, "history", "shop")
    assert "shop@2 is champion (generation 2)" in told
    assert "because a trial" in told
    assert "although it was not compared with the champion" in told
    assert json.loads(call(store, "rollback", "shop", "--json"))["version"] == 1
    assert "shop@1 is again champion" in call(store, "history", "shop")
    assert [event["kind"] for event in json.loads(call(store, "history", "shop", "--json"))][-1] == "rolled_back"
    assert "└ proofs 1 of 1 proofs hold" in call(store, "lineage", "shop@1")
    assert json.loads(call(store, "lineage", "shop@1", "--json"))["what"] == "shop@1"
    make_version(store)
    call(store, "promote", "shop@3", "--alias", "staging")
    taken = call(store, "unalias", "shop@staging", "--because", "the trial is over", "--expected-generation", "1")
    assert taken == "shop@staging is removed; it was shop@3, generation 1\n"
    assert "shop@3 is no longer staging (generation 2)" in (told := call(store, "history", "shop"))
    assert "because the trial is over" in told
    call(store, "promote", "shop@3", "--alias", "staging")
    assert json.loads(call(store, "unalias", "shop@staging", "--json"))["generation"] == 3
    assert json.loads(call(store, "delete", "shop@3", "--json"))["deleted"] == "shop@3"
    assert "3 artefacts would be removed" not in call(store, "gc", "--dry-run")  # all of it is new
    assert "would be removed" in call(store, "gc", "--dry-run", "--grace", "0")
    assert json.loads(call(store, "gc", "--grace", "0", "--json"))["removed"]
    assert "0 artefacts removed" in call(store, "gc", "--grace", "0")


def test_a_refusal_of_a_command_has_exit_code_3_and_a_wrong_share_2(store: Store) -> None:
    make_version(store, proved=None)
    with pytest.raises(GateRefused) as refused:
        call(store, "promote", "shop@1")
    with pytest.raises(GateRefused) as nothing_before:
        call(store, "rollback", "shop")
    with pytest.raises(UserError, match="write a version and its share") as wrong:
        call(store, "promote", "shop@1", "--traffic", "shop@1")
    assert (refused.value.exit_code, nothing_before.value.exit_code, wrong.value.exit_code) == (3, 3, 2)

"""The doctor finds each kind of harm, and mends what can be mended."""

import dataclasses
import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from tunesmith.errors import GateRefused
from tunesmith.records import ModelVersion
from tunesmith.store import Diagnosis, FindingKind, Store, examine
from tunesmith.store.schema import aliases


def publish(store: Store, content: bytes) -> str:
    with store.artefacts.publish("note") as staging:
        (staging.path / "sub").mkdir()
        (staging.path / "sub" / "a").write_bytes(content)
        (staging.path / "b").write_bytes(b"b")
    return staging.artefact.digest


def make_store(folder: Path) -> tuple[Store, str]:
    """A store with one artefact that is both a stage's result and boutique@1."""
    store = Store(folder)
    digest = publish(store, b"weights")
    store.ledger.record_stage("key-of-train", stage="train", artefact=digest)
    register(store, digest)
    return store, digest


def register(store: Store, digest: str, *, reports: tuple[str, ...] = ()) -> None:
    store.ledger.register(
        ModelVersion(
            name="boutique",
            number=0,
            run="r",
            artefact=digest,
            weights_digest="w",
            chat_digest="c",
            base_digest="b",
            created_at="",
            reports=reports,
        )
    )


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "sub" / "a").read_bytes())
    content[3] ^= 16
    (folder / "sub" / "a").chmod(0o600)
    (folder / "sub" / "a").write_bytes(content)


def lose_a_file(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "b").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "sub").chmod(0o700)
    (folder / "sub" / "new").write_text("")


def told(diagnosis: Diagnosis) -> list[tuple[FindingKind, str]]:
    return [(finding.kind, finding.digest) for finding in diagnosis.findings]


def test_a_sound_store_has_no_findings_and_is_counted(tmp_path: Path) -> None:
    store, digest = make_store(tmp_path)
    folder = store.artefacts.root / digest
    diagnosis = examine(store)
    assert diagnosis == Diagnosis(
        root=str(tmp_path),
        num_artefacts=1,
        num_bytes=len(b"weights") + len(b"b") + len((folder / "manifest.json").read_bytes()),
        num_versions=1,
        num_stages=1,
        findings=(),
    )
    assert diagnosis.sound


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (flip_a_bit, "sub/a: its sha256 is"),
        (lose_a_file, "b: the file is missing"),
        (add_a_file, "sub/new: the file is not in the manifest"),
    ],
)
def test_a_broken_artefact_is_found_and_repair_makes_room_for_a_new_one(tmp_path: Path, harm, problem: str) -> None:
    store, digest = make_store(tmp_path)
    harm(store.artefacts.root / digest)
    diagnosis = examine(store)
    assert told(diagnosis) == [(FindingKind.BROKEN, digest)]
    assert diagnosis.findings[0].detail.startswith(problem)
    assert diagnosis.findings[0].detail.endswith("(used by boutique@1, stage train (key-of-train))")
    assert diagnosis.findings[0].action == ""
    assert not diagnosis.sound
    assert examine(store) == diagnosis  # looking changes nothing

    repaired = examine(store, repair=True)
    assert repaired.findings[0].action == (
        f"moved to quarantine/{digest}; the stage is forgotten, so the next run makes it again"
    )
    assert list(store.artefacts.digests()) == []
    assert (store.quarantine / digest / "manifest.json").exists()
    assert store.ledger.stage("key-of-train") is None
    assert told(examine(store)) == [(FindingKind.QUARANTINED, digest)]  # boutique@1 is still without its model
    assert store.ledger.version("boutique@1").state == "quarantined"
    assert examine(store).sound  # and it answers for nobody

    assert publish(store, b"weights") == digest
    store.ledger.record_stage("key-of-train", stage="train", artefact=digest)
    assert examine(store, repair=True).findings[0].action == "marked as ready"
    assert examine(store).findings == ()
    assert store.ledger.version("boutique@1").state == "ready"
    assert [event.kind for event in store.ledger.events("boutique")] == ["registered", "quarantined", "restored"]


def test_an_artefact_broken_twice_is_quarantined_twice(tmp_path: Path) -> None:
    store, digest = make_store(tmp_path)
    for _ in range(2):
        flip_a_bit(store.artefacts.root / digest)
        examine(store, repair=True)
        publish(store, b"weights")
    assert len(list(store.quarantine.iterdir())) == 2


def test_a_version_and_a_stage_whose_artefact_is_gone_are_found_and_only_the_stage_forgotten(tmp_path: Path) -> None:
    store, digest = make_store(tmp_path)
    (store.artefacts.root / digest).rename(tmp_path / "elsewhere")
    diagnosis = examine(store)
    assert told(diagnosis) == [(FindingKind.MISSING, digest)] * 2
    assert [finding.detail.split(" names")[0] for finding in diagnosis.findings] == ["stage train (key-of-train)", "boutique@1"]
    repaired = examine(store, repair=True)
    assert [finding.action for finding in repaired.findings] == [
        "the stage is forgotten, so the next run makes it again",
        "marked as broken",
    ]
    assert store.ledger.stage("key-of-train") is None
    assert store.ledger.version("boutique").artefact == digest
    assert told(examine(store, repair=True)) == [(FindingKind.QUARANTINED, digest)]


def test_orphans_are_reported_and_never_touched(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path)
    orphan = publish(store, b"nobody names me")
    diagnosis = examine(store, repair=True)
    assert told(diagnosis) == [(FindingKind.ORPHAN, orphan)]
    assert diagnosis.sound
    assert store.artefacts.verify(orphan) == []


def test_reports_of_versions_and_reasons_of_aliases_are_no_orphans(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path)
    report, reason = publish(store, b"report"), publish(store, b"reason")
    register(store, publish(store, b"weights 2"), reports=(report,))
    store.ledger.point("boutique", alias="champion", version=1, because=[reason], actor="ada", expected_generation=None)
    assert examine(store).findings == ()


def test_a_damaged_ledger_is_told_and_no_artefact_is_called_an_orphan(tmp_path: Path) -> None:
    store, digest = make_store(tmp_path)
    ledger = tmp_path / "ledger.db"
    ledger.write_bytes(b"rubbish" * 1000)
    diagnosis = examine(store, repair=True)
    assert told(diagnosis) == [(FindingKind.LEDGER, "")]
    assert "is damaged" in diagnosis.findings[0].detail
    assert store.artefacts.verify(digest) == []


def test_a_page_of_the_ledger_overwritten_is_told(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path)
    content = bytearray((tmp_path / "ledger.db").read_bytes())
    page = content.rindex(b"key-of-train") // 4096 * 4096
    content[page : page + 4096] = bytes(4096)
    (tmp_path / "ledger.db").write_bytes(content)
    assert FindingKind.LEDGER in {finding.kind for finding in examine(store).findings}


def test_a_diagnosis_is_plain_json(tmp_path: Path) -> None:
    store, digest = make_store(tmp_path)
    flip_a_bit(store.artefacts.root / digest)
    plain = json.loads(json.dumps(dataclasses.asdict(examine(store))))
    assert plain["findings"][0]["kind"] == "broken"
    assert plain["findings"][0]["digest"] == digest


def make_champions(folder: Path) -> Store:
    """Two versions of different files; boutique@2 is champion and boutique@1 previous."""
    store = Store(folder)
    for content in (b"first", b"second"):
        register(store, publish(store, content))
        number = len(store.ledger.versions())
        store.ledger.point("boutique", alias="champion", version=number, because=[], actor="ada", expected_generation=number - 1)
    return store


def test_a_broken_champion_falls_back_to_a_sound_previous_on_record(tmp_path: Path) -> None:
    store = make_champions(tmp_path)
    flip_a_bit(store.artefacts.root / store.ledger.version("boutique@2").artefact)
    assert FindingKind.ALIAS in {finding.kind for finding in examine(store).findings}
    examine(store, repair=True)
    champion = store.ledger.deployment("boutique", "champion")
    assert (champion.version, champion.arms, champion.generation) == (1, {"boutique@1": 1.0}, 3)
    event = store.ledger.events("boutique")[-1]
    assert (event.kind, event.alias, event.version, event.actor) == ("pointed", "champion", 1, "doctor")
    assert event.because == ("the files of boutique@2 are broken",)
    assert store.artefacts.verify(store.ledger.version("boutique").artefact) == []
    assert examine(store).sound
    with pytest.raises(GateRefused, match="boutique@2 is quarantined"):
        store.ledger.point("boutique", alias="champion", version=2, because=[], actor="ada", expected_generation=None)


def test_a_broken_arm_of_the_traffic_gives_its_share_to_the_others(tmp_path: Path) -> None:
    store = make_champions(tmp_path)
    arms = {"boutique@2": 0.75, "boutique@1": 0.25}
    store.ledger.point("boutique", alias="champion", version=2, because=[], actor="ada", expected_generation=None, arms=arms)
    lose_a_file(store.artefacts.root / store.ledger.version("boutique@1").artefact)
    examine(store, repair=True)
    champion = store.ledger.deployment("boutique", "champion")
    assert (champion.version, champion.arms) == (2, {"boutique@2": 1.0})
    assert examine(store).sound


def test_where_nothing_sound_is_left_the_alias_stays_and_the_doctor_says_what_to_do(tmp_path: Path) -> None:
    store = make_champions(tmp_path)
    for number in (1, 2):
        flip_a_bit(store.artefacts.root / store.ledger.version(f"boutique@{number}").artefact)
    details = [finding.detail for finding in examine(store, repair=True).findings if finding.kind is FindingKind.ALIAS]
    assert len(details) == 1
    assert "run the recipe again, or `tunesmith promote boutique@N`" in details[0]
    assert store.ledger.deployment("boutique", "champion").version == 2
    assert not examine(store).sound
    for content in (b"first", b"second"):
        publish(store, content)
    examine(store, repair=True)
    assert examine(store).findings == ()


def test_an_alias_that_its_events_contradict_is_told_and_put_back(tmp_path: Path) -> None:
    store = make_champions(tmp_path)
    before = store.ledger.deployment("boutique", "champion")
    with store.ledger.database.write() as connection:
        connection.execute(sa.update(aliases).values(version=1, generation=9).where(aliases.c.alias == "champion"))
    (finding,) = examine(store).findings
    assert (finding.kind, finding.action) == (FindingKind.LOG, "")
    assert finding.detail == ("boutique@champion is at boutique@1, generation 9, and its events say at boutique@2, generation 2")
    num_events = len(store.ledger.events("boutique"))
    assert examine(store, repair=True).findings[0].action == "put back to what its events say"
    assert store.ledger.deployment("boutique", "champion") == before
    assert examine(store).findings == ()
    assert len(store.ledger.events("boutique")) == num_events


def test_the_wrong_workspace_beside_a_ledger_on_a_server_is_told_and_nothing_is_repaired(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_LEDGER", postgres_url)
    make_champions(tmp_path / "right")
    assert examine(Store(tmp_path / "right")).findings == ()
    elsewhere = examine(Store(tmp_path / "wrong"), repair=True)
    assert told(elsewhere) == [(FindingKind.LEDGER, "")]
    assert "--workspace" in elsewhere.findings[0].detail
    assert {version.state for version in Store(tmp_path / "right").ledger.versions()} == {"ready"}


def test_on_a_server_too_a_broken_champion_falls_back(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_LEDGER", postgres_url)
    store = make_champions(tmp_path)
    flip_a_bit(store.artefacts.root / store.ledger.version("boutique@2").artefact)
    examine(store, repair=True)
    assert store.ledger.version("boutique").number == 1
    assert examine(store).sound

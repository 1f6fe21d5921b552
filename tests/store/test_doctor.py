"""The doctor finds each kind of harm, and mends what can be mended."""

import dataclasses
import json
from pathlib import Path

import pytest

from tunesmith.records import ModelVersion
from tunesmith.store import Diagnosis, FindingKind, Store, examine


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
    assert told(examine(store)) == [(FindingKind.MISSING, digest)]  # boutique@1 is still without its model

    assert publish(store, b"weights") == digest
    store.ledger.record_stage("key-of-train", stage="train", artefact=digest)
    assert examine(store).findings == ()


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
    assert [finding.detail.split(" names")[0] for finding in diagnosis.findings] == ["boutique@1", "stage train (key-of-train)"]
    repaired = examine(store, repair=True)
    assert [finding.action != "" for finding in repaired.findings] == [False, True]
    assert store.ledger.stage("key-of-train") is None
    assert store.ledger.version("boutique").artefact == digest
    assert not examine(store, repair=True).sound


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

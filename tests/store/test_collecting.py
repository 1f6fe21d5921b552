"""What nothing names is removed once it is old; what somebody may be about to name is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tunesmith.errors import GateRefused, UserError
from tunesmith.records import ModelVersion
from tunesmith.store import Store, collect, delete, examine
from tunesmith.store.schema import stages

DAY_S = 86_400


def publish(store: Store, name: str, *, kind: str = "note", age_days: float = 30) -> str:
    with store.artefacts.publish(kind) as staging:
        (staging.path / "content").write_text(name)
    digest = staging.artefact.digest
    os.utime(store.artefacts.root / digest, (0, time.time() - age_days * DAY_S))
    return digest


def register(store: Store, artefact: str, **more: object) -> ModelVersion:
    version = ModelVersion(
        name="m", number=0, run=artefact, artefact=artefact, weights_digest="", chat_digest="", base_digest="", created_at="", **more
    )  # fmt: skip
    return store.ledger.register(version)


def age_stages(store: Store) -> None:
    with store.ledger.database.write() as connection:
        connection.execute(sa.update(stages).values(recorded_at="2020-01-01T00:00:00+00:00"))


def test_all_that_is_named_stays_and_the_rest_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    model, report, snapshot, recipe, sheet, reason = (
        publish(store, n) for n in ("model", "report", "snap", "recipe", "sheet", "why")
    )
    told, orphan, kept_for_another_reason = publish(store, "x"), publish(store, "orphan"), publish(store, "base")
    version = register(store, model, reports=(report,), lineage={"snapshot": snapshot, "recipe": recipe, "seed": "0"})
    store.ledger.record_proof(version, artefact=sheet, holds=True)
    store.ledger.point("m", alias="champion", version=1, because=[reason], actor="ada", expected_generation=0)
    store.ledger.record_stage("key", stage="snapshot", artefact=told)
    age_stages(store)
    num_bytes = sum(f.stat().st_size for d in (orphan, told) for f in (store.artefacts.root / d).iterdir())

    dry = collect(store, is_dry_run=True, keep={kept_for_another_reason})
    assert ({one.digest for one in dry.removed}, dry.num_bytes, dry.num_stages) == ({orphan, told}, num_bytes, 1)
    assert len(list(store.artefacts.digests())) == 9
    assert store.ledger.stage("key") == told

    found = collect(store, keep={kept_for_another_reason})
    assert {one.digest for one in found.removed} == {orphan, told}
    assert set(store.artefacts.digests()) == {model, report, snapshot, recipe, sheet, reason, kept_for_another_reason}
    assert store.ledger.stage("key") is None
    assert examine(store).sound


def test_a_deleted_versions_files_go_with_its_report_and_proofs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    version = register(store, publish(store, "model"), reports=(publish(store, "report"),))
    store.ledger.record_proof(version, artefact=publish(store, "sheet"), holds=True)
    assert collect(store).removed == ()
    delete(store.ledger, version.ref, because=[], actor="ada")
    assert len(collect(store).removed) == 3
    assert list(store.artefacts.digests()) == []


def test_what_is_young_stays_for_its_grace_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store, "young", age_days=6)
    old = publish(store, "old", age_days=8)
    found = collect(store)
    assert ([one.digest for one in found.removed], found.num_young) == ([old], 1)
    with pytest.raises(UserError, match="a number of days from 0"):
        collect(store, grace_days=-1)


def test_what_is_published_or_found_again_is_young_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    published, touched = publish(store, "a"), publish(store, "b")
    with store.artefacts.publish("note") as staging:
        (staging.path / "content").write_text("a")
    assert staging.artefact.digest == published
    store.artefacts.touch(touched)
    assert collect(store).removed == ()
    assert not store.artefacts.remove(touched, unless_used_since=time.time() - DAY_S)


def test_a_stage_that_was_recorded_lately_keeps_an_old_artefact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.ledger.record_stage("key", stage="snapshot", artefact=publish(store, "a"))
    assert collect(store).removed == ()
    age_stages(store)
    assert len(collect(store).removed) == 1


def test_while_a_run_is_at_work_nothing_is_removed_and_its_death_ends_that(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store, "a")
    script = (
        "import sys; from pathlib import Path; from tunesmith.store import Store\n"
        "with Store(Path(sys.argv[1])).at_work():\n    print('at work', flush=True); sys.stdin.readline()"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    worker.stdout.readline()
    with store.at_work(), pytest.raises(GateRefused, match="a run is at work"):
        collect(store, grace_days=0)
    assert len(collect(store, is_dry_run=True).removed) == 1
    worker.kill()
    worker.communicate()
    assert len(collect(store).removed) == 1


def test_a_workspace_that_does_not_exist_has_nothing_to_clear_and_is_not_made(tmp_path: Path) -> None:
    assert collect(Store(tmp_path / "w")).removed == ()
    assert not (tmp_path / "w").exists()

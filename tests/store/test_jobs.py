"""What a ledger promises of files and jobs, whatever database is behind it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunesmith.errors import GateRefused, NotFound
from tunesmith.store import Ledger, Store
from tunesmith.store.jobs import FINAL, Job, JobEvent, Jobs
from tunesmith.store.uploads import Uploads


def create(jobs: Jobs, **request: object) -> Job:
    return jobs.create(request, event=JobEvent(message="created"))


def move(jobs: Jobs, job: Job, *states: str) -> Job:
    for state in states:
        job = jobs.move(job, to=state, event=JobEvent(message=state))
    return job


def test_a_job_goes_its_way_and_tells_it(ledger: Ledger) -> None:
    jobs = Jobs(ledger)
    assert (jobs.all(), jobs.claim(host="here", max_running=1)) == ([], None)
    made = create(jobs, model="tunesmith/base", seed=3)
    assert (made.state, made.request, made.outcome, made.finished_at) == (
        "validating_files",
        {"model": "tunesmith/base", "seed": 3},
        {},
        None,
    )
    move(jobs, made, "queued")
    running = jobs.claim(host="here", max_running=1)
    assert running is not None
    assert (running.id, running.state, running.host, running.attempts) == (made.id, "running", "here", 1)
    assert jobs.record(running, outcome={"trained_tokens": 7})
    done = jobs.move(
        running, to="succeeded", event=JobEvent(message="done", data={"loss": 1.5}), outcome={"fine_tuned_model": "a@1"}
    )
    assert done.outcome == {"trained_tokens": 7, "fine_tuned_model": "a@1"}
    assert done.finished_at is not None
    assert jobs.find(made.id) == done
    told = jobs.events(made.id)
    assert [event.message for event in told] == ["created", "queued", "Fine-tuning job started", "done"]
    assert (told[-1].data, told[0].data) == ({"loss": 1.5}, {})
    assert len({event.id for event in told}) == 4


def test_a_change_that_comes_too_late_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    jobs = Jobs(ledger)
    seen = move(jobs, create(jobs), "queued")
    running = jobs.claim(host="here", max_running=1)
    assert running is not None
    with pytest.raises(GateRefused, match="is running and cannot become cancelled"):
        jobs.move(seen, to="cancelled", event=JobEvent(message="late"))
    cancelled = move(jobs, running, "cancelled")
    assert jobs.record(running, outcome={"fine_tuned_model": "a@1"}) is False
    assert jobs.find(seen.id) == cancelled
    assert "late" not in [event.message for event in jobs.events(seen.id)]


@pytest.mark.parametrize("end", sorted(FINAL))
def test_what_is_over_stays_as_it_is(ledger: Ledger, end: str) -> None:
    jobs = Jobs(ledger)
    move(jobs, create(jobs), "queued")
    running = jobs.claim(host="here", max_running=1)
    assert running is not None
    over = move(jobs, running, end)
    for state in ("queued", "running", "paused", *FINAL):
        with pytest.raises(GateRefused):
            move(jobs, over, state)


def test_the_oldest_queued_job_runs_first_and_no_more_than_may(ledger: Ledger) -> None:
    jobs = Jobs(ledger)
    first, second, third = (move(jobs, create(jobs, number=number), "queued") for number in range(3))
    move(jobs, first, "paused")
    running = jobs.claim(host="here", max_running=1)
    assert running is not None
    assert running.id == second.id
    assert jobs.claim(host="here", max_running=1) is None
    elsewhere = jobs.claim(host="there", max_running=1)
    assert elsewhere is not None
    assert elsewhere.id == third.id
    assert [job.id for job in jobs.all("running")] == [second.id, third.id]


def test_many_who_claim_at_once_get_each_job_once(ledger: Ledger) -> None:
    jobs = Jobs(ledger)
    for _ in range(3):
        move(jobs, create(jobs), "queued")
    with ThreadPoolExecutor(6) as pool:
        claimed = list(pool.map(lambda at: jobs.claim(host=f"host-{at}", max_running=1), range(6)))
    assert len({job.id for job in claimed if job}) == 3
    assert sum(job is not None for job in claimed) == 3


def test_there_is_no_job_that_was_never_made(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="no fine-tuning job 'ftjob-1'"):
        Jobs(ledger).find("ftjob-1")


def test_a_file_is_kept_under_a_name_of_ours(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_LEDGER", url if url.startswith("postgres") else "")
    store = Store(tmp_path / "work")
    uploads = Uploads(store)
    assert uploads.all() == []
    part = uploads.part()
    part.write_bytes(b"rows\n")
    kept = uploads.keep(part, filename="../../etc/passwd", purpose="fine-tune", num_rows=1)
    assert (kept.num_bytes, kept.filename, uploads.find(kept.id)) == (5, "../../etc/passwd", kept)
    assert uploads.path(kept) == tmp_path / "work" / "files" / f"{kept.id}.jsonl"
    assert [path.name for path in store.files.iterdir()] == [f"{kept.id}.jsonl"]
    uploads.delete(kept.id)
    assert list(store.files.iterdir()) == []
    with pytest.raises(NotFound, match="may have been deleted"):
        uploads.find(kept.id)


def test_what_a_killed_server_left_of_a_file_is_cleared_and_what_arrives_is_not(tmp_path: Path) -> None:
    uploads = Uploads(Store(tmp_path / "work"))
    old, new = uploads.part(), uploads.part()
    for part in (old, new):
        part.write_bytes(b"ro")
    os.utime(old, (0, 0))
    uploads.clear_parts()
    assert (old.exists(), new.exists()) == (False, True)

"""Eight processes promote and roll back at once: nothing is lost, nothing is done twice, and the event log tells the state."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tunesmith.records import ModelVersion
from tunesmith.store import Ledger, replay
from tunesmith.store.replaying import read_differences

NUM_WORKERS, NUM_MOVES = 8, 200

_WORKER = """
import random, sys
from tunesmith.errors import GateRefused
from tunesmith.store import Ledger, rollback

url, worker, moves = sys.argv[1:]
ledger, draw = Ledger(url), random.Random(worker)
print("ready", flush=True)
sys.stdin.readline()
for index in range(int(moves)):
    mine, kind = f"{worker}-{index}", index % 3
    try:
        if kind == 0:
            moved = rollback(ledger, "m", because=[mine], actor=worker)
        elif kind == 1:
            moved = ledger.point("m", alias="champion", version=draw.randint(1, 5), because=[mine], actor=worker, expected_generation=None)
        else:
            seen = ledger.deployment("m", "champion").generation
            moved = ledger.point("m", alias="champion", version=draw.randint(1, 5), because=[mine], actor=worker, expected_generation=seen)
        assert kind != 2 or moved.generation == seen + 1
        print("done", mine, moved.generation, moved.version, kind)
    except GateRefused:
        print("refused", mine, 0, 0, kind)
"""


@pytest.mark.timeout(600)
def test_promotes_and_rollbacks_of_eight_processes_are_none_lost_and_none_doubled(ledger: Ledger) -> None:
    for number in range(1, 6):
        version = ModelVersion(
            name="m", number=0, run="", artefact=str(number), weights_digest="", chat_digest="", base_digest="", created_at=""
        )
        ledger.register(version)
    for number in (1, 2):
        ledger.point("m", alias="champion", version=number, because=["start"], actor="test", expected_generation=number - 1)
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _WORKER, ledger.database.url, f"w{i}", str(NUM_MOVES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(NUM_WORKERS)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    lines = [line.split() for worker in workers for line in worker.communicate(timeout=500)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0] * NUM_WORKERS

    assert Counter(line[1].split("-")[0] for line in lines) == {f"w{i}": NUM_MOVES for i in range(NUM_WORKERS)}
    done = {int(generation): (mine, int(version)) for state, mine, generation, version, _ in lines if state == "done"}
    outcomes = Counter((state, int(kind)) for state, *_, kind in lines)
    assert ("refused", 1) not in outcomes  # what expects nothing is never refused
    # A compare-and-set may lose every time: where writers queue in order, seven others come between look and move.
    assert outcomes["refused", 2] + outcomes["done", 2] > 0
    # Every generation was given once, to somebody who was told so.
    assert sorted(done) == list(range(3, 3 + sum(n for (state, _), n in outcomes.items() if state == "done")))
    log = ledger.events("m")
    moves = [event for event in log if event.alias == "champion"]
    assert [event.generation for event in moves] == list(range(1, len(moves) + 1))
    assert {event.generation: (event.because[0], event.version) for event in moves[2:]} == done
    # A rollback goes to the champion before the last one that differed; told by the log alone.
    champion, previous = 2, 1
    for event in moves[2:]:
        if event.kind == "rolled_back":
            champion, previous = previous, champion
        elif event.version != champion:
            champion, previous = event.version, champion
        assert event.version == champion
    assert ledger.aliases("m") == {"champion": champion, "previous": previous}
    assert replay(log).aliases == {f"m@{alias}": ledger.deployment("m", alias) for alias in ("champion", "previous")}
    with ledger.database.read() as connection:
        assert read_differences(connection) == []
    assert ledger.database.problems() == []

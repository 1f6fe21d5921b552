"""Threads that spin or sleep while they wait for each other: the switch, what is measured, and what follows from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from tunesmith.model.waiting import IdleTeams, Used, is_crowded, used, watch

SPINS = """
import tunesmith, torch, threading, time
from tunesmith.model.waiting import IdleTeams

torch.set_num_threads(2)

def idle_share():
    torch.zeros(2**18).add_(1)
    begun = time.process_time()
    time.sleep(0.4)
    return (time.process_time() - begun) / 0.4

teams = IdleTeams()
found = [idle_share()]
teams.gather()
found.append(idle_share())
num_threads = threading.active_count()
teams.gather()
assert threading.active_count() == num_threads, "those who are there are enough"
teams.disband()
found.append(idle_share())
print(*found)
"""
WATCHED = """
import tunesmith, torch, threading
torch.set_num_threads({threads})
from tunesmith.model import this_machine
this_machine(num_threads={threads})
this_machine(num_threads={threads})
print(sorted(thread.name for thread in threading.enumerate()))
"""


def run(code: str, **env: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    return subprocess.run([sys.executable, "-c", code], env=kept | env, capture_output=True, text=True, check=True).stdout


has_libgomp = pytest.mark.skipif(
    not sys.platform.startswith("linux") or (os.cpu_count() or 1) < 2, reason="libgomp and two cores are what this is about"
)


@has_libgomp
def test_idle_teams_are_a_switch() -> None:
    """A worker that spins for ten thousand million turns takes a core while the program sleeps."""
    spinning, quiet, again = map(float, run(SPINS, GOMP_SPINCOUNT="10000000000").split())
    assert quiet < 0.1
    assert min(spinning, again) > 3 * max(quiet, 0.05)


@has_libgomp
@pytest.mark.parametrize(("env", "threads", "is_watched"), [({}, 2, True), ({}, 1, False), ({"GOMP_SPINCOUNT": "5"}, 2, False)])
def test_who_is_watched(env: dict[str, str], threads: int, is_watched: bool) -> None:
    names = run(WATCHED.format(threads=threads), **env)
    assert names.count("'waiting'") == int(is_watched and used() is not None)


@pytest.mark.parametrize(
    ("others", "was_crowded", "num_threads", "num_cores", "expected"),
    [
        (0.0, True, 2, 2, False),
        (0.2, True, 2, 2, True),
        (0.2, False, 2, 2, False),
        (0.3, False, 2, 2, True),
        (1.9, False, 4, 8, False),
        (4.3, False, 4, 8, True),
        (0.0, False, 4, 2, True),
    ],
)
def test_who_is_in_the_way(others: float, was_crowded: bool, num_threads: int, num_cores: int, expected: bool) -> None:
    assert is_crowded(others, was_crowded=was_crowded, num_threads=num_threads, num_cores=num_cores) is expected


class Noted(IdleTeams):
    """Teams of which only what they are told is kept."""

    def __init__(self) -> None:
        self.states = [True]

    def __bool__(self) -> bool:
        return self.states[-1]

    def gather(self) -> None:
        self.states.append(True)

    def disband(self) -> None:
        self.states.append(False)


def test_threads_spin_while_nobody_else_is_there_and_sleep_when_somebody_comes() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    shares = [float(cores), 0.0, 0.0, float(cores), 0.0]
    seen: list[Used | None] = [Used(0.0, 100.0, 5.0)]
    for share in shares:  # ours take a core and a half all the while, which is nobody else's
        last = seen[-1]
        assert last is not None
        seen.append(Used(last.at + 2, last.by_all + 2 * share + 3, last.by_us + 3))
    teams, slept = Noted(), list[float]()
    measured = iter([*seen, None])
    watch(teams, measure=lambda: next(measured), sleep=slept.append)
    free = torch.get_num_threads() > cores
    assert teams.states == [True, *(share > 0 or free for share in shares), True]
    assert len(slept) == len(shares) + 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/stat")
def test_what_others_take_is_told_from_what_we_take() -> None:
    before = used()
    if before is None:
        pytest.skip("processor time is rationed here")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burning:
        time.sleep(1.0)
        burning.kill()
    between = used()
    began = time.process_time()
    while time.process_time() - began < 0.5:
        pass
    after = used()
    assert between is not None
    assert after is not None
    assert between.by_us - before.by_us < 0.3
    assert between.by_all - before.by_all > 0.4
    assert after.by_us - between.by_us == pytest.approx(0.5, abs=0.15)
    assert after.by_all - between.by_all > 0.3


@has_libgomp
def test_cores_on_which_we_may_not_run_do_not_count() -> None:
    code = """
import os, subprocess, sys, time
from tunesmith.model.waiting import used

own, other, *_ = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, {own})
before = used()
pinned = f"import os; os.sched_setaffinity(0, {{{other}}})\\nwhile True: pass"
with subprocess.Popen([sys.executable, "-c", pinned]) as burning:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass
    burning.kill()
after = used()
print(after.by_all - before.by_all if before else 0.0, after.at - before.at if before else 1.0)
"""
    taken, seconds = map(float, run(code).split())
    assert taken < 1.2 * seconds

"""How torch's threads wait for each other on a CPU: they spin while nobody else wants the cores, and sleep where somebody does.

Between two products a thread waits for some microseconds. One that spins goes on at once; one that sleeps must be woken, for as long as a
small product takes. But a thread that spins on a busy machine takes the core from the one it waits for. GNU's libgomp, by which torch
divides its work on Linux, reads once, when it is loaded, for how long to spin (`GOMP_SPINCOUNT`); afterwards it knows one rule: with more
threads in its teams than there are cores it spins shortly. So idle teams are the switch: while a few threads of ours that have teams stand
still, everybody waits quietly, and when they end, everybody spins. No result depends on it.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from tunesmith import SPIN_COUNT

__all__ = ["IdleTeams", "Used", "adapt_waiting", "is_crowded", "used", "watch"]

_INTERVAL_S = 0.5
_ROOM = (0.1, 0.25)
"""Cores that others take without being in the way: below the first threads spin, above the second they wait quietly."""
_GRAIN = 2**15
"""Elements from which on torch divides its work, for each thread."""


class IdleTeams:
    """Threads that do nothing and own as many of libgomp's threads as there are cores."""

    def __init__(self) -> None:
        """Start none."""
        self._leave = threading.Event()
        self._threads: list[threading.Thread] = []

    def __bool__(self) -> bool:
        return bool(self._threads)

    def gather(self) -> None:
        """From now on threads wait quietly."""
        if self._threads:
            return
        self._leave.clear()
        others = max(torch.get_num_threads() - 1, 1)
        for _ in range(math.ceil((os.cpu_count() or 1) / others)):
            ready = threading.Event()
            thread = threading.Thread(target=self._stand, args=(ready,), name="quiet waiting", daemon=True)
            thread.start()
            self._threads.append(thread)
            ready.wait()

    def disband(self) -> None:
        """From now on threads spin."""
        self._leave.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _stand(self, ready: threading.Event) -> None:
        torch.zeros(_GRAIN * torch.get_num_threads() * 2).add_(1)  # makes the team
        ready.set()
        self._leave.wait()


class Used(NamedTuple):
    """Seconds of processor time since the machine's start, and since the process's."""

    at: float
    by_all: float
    by_us: float


def adapt_waiting() -> None:
    """Watch from now on, in a thread of its own, whether others want the cores, and have torch's threads wait accordingly.

    Nothing is done where the user has set `GOMP_SPINCOUNT`, without libgomp (outside Linux), with one thread, or in a container whose
    processor time is rationed: there threads wait as they do. A second call changes nothing.
    """
    _watched(os.getpid())


def is_crowded(others: float, *, was_crowded: bool, num_threads: int, num_cores: int) -> bool:
    """Whether threads that spin would be in somebody's way.

    Args:
        others: cores' worth of processor time that others take.
        was_crowded: so far; what lies between the limits changes nothing.
        num_threads: of ours that wait for each other.
        num_cores: that they may run on.
    """
    least, most = _ROOM
    free = num_cores - num_threads
    return others > free + (least if was_crowded else most)


def used() -> Used | None:
    """Processor time so far; None where it cannot be known, or processor time is rationed."""
    with contextlib.suppress(OSError, ValueError):
        if Path("/sys/fs/cgroup/cpu.max").read_text().split()[0] != "max":
            return None
    try:
        ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        ticks = sum(_busy(figures) for name, *figures in lines if name in ours)
        own = os.times()
        return Used(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own.user + own.system)
    except (OSError, ValueError, AttributeError):
        return None


def _busy(figures: list[str]) -> int:
    """Ticks of user, nice, system, irq, softirq and steal (proc(5)): idle and iowait are nobody's."""
    user, nice, system, _, _, *rest = map(int, figures)
    return user + nice + system + sum(rest[:3])


@cache
def _watched(pid: int) -> bool:  # noqa: ARG001 - a fork has threads of its own
    if os.environ.get("GOMP_SPINCOUNT") != SPIN_COUNT or torch.get_num_threads() == 1 or used() is None:
        return False
    if "libgomp" not in Path("/proc/self/maps").read_text():
        return False
    teams = IdleTeams()
    teams.gather()
    threading.Thread(target=watch, args=(teams,), name="waiting", daemon=True).start()
    return True


def watch(teams: IdleTeams, *, measure: Callable[[], Used | None] = used, sleep: Callable[[float], None] = time.sleep) -> None:
    """Gather the teams while others want the cores, and disband them while nobody does; until nothing can be measured."""
    before = measure()
    while before is not None:
        sleep(_INTERVAL_S)
        now = measure()
        if now is None:
            teams.gather()
            return
        others = max(now.by_all - before.by_all - (now.by_us - before.by_us), 0.0) / max(now.at - before.at, 1e-3)
        num_cores = len(os.sched_getaffinity(0))
        if is_crowded(others, was_crowded=bool(teams), num_threads=torch.get_num_threads(), num_cores=num_cores):
            teams.gather()
        else:
            teams.disband()
        before = now

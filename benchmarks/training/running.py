"""One timed run: a fresh process, its wall time, its memory, and what others did to the machine meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tunesmith

__all__ = [
    "QUIET",
    "Measured",
    "RunFailed",
    "busy_seconds",
    "environment",
    "foreign_share",
    "held_out_loss",
    "machine",
    "measure",
    "our_path",
    "say",
    "time_side",
    "usable_cores",
]

QUIET = 0.05
"""Foreign load above which two threads that wait for each other lose more than the load itself."""

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT, _GUEST = 3, 4, 8


class RunFailed(Exception):
    """A side did not come to its end; with the last lines it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the system says of a process."""

    started_at: float
    """On the monotonic clock, which all processes share."""
    peak_mb: float
    cpu_s: float
    foreign_share: float
    """Share of all cores' time that went to anybody else."""


def environment(*, threads: int, cache: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The same for every side: threads, no network, nothing kept from run to run but what `extra` says."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "LD_PRELOAD", "PYTHON", "OMP_"))}
    return {
        **kept,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(cache),
        "TOKENIZERS_PARALLELISM": "true",
        **extra,
    }


def measure(command: Sequence[str], *, env: Mapping[str, str], log: Path) -> Measured:
    """Run to the end.

    Raises:
        RunFailed: the exit status was not 0.
    """
    with log.open("wb") as out:
        busy, started_at = busy_seconds(Path("/proc/stat").read_text()), time.monotonic()
        process = subprocess.Popen(
            command, env=dict(env), stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        wall_s = time.monotonic() - started_at
        busy = busy_seconds(Path("/proc/stat").read_text()) - busy
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    if process.returncode:
        tail = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise RunFailed(f"exit status {process.returncode}, {log}: {' / '.join(line.strip()[:300] for line in tail)}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Measured(
        started_at=started_at,
        peak_mb=usage.ru_maxrss / 1024,
        cpu_s=cpu_s,
        foreign_share=foreign_share(busy_s=busy, own_s=cpu_s, wall_s=wall_s, cores=os.cpu_count() or 1),
    )


def busy_seconds(stat: str) -> float:
    """CPU time that /proc/stat has counted as not idle, over all cores, stolen time included (guest time is part of user time)."""
    ticks = [int(field) for field in stat.splitlines()[0].split()[1:]]
    return sum(ticks[i] for i in range(len(ticks)) if i not in {_IDLE, _IOWAIT} and i < _GUEST) / _TICKS


def foreign_share(*, busy_s: float, own_s: float, wall_s: float, cores: int) -> float:
    """Share of the machine that others took while a process ran."""
    return max(0.0, busy_s - own_s) / (wall_s * cores)


def time_side(command: Sequence[str], orders: Mapping[str, Any], *, env: Mapping[str, str], log: Path) -> dict[str, Any]:
    """Run a side of `sides/`: what it says of itself (sides/clock.py), and what the system says of it.

    Args:
        command: the side's; the file with its orders is appended.
        orders: with `scratch`, a folder for it, and `report`, a file in which it reports.
        env: of the process.
        log: for what it prints.

    Raises:
        RunFailed: it did not come to its end.
    """
    file = Path(orders["scratch"]) / "orders.json"
    file.write_text(json.dumps(orders))
    measured = measure([*command, str(file)], env=env, log=log)
    report = json.loads(Path(orders["report"]).read_text())
    return {
        **report,
        "wall_s": report["saved_at"] - measured.started_at,
        "peak_mb": measured.peak_mb,
        "cpu_s": measured.cpu_s,
        "foreign_share": measured.foreign_share,
    }


def held_out_loss(saved: Path, *, base: Path, rows: Path, learn: str, scratch: Path) -> float:
    """Nats per supervised token of held-out rows, by the evaluator in a process of its own.

    Args:
        saved: the folder of a side, or the base's own.
        base: what an adapter belongs to.
        rows: a JSON file of tokens and which of them are supervised.
        learn: `answers` or `everything`.
        scratch: an existing folder.
    """
    orders, out = scratch / "evaluation.json", scratch / "evaluation.txt"
    facts = {"base": str(base), "saved": str(saved), "held_out": str(rows), "learn": learn}
    orders.write_text(json.dumps(facts))
    command = [sys.executable, str(Path(__file__).with_name("evaluator.py")), str(orders)]
    # Untimed, so one thread: it shall not wait for a busy core.
    measure(command, env=environment(threads=1, cache=scratch, extra=our_path()), log=out)
    return float(json.loads(out.read_text().splitlines()[-1])["held_out"])


def our_path() -> dict[str, str]:
    """For a process that shall import the tunesmith that is imported here; never for a peer."""
    return {"PYTHONPATH": str(Path(tunesmith.__file__).parents[1])}


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"processor": model, "system": platform.platform(), "python": platform.python_version()}


def say(line: str) -> None:
    """Progress goes to stderr."""
    print(line, file=sys.stderr, flush=True)

"""How long `tunesmith --help` takes, against its limit and against an empty Python."""

from __future__ import annotations

import subprocess
import sys
import time

LIMIT_S = 0.35
_REPEATS = 10


def measure() -> dict[str, float]:
    """Medians over interleaved runs."""
    ours, empty = [], []
    for _ in range(_REPEATS):
        ours.append(_seconds([sys.executable, "-m", "tunesmith", "--help"]))
        empty.append(_seconds([sys.executable, "-c", "pass"]))
    help_s, python_s = sorted(ours)[_REPEATS // 2], sorted(empty)[_REPEATS // 2]
    return {"help_s": help_s, "empty_python_s": python_s, "share_of_limit": help_s / LIMIT_S}


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start

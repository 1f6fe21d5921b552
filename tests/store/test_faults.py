"""Killed by the system at any call on files, in a publish and in a promotion: the registry is whole afterwards, and the champion is sound.

`strace` delivers SIGKILL at the n-th call. Each round is a fork of one process that has taken the same way before, so that what is
imported late is imported already, every round makes the same calls, and their numbers are exact.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import require_tool

from tunesmith.records import ModelVersion
from tunesmith.store import Store, examine

_ROUNDS = 10
"""Kills in each quick test, spread evenly over all its calls; one at every call has the marker slow."""

_FORKS = """
import ctypes, os, signal, sys, traceback
from pathlib import Path
from tunesmith.records import ModelVersion
from tunesmith.store import Store

def promote(store):
    store.ledger.point("m", alias="champion", version=2, because=["better"], actor="ada", expected_generation=1,
                       arms={"m@2": 0.75, "m@1": 0.25})

def publish(store):
    with store.artefacts.publish("model") as staging:
        (staging.path / "weights").write_bytes(b"3" * 5000)
    version = store.ledger.register(ModelVersion(name="m", number=0, run="3", artefact=staging.artefact.digest, weights_digest="",
                                                 chat_digest="", base_digest="", created_at=""))
    store.ledger.point("m", alias="champion", version=version.number, because=[], actor="ada", expected_generation=1)

change = {"promote": promote, "publish": publish}[sys.argv[1]]
change(Store(Path(sys.argv[2])))
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # where only a parent may trace, anybody may trace this one
            os.kill(os.getpid(), signal.SIGSTOP)
            change(Store(Path(line.strip())))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.waitpid(pid, os.WUNTRACED)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def make_store(folder: Path) -> Store:
    store = Store(folder)
    for content in ("1", "2"):
        with store.artefacts.publish("model") as staging:
            (staging.path / "weights").write_text(content)
        digest = staging.artefact.digest
        store.ledger.register(
            ModelVersion(
                name="m", number=0, run=content, artefact=digest, weights_digest="", chat_digest="", base_digest="", created_at=""
            )
        )  # fmt: skip
    store.ledger.point("m", alias="champion", version=1, because=["first"], actor="ada", expected_generation=0)
    return store


class Forks:
    """The process that is forked for each round."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, folder: Path, *options: str) -> tuple[int, str]:
        """Change the store in a folder under `strace`: the exit status, below 0 for a signal, and the calls."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        command = [require_tool("strace"), "-qq", "-p", str(pid), "-e", "trace=%file,%desc", *options]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while tracer.poll() is None and "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.001)
        os.kill(pid, signal.SIGCONT)
        code = int(self._process.stdout.readline())
        return code, tracer.communicate(timeout=60)[1]


@contextmanager
def forks_of(change: str, folder: Path) -> Iterator[Forks]:
    process = subprocess.Popen(
        [sys.executable, "-c", _FORKS, change, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Forks(process)
    finally:
        process.communicate(timeout=60)


def calls_of(forks: Forks, folder: Path) -> list[tuple[str, int]]:
    """Every call on files: its name, and its number among calls of its name, as `when=` counts."""
    code, said = forks.run(folder)
    assert code == 0, said
    names = re.findall(r"^(\w+)\(", said, re.MULTILINE)
    counts: Counter[str] = Counter()
    found = []
    for name in names:
        counts[name] += 1
        found.append((name, counts[name]))
    return [(name, number) for name, number in found if name != "mmap"]  # memory that is asked for between them


@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"])
@pytest.mark.parametrize(("change", "new"), [("promote", 2), ("publish", 3)])
def test_a_kill_at_a_call_on_files_leaves_the_old_champion_or_the_new_one_and_the_doctor_makes_it_whole(
    tmp_path: Path, change: str, new: int, is_every: bool
) -> None:
    with forks_of(change, make_store(tmp_path / "warm").root) as forks:
        calls = calls_of(forks, make_store(tmp_path / "whole").root)
        assert {"openat", "pwrite64", "fdatasync", "unlink", "fcntl"} <= {name for name, _ in calls}
        chosen = calls if is_every else [calls[index * (len(calls) - 1) // (_ROUNDS - 1)] for index in range(_ROUNDS)]
        champions = []
        for index, (name, number) in enumerate(chosen):
            store = make_store(tmp_path / str(index))
            code, said = forks.run(store.root, "-e", f"inject={name}:signal=SIGKILL:when={number}")
            assert code == -signal.SIGKILL, f"{name} {number}: {code} {said}"
            champions.append(champion_after(store))
    # Once the new one answers, no later kill brings the old one back.
    assert champions == sorted(champions)
    assert set(champions) == {1, new}


def champion_after(store: Store) -> int:
    """The champion's number after the doctor has been, with everything that must hold."""
    examine(store, repair=True)
    assert examine(store).sound
    champion = store.ledger.version("m")
    assert store.artefacts.verify(champion.artefact) == []
    assert store.ledger.database.problems() == []
    # Champion, traffic and previous moved together or not at all.
    held, moved = store.ledger.deployment("m", "champion"), champion.number != 1
    assert held is not None
    assert held.generation == 1 + moved
    assert ("previous" in store.ledger.aliases("m")) == moved
    assert len(held.arms) == (2 if champion.number == 2 else 1)
    return champion.number

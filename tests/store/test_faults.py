"""Killed by the system at any call on files, in a publish and in a promotion: the registry is whole afterwards, and the champion is sound.

`strace` delivers SIGKILL at the n-th call; each round is a process of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import require_tool

from tunesmith.records import ModelVersion
from tunesmith.store import Store, examine

_CALLS = "openat,write,pwrite64,fsync,fdatasync,rename,unlink,mkdir,ftruncate,chmod,fchmod"
_ROUNDS = 10
"""Kills in each quick test, spread evenly over all its calls; every one takes minutes, and has the marker slow."""

_BEGIN = """
import sys; from pathlib import Path
from tunesmith.records import ModelVersion
from tunesmith.store import Store, examine, rollback
store = Store(Path(sys.argv[1]))
store.ledger.versions(); list(store.artefacts.digests())
import tunesmith.store.digest, tunesmith.store.artefacts
open(sys.argv[1] + "/begin", "w").close()
"""
_PROMOTE = _BEGIN + (
    'store.ledger.point("m", alias="champion", version=2, because=["better"], actor="ada", expected_generation=1, '
    'arms={"m@2": 0.75, "m@1": 0.25})\n'
)
_PUBLISH = _BEGIN + (
    'with store.artefacts.publish("model") as staging:\n'
    '    (staging.path / "weights").write_bytes(b"3" * 5000)\n'
    'version = store.ledger.register(ModelVersion(name="m", number=0, run="3", artefact=staging.artefact.digest, weights_digest="",\n'
    '    chat_digest="", base_digest="", created_at=""))\n'
    'store.ledger.point("m", alias="champion", version=version.number, because=[], actor="ada", expected_generation=1)\n'
)


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


def traced(script: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    strace = require_tool("strace")
    command = [strace, "-f", "-qq", "-e", f"trace={_CALLS}", *options, sys.executable, "-c", script, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def calls_of(script: str, folder: Path) -> list[tuple[str, int]]:
    """The calls after the beginning: each with its number among calls of its name, as `when=` counts."""
    done = traced(script, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    counts: dict[str, int] = {}
    found, has_begun = [], False
    for line in done.stderr.splitlines():
        if (name := re.search(r"^(?:\[pid +\d+\] )?(\w+)\(", line)) is None:
            continue
        counts[name[1]] = counts.get(name[1], 0) + 1
        has_begun = has_begun or "/begin" in line
        if has_begun:
            found.append((name[1], counts[name[1]]))
    return found


@pytest.mark.parametrize("is_every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"])
@pytest.mark.parametrize(("script", "versions"), [(_PROMOTE, {1, 2}), (_PUBLISH, {1, 3})], ids=["promote", "publish"])
def test_a_kill_at_a_call_on_files_leaves_the_old_champion_or_the_new_one_and_the_doctor_makes_it_whole(
    tmp_path: Path, script: str, versions: set[int], is_every: bool
) -> None:
    make_store(tmp_path / "whole")
    calls = calls_of(script, tmp_path / "whole")
    assert len(calls) > 2 * _ROUNDS
    champions, num_killed = set(), 0
    chosen = calls[1:] if is_every else [calls[1 + index * (len(calls) - 2) // (_ROUNDS - 1)] for index in range(_ROUNDS)]
    for index, (name, number) in enumerate(chosen):
        store = make_store(tmp_path / str(index))
        done = traced(script, store.root, "-e", f"inject={name}:signal=SIGKILL:when={number}")
        num_killed += done.returncode in {-9, 137}  # numbers may differ by a few from one process to the next
        examine(store, repair=True)
        assert examine(store).sound
        champion = store.ledger.version("m")
        champions.add(champion.number)
        assert store.artefacts.verify(champion.artefact) == []
        assert store.ledger.database.problems() == []
        # Champion, traffic and previous moved together or not at all.
        held, moved = store.ledger.deployment("m", "champion"), champion.number != 1
        assert held.generation == 1 + moved
        assert ("previous" in store.ledger.aliases("m")) == moved
        assert len(held.arms) == (2 if champion.number == 2 else 1)
    assert num_killed >= 0.8 * len(chosen)
    assert champions <= versions
    assert 1 in champions

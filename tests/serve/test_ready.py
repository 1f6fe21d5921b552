"""`/readyz` looks at what the server stands on: its disk, and the ledger that has the keys."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tunesmith.serve import key_ring
from tunesmith.serve.disk import LEAST_ROOM_BYTES


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, half as large again as what must be free."""
    if os.geteuid():
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    size = f"size={LEAST_ROOM_BYTES * 3 // 2}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=False)


def test_a_disk_without_room_takes_the_server_out_of_the_rotation_until_there_is_room_again(scripted, running, disk):
    server = running(boutique=scripted("Yes."), disk=disk / "not" / "made yet")
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}
    filling = disk / "large"
    filling.write_bytes(b"\0" * LEAST_ROOM_BYTES)
    answer = httpx.get(f"{server.url}/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk")
    assert str(disk) not in answer.text, "who asks has no key"
    assert httpx.get(f"{server.url}/livez").status_code == 200, "a new start would mend nothing"
    assert server.post().status_code == 200, "who comes all the same is answered"
    filling.unlink()
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_disk_that_can_only_be_read_is_none_to_serve_from(scripted, running, disk):
    server = running(boutique=scripted("Yes."), disk=disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    answer = httpx.get(f"{server.url}/readyz")
    assert (answer.status_code, "only be read" in answer.text) == (503, True)


def test_a_ledger_that_is_away_counts_when_keys_are_refused_for_it(scripted, running, workspace_keys, monkeypatch):
    monkeypatch.setattr(key_ring, "_STRANGER_S", 0.0)
    server = running(boutique=scripted("Yes."), keys=workspace_keys)
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    read = workspace_keys.good

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(workspace_keys, "good", fail)
    assert httpx.get(f"{server.url}/readyz").status_code == 200, "known keys are good for minutes yet"
    monkeypatch.setattr(key_ring, "_GRACE_S", 0.0)
    answer = httpx.get(f"{server.url}/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    monkeypatch.undo()
    monkeypatch.setattr(key_ring, "_STRANGER_S", 0.0)
    assert workspace_keys.good == read
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_server_with_no_keys_asks_no_ledger(scripted, running):
    assert httpx.get(f"{running(boutique=scripted('Yes.')).url}/readyz").status_code == 200

"""A stage is a pure function whose key is the hash of its inputs, its configuration and its code.

What a key has once produced is never computed again; a stage that was killed leaves nothing behind and starts over, or goes on
from its own checkpoints.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tunesmith.errors import NotFound, UserError
from tunesmith.store import Artefact, Store, digest_of, digest_of_file

__all__ = ["code_digest", "finished_stage", "only_one", "run_stage", "stage_key"]


@cache
def _code_digest(room: str) -> str:
    """Hash of a room's own source files."""
    folder = Path(__file__).parents[1] / room
    return digest_of({file.relative_to(folder).as_posix(): digest_of_file(file) for file in sorted(folder.rglob("*.py"))})


def stage_key(stage: str, *, inputs: Mapping[str, object], rooms: tuple[str, ...]) -> str:
    """The identity of a stage's result.

    Args:
        stage: its name.
        inputs: digests of what goes in, and its configuration, JSON-able.
        rooms: packages whose code decides the result; a change in one makes a new key.
    """
    return digest_of({"stage": stage, "inputs": dict(inputs), "code": {room: _code_digest(room) for room in rooms}})


def code_digest(rooms: tuple[str, ...]) -> str:
    """One digest of the source files of several rooms."""
    return digest_of({room: _code_digest(room) for room in rooms})


def finished_stage(store: Store, key: str) -> Artefact | None:
    """What a key has produced before, if it is still there; from now on `gc` leaves it alone for its whole grace time."""
    digest = store.ledger.stage(key)
    if digest is None:
        return None
    try:
        return store.artefacts.touch(digest)
    except NotFound:
        return None


def run_stage(store: Store, *, stage: str, key: str, build: Callable[[Path], None]) -> Artefact:
    """Build a stage's artefact in a staging folder and publish it, or return the one that is there."""
    if (finished := finished_stage(store, key)) is not None:
        return finished
    with store.artefacts.publish(stage) as staging:
        build(staging.path)
    store.ledger.record_stage(key, stage=stage, artefact=staging.artefact.digest)
    return staging.artefact


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a job folder. The lock dies with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another tunesmith process is at work on this very run ({folder}); wait for it or stop it"
            ) from error
        yield

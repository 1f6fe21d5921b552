"""Committed checkpoints: a killed run goes on exactly where its newest whole checkpoint stands.

A checkpoint is a folder `step-00000123` with `tensors.safetensors` (weights, optimiser moments, random state, best weights),
`state.json` and `manifest.json` (sha256 of both). It is written under another name, synced, and renamed into place: what has
the right name and the right hashes is whole. Anything else is passed over with a warning. No pickle.

Knows nothing of what the tensors mean; `position.py` does.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import orjson
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.store.digest import digest_of_file

__all__ = ["Checkpoint", "CheckpointWarning", "Checkpoints", "newest_checkpoint", "write_checkpoint"]

_FILES = ("tensors.safetensors", "state.json")
_KEEP = 2
"""The newest, and one before it in case the newest is damaged later."""
_CHEAP_S = 0.5
"""Seconds that a checkpoint may hold up the loop before they come more rarely: a twentieth of the time between two."""


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged, or is of another run, and has been passed over."""


class Checkpoint(NamedTuple):
    """Everything a run needs to go on."""

    state: dict[str, Any]
    tensors: dict[str, Tensor]


class Checkpoints:
    """A run's checkpoints, written by a second thread while the loop goes on; at most one is being written at a time.

    Tensors in main memory are lent to that thread and not copied, so a checkpoint takes no memory: whoever is about to change
    them calls `reclaim` first. Between two optimiser steps nothing changes them, and there the loop spends nearly all its time.
    Tensors on a GPU are copied to main memory at once.

    The block ends when the last one is committed. A write that failed raises its error there at the latest.
    """

    def __init__(self, folder: Path, *, fingerprint: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._fingerprint = dict(fingerprint or {})
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self._is_lent = False
        self._written_at = time.monotonic()
        self._held_up_s = 0.0

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def newest(self, *, check: Callable[[Checkpoint], object]) -> Checkpoint | None:
        """The newest checkpoint of this very run; see `newest_checkpoint`."""
        return newest_checkpoint(self._folder, fingerprint=self._fingerprint, check=check)

    def is_due(self, *, every_s: float) -> bool:
        """Whether it is time for the next one. Where they hold up the loop for long, they come more rarely."""
        pause_s = every_s * max(1.0, self._held_up_s / _CHEAP_S)
        return time.monotonic() - self._written_at >= pause_s

    def write(self, *, step: int, state: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        """Begin to write a checkpoint, after the one before it is committed.

        Args:
            step: optimiser steps done.
            state: JSON-able.
            tensors: by name; lent until `reclaim` or `wait` returns.
        """
        self.wait()
        start = time.monotonic()
        self._is_lent = all(tensor.device.type == "cpu" for tensor in tensors.values())
        taken = {name: tensor.detach().to("cpu", copy=not self._is_lent) for name, tensor in tensors.items()}
        whole_state = {**state, "fingerprint": self._fingerprint}
        thread = Thread(target=self._write, args=(step, whole_state, taken), name=f"checkpoint of step {step}")
        thread.start()
        self._thread = thread
        self._written_at = time.monotonic()
        self._held_up_s = self._written_at - start

    def reclaim(self) -> None:
        """Return when the tensors of the last checkpoint may be changed again.

        Raises:
            OSError: it could not be written; the disk may be full.
        """
        if self._is_lent:
            self.wait()

    def wait(self) -> None:
        """Return when the last checkpoint is committed.

        Raises:
            OSError: it could not be written; the disk may be full.
        """
        if self._thread is None:
            return
        start = time.monotonic()
        self._thread.join()
        self._held_up_s += time.monotonic() - start
        self._thread = None
        if (error := self._error) is not None:
            self._error = None
            raise error

    def _write(self, step: int, state: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        try:
            write_checkpoint(self._folder, step=step, state=state, tensors=tensors)
        except BaseException as error:
            self._error = error


def write_checkpoint(
    folder: Path, *, step: int, state: Mapping[str, object], tensors: Mapping[str, Tensor], keep: int = _KEEP
) -> None:
    """Commit a checkpoint and drop all but the newest few up to this step.

    What stands beyond `step` is damaged or of an abandoned course (the run went back to before it), and would stand in the way.

    Args:
        folder: the run's checkpoint folder.
        step: optimiser steps done.
        state: JSON-able.
        tensors: by name, on the CPU.
        keep: how many stay, this one included.
    """
    final = folder / f"step-{step:08d}"
    staging = folder / f".writing-{step:08d}"
    for leftover in folder.glob(".writing-*"):
        _remove(leftover)
    staging.mkdir(parents=True)
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, staging / "tensors.safetensors")
        (staging / "state.json").write_bytes(orjson.dumps(state))
        manifest = {name: digest_of_file(staging / name) for name in _FILES}
        (staging / "manifest.json").write_bytes(orjson.dumps(manifest))
        for file in (*staging.iterdir(), staging):
            _sync(file)
        _remove(final)
        staging.rename(final)
    except BaseException:
        _remove(staging)
        raise
    _sync(folder)
    committed = _committed(folder)
    newest_of_this_course = [path for path in committed if path.name <= final.name][-keep:]
    for other in committed:
        if other not in newest_of_this_course:
            _remove(other)


def newest_checkpoint(
    folder: Path,
    *,
    fingerprint: Mapping[str, str] | None = None,
    check: Callable[[Checkpoint], object] = lambda _: None,
) -> Checkpoint | None:
    """The newest checkpoint that is whole and of this run; None when there is none. The others are passed over with a warning.

    Args:
        folder: the run's checkpoint folder.
        fingerprint: hashes of what the run depends on, by name; a checkpoint of another fingerprint is of another run.
        check: raises ValueError, LookupError, TypeError or RuntimeError if a whole checkpoint does not fit the run all the same.
    """
    for candidate in reversed(_committed(folder)):
        try:
            checkpoint = _read(candidate)
        except (OSError, ValueError, SafetensorError) as error:
            _pass_over(candidate, f"is damaged and was passed over: {error}")
            continue
        if parts := _differing(checkpoint.state.get("fingerprint"), fingerprint or {}):
            others = " and ".join(f"other {part}" for part in parts)
            advice = "This run's first checkpoint takes its place; to keep it, move it away"
            _pass_over(candidate, f"is of another run ({others}) and was passed over. {advice}")
            continue
        try:
            check(checkpoint)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            _pass_over(candidate, f"does not fit this run and was passed over: {error}")
            continue
        return checkpoint
    return None


def _read(candidate: Path) -> Checkpoint:
    """Read a checkpoint whose files are all there and unaltered."""
    manifest = _read_object(candidate / "manifest.json")
    for name in _FILES:
        if digest_of_file(candidate / name) != manifest.get(name):
            raise ValueError(f"{name} does not match its sha256")
    return Checkpoint(state=_read_object(candidate / "state.json"), tensors=load_file(candidate / "tensors.safetensors"))


def _read_object(file: Path) -> dict[str, Any]:
    value = orjson.loads(file.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return value


def _differing(theirs: object, ours: Mapping[str, str]) -> list[str]:
    theirs = theirs if isinstance(theirs, dict) else {}
    return sorted(part for part in {*theirs, *ours} if theirs.get(part) != ours.get(part))


def _pass_over(candidate: Path, why: str) -> None:
    warnings.warn(f"checkpoint {candidate.name} {why}", CheckpointWarning, stacklevel=3)


def _committed(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????")) if folder.is_dir() else []


def _remove(path: Path) -> None:
    """Remove a folder, or a file in its place; what cannot be removed stays, and is passed over if it counts for nothing."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

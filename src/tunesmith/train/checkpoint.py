"""Committed checkpoints: a killed run goes on exactly where its newest whole checkpoint stands.

A checkpoint is a folder `step-00000123` with `tensors.safetensors` (weights, optimiser moments, random state, best weights),
`state.json` and `manifest.json` (sha256 of both). It is written under another name, synced, and renamed into place: what has
the right name and the right hashes is whole. Anything else is passed over with a warning. No pickle.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.store.digest import digest_of_file

__all__ = ["Checkpoint", "CheckpointWarning", "newest_checkpoint", "write_checkpoint"]

_FILES = ("tensors.safetensors", "state.json")
_KEEP = 2
"""The newest, and one before it in case the newest is damaged later."""


class CheckpointWarning(UserWarning):
    """A checkpoint was damaged and has been passed over."""


class Checkpoint(NamedTuple):
    """Everything a run needs to go on."""

    state: dict[str, Any]
    tensors: dict[str, Tensor]


def write_checkpoint(folder: Path, *, step: int, state: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Commit a checkpoint and drop all but the newest two up to this step.

    What stands beyond `step` is damaged or of an abandoned course (the run went back to before it), and would stand in the way.

    Args:
        folder: the run's checkpoint folder.
        step: optimiser steps done.
        state: JSON-able.
        tensors: by name; copied to the CPU by the writer.
    """
    final = folder / f"step-{step:08d}"
    staging = folder / f".writing-{step:08d}"
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, staging / "tensors.safetensors")
        (staging / "state.json").write_bytes(orjson.dumps(state))
        manifest = {name: digest_of_file(staging / name) for name in _FILES}
        (staging / "manifest.json").write_bytes(orjson.dumps(manifest))
        for file in (*staging.iterdir(), staging):
            _sync(file)
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync(folder)
    committed = _committed(folder)
    newest_of_this_course = [path for path in committed if path.name <= final.name][-_KEEP:]
    for other in committed:
        if other not in newest_of_this_course:
            shutil.rmtree(other)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose files are all there and unaltered; None when there is none."""
    for candidate in reversed(_committed(folder)):
        try:
            manifest = orjson.loads((candidate / "manifest.json").read_bytes())
            for name in _FILES:
                if digest_of_file(candidate / name) != manifest.get(name):
                    raise ValueError(f"{name} does not match its sha256")
            state = orjson.loads((candidate / "state.json").read_bytes())
            return Checkpoint(state=state, tensors=load_file(candidate / "tensors.safetensors"))
        except (OSError, ValueError, AttributeError, SafetensorError) as error:
            warnings.warn(f"checkpoint {candidate.name} is damaged and was passed over: {error}", CheckpointWarning, stacklevel=2)
    return None


def _committed(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????")) if folder.is_dir() else []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

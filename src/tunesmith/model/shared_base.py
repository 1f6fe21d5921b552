"""A base in memory once for all the adapters that stand on it.

Every adapter gets modules of its own, so that each is served, switched off and let go by itself; the tensors in them are the base's. What a
server lays out anew of the weights (`lean_products`) is made once too. Nobody may change the weights any more.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from torch import nn

from tunesmith.model.load import load_model
from tunesmith.model.machine import Machine

__all__ = ["SharedBase", "SharedBases", "base_beneath"]

_BASE = "_tunesmith_shared_base"
"""In a module's own dictionary, past torch's attributes: the base is no part of the model that stands on it."""


@dataclass(eq=False, kw_only=True)
class SharedBase:
    """A base, and what is made of its weights once for all who stand on it."""

    model: nn.Module
    made: dict[str, Any] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    """Held while something is made."""


class SharedBases:
    """Loads bases, each once as long as some model stands on it. Safe for several threads."""

    def __init__(self) -> None:
        self._kept: WeakValueDictionary[Hashable, SharedBase] = WeakValueDictionary()
        self._lock = Lock()

    def load(self, folder: Path, *, machine: Machine) -> nn.Module:
        """A model with the base's own tensors, to put an adapter on. Files that have changed since are another base.

        Raises:
            ModelError: the folder is unsafe, or transformers cannot make a causal model of it.
        """
        states = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
        key = (folder.resolve(), machine, tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states))
        with self._lock:
            base = self._kept.get(key)
            if base is None:
                base = self._kept[key] = SharedBase(model=load_model(folder, machine=machine))
            return _standing_on(base)


def base_beneath(model: nn.Module) -> SharedBase | None:
    """The base whose tensors a model shares with others, or None."""
    return vars(model).get(_BASE)


def _standing_on(base: SharedBase) -> nn.Module:
    tensors = [*base.model.parameters(), *base.model.buffers()]
    twin = copy.deepcopy(base.model, {id(tensor): tensor for tensor in tensors})
    vars(twin)[_BASE] = base
    return twin

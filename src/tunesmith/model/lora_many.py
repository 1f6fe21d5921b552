"""Several adapters on one model, each for its own tokens of a pass (S-LoRA: Sheng et al. 2023, arXiv 2311.03285).

The base's products are computed once for all tokens; each adapter adds its update to the tokens of the requests that named it.

Shapes: T tokens of a pass, N of them with one adapter; k inputs and o outputs of a layer, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.model.adapter_files import AdapterFile, read_adapter_file
from tunesmith.model.lora import is_adapter, linear_layers

__all__ = ["AdapterSet", "ManyLayer", "adapters_of_pass"]


class _Low(NamedTuple):
    """One adapter's update of one layer."""

    down_rk: Tensor
    up_or: Tensor


_whose: ContextVar[Sequence[tuple[str, Tensor | None]]] = ContextVar("whose", default=())
"""Adapters of this pass with their tokens (N,); None: all."""


def adapters_of_pass() -> bool:
    """Whether any request of the pass that runs names an adapter."""
    return bool(_whose.get())


class ManyLayer(nn.Module):
    """A linear layer with updates by name; stands in the model where the linear layer stood."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.lows: dict[str, _Low] = {}

    @property
    def weight(self) -> Any:
        return self.base.weight

    @property
    def bias(self) -> Any:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.updated(x, self.base(x))

    def updated(self, x: Tensor, output: Tensor) -> Tensor:
        """The base's output, with what each adapter adds for the tokens that named it."""
        for name, rows_N in _whose.get():
            low = self.lows.get(name)
            if low is None:
                continue
            if rows_N is None:
                output = output + functional.linear(functional.linear(x, low.down_rk), low.up_or)
            else:
                x_TK, out_TO = x.flatten(0, -2), output.flatten(0, -2)
                update_NO = functional.linear(functional.linear(x_TK.index_select(0, rows_N), low.down_rk), low.up_or)
                output = out_TO.index_add(0, rows_N, update_NO).view_as(output)
        return output


class AdapterSet:
    """The adapters that requests on one model may name. Loading and unloading never touches the base's weights."""

    def __init__(self, model: nn.Module) -> None:
        """Take a model.

        Raises:
            ModelError: it has an adapter of its own already.
        """
        if is_adapter(model):
            raise ModelError("several adapters need a base without one")
        self._model = model
        self._linear = linear_layers(model)
        self._layers: dict[str, ManyLayer] = {}
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted(self._names))

    def load(self, name: str, folder: Path) -> None:
        """Read an adapter under a name that none has had.

        Raises:
            ModelError: the name is taken, or the files cannot be read or do not fit the model.
        """
        if not name or name in self._names:
            raise ModelError(f"the adapter name {name!r} is empty or taken")
        file = read_adapter_file(folder)
        updates = {path: self._low(path, file, folder=folder) for path in file.paths}
        for path, low in updates.items():
            self._layer(path).lows[name] = low
        self._names.add(name)

    def unload(self, name: str) -> None:
        """Forget an adapter; no request may name it any more."""
        self._names.discard(name)
        for layer in self._layers.values():
            layer.lows.pop(name, None)

    @contextmanager
    def reading(self, parts: Sequence[tuple[str, int]]) -> Iterator[None]:
        """Inside the block passes read one row of tokens, `parts` of which have this adapter ('': none) and this many tokens, in order."""
        token = _whose.set(_owners(parts, device=next(self._model.parameters()).device))
        try:
            yield
        finally:
            _whose.reset(token)

    def _low(self, path: str, file: AdapterFile, *, folder: Path) -> _Low:
        if path not in self._linear or self._linear[path]:
            raise ModelError(f"{folder}: the adapter does not fit the model: there is no linear layer {path}")
        base: Any = self._model.get_submodule(path)
        weight: Tensor = base.weight
        down, up = file.tensors(path)
        if down.shape[1] != weight.shape[1] or up.shape[0] != weight.shape[0] or down.shape[0] != up.shape[1]:
            raise ModelError(f"{folder}: the adapter does not fit the model: {path} is {tuple(weight.shape)}")
        return _Low(down.to(weight), (up * file.scale).to(weight))

    def _layer(self, path: str) -> ManyLayer:
        if path not in self._layers:
            parent, _, name = path.rpartition(".")
            layer = ManyLayer(self._model.get_submodule(path)).train(self._model.training)
            setattr(self._model.get_submodule(parent), name, layer)
            self._layers[path] = layer
        return self._layers[path]


def _owners(parts: Sequence[tuple[str, int]], *, device: torch.device) -> list[tuple[str, Tensor | None]]:
    rows: dict[str, list[int]] = {}
    start = 0
    for name, num in parts:
        rows.setdefault(name, []).extend(range(start, start + num))
        start += num
    if len(rows) == 1:
        return [(name, None) for name in rows if name]
    return [(name, torch.tensor(own, device=device)) for name, own in rows.items() if name]

"""Keys and values of beginnings that were read before, so that a system prompt which many requests share is read once.

Prompts are cut into blocks. A block's name is the hash of its tokens, of all before them, and of the adapter that read them, for keys and
values depend on all three. What was used longest ago makes room.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

__all__ = ["Prefixes"]

Layers = list[tuple[int, Tensor, Tensor]]
BLOCK = 32
"""Tokens in a block."""


class Prefixes:
    """Blocks by name, up to a number of bytes."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._blocks: OrderedDict[bytes, Layers] = OrderedDict()
        self._num_bytes = 0
        self.num_asked = 0
        """Tokens of the prompts that were looked up."""
        self.num_found = 0
        """Of these, tokens that needed no reading."""

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def find(self, prompt: Sequence[int], *, adapter: str) -> list[Layers]:
        """The blocks of the longest beginning that is kept, in order; never the whole prompt, whose last token must be read."""
        found = []
        for name in _names(prompt[:-1], adapter=adapter):
            if name not in self._blocks:
                break
            self._blocks.move_to_end(name)
            found.append(self._blocks[name])
        self.num_asked += len(prompt)
        self.num_found += len(found) * BLOCK
        return found

    def missing(self, prompt: Sequence[int], *, adapter: str) -> Iterator[tuple[bytes, int, int]]:
        """Name, start and end of each whole block of a prompt that is not kept."""
        for index, name in enumerate(_names(prompt, adapter=adapter)):
            if name not in self._blocks:
                yield name, index * BLOCK, (index + 1) * BLOCK

    def keep(self, name: bytes, layers: Layers) -> None:
        """Keep a block; older ones go where there is no room."""
        size = sum(keys.nbytes + values.nbytes for _, keys, values in layers)
        if size > self._max_bytes or name in self._blocks:
            return
        while self._num_bytes + size > self._max_bytes:
            _, oldest = self._blocks.popitem(last=False)
            self._num_bytes -= sum(keys.nbytes + values.nbytes for _, keys, values in oldest)
        self._blocks[name] = layers
        self._num_bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._num_bytes = 0


def _names(prompt: Sequence[int], *, adapter: str) -> Iterator[bytes]:
    name = hashlib.sha256(adapter.encode()).digest()
    for start in range(0, len(prompt) - BLOCK + 1, BLOCK):
        tokens = np.asarray(prompt[start : start + BLOCK], dtype=np.int64)
        name = hashlib.sha256(name + tokens.tobytes()).digest()
        yield name

"""Which sequences an epoch holds when sources are mixed: a pure function of seed and number, different in every epoch.

A source is an endless stream: all its sequences in an order of their own, then all of them in another, and so on. An epoch takes the
next stretch of each stream, as long as the mix says. So no sequence comes again before all others of its source have come, however
an epoch cuts the stream, and a resumed run needs no replay. Amounts are tokens, for tokens are what is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunesmith.data.config import MixConfig
from tunesmith.data.pack import Batches, Encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mix", "Part", "Passed", "count_passes", "plan_mix"]

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One source's part in an epoch."""

    source: str
    sequences: NDArray[np.int64]
    """Numbers of the source's sequences."""
    num_tokens: int
    """That the source has."""
    passes: float
    """How many times it is read in one epoch: 0.5 is half of it."""
    is_capped: bool
    """Whether `max_epochs` allows less than the mix asks for."""

    def take(self, number: int, *, seed: tuple[int, int]) -> NDArray[np.int64]:
        """This epoch's stretch of the source's stream."""
        length = len(self.sequences)
        start, end = (math.ceil(self.passes * length * n - _ROUNDING) for n in (number, number + 1))
        laps = [
            np.random.default_rng([*seed, lap]).permutation(length)[max(start - lap * length, 0) : end - lap * length]
            for lap in range(start // length, -(-end // length))
        ]
        return self.sequences[np.concatenate(laps)] if laps else self.sequences[:0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How much of each source an epoch holds."""

    parts: tuple[Part, ...]
    seed: int

    def epoch(self, number: int) -> NDArray[np.int64]:
        """The sequences of an epoch, source by source; `pack` lays them out in an order of its own."""
        return np.concatenate([part.take(number, seed=(self.seed, at)) for at, part in enumerate(self.parts)])

    def as_json(self) -> dict[str, Any]:
        return {part.source: {"passes": part.passes, "capped": part.is_capped} for part in self.parts}


class Passed(NamedTuple):
    """How much of a source was read, or will be."""

    sequences: int
    tokens: int
    supervised: int
    epochs: float
    """Times that the source was read: its sequences, with their repetitions, over how many it has."""


def plan_mix(encoded: Encoded, *, config: MixConfig, weights: Mapping[str, float], epochs: float, seed: int) -> Mix | None:
    """Decide how much of each source goes into an epoch.

    `proportional`: all of it, times its weight. `temperature` (Conneau et al. 2020, arXiv 1911.02116): a share of n^(1/T) of the tokens,
    n being the source's own. `ratio`: a share of its weight. Shares are of as many tokens as all the sources have together. What
    `max_epochs` takes from a source is not made up from others; the epoch is shorter.

    Args:
        encoded: the training split.
        config: the recipe's `data.mix`.
        weights: of each source; 1 where it has none.
        epochs: of the whole run, over which `max_epochs` counts.
        seed: of the order of each source's sequences.

    Returns:
        None where every source is read once in an epoch, as without a mix.
    """
    names, source = np.unique(np.array(encoded.sources, dtype=object), return_inverse=True)
    tokens = np.bincount(source, weights=np.diff(encoded.offsets), minlength=len(names))
    weight = np.array([weights.get(name, 1.0) for name in names])
    if config.by == "proportional":
        wanted = weight
    else:
        mass = tokens ** (1 / config.temperature) if config.by == "temperature" else weight
        wanted = mass / mass.sum() * tokens.sum() / tokens
    allowed = np.minimum(wanted, config.max_epochs / epochs) if config.max_epochs else wanted
    if np.all(allowed == 1):
        return None
    parts = [
        Part(
            source=name,
            sequences=np.flatnonzero(source == at),
            num_tokens=int(tokens[at]),
            passes=float(allowed[at]),
            is_capped=bool(allowed[at] < wanted[at]),
        )
        for at, name in enumerate(names)
    ]
    return Mix(parts=tuple(parts), seed=seed)


def count_passes(
    encoded: Encoded, *, epoch: Callable[[int], Batches], num_batches: int, names: Sequence[str] = ()
) -> dict[str, Passed]:
    """What a run of so many batches reads of each source, counted from the batches themselves.

    Args:
        encoded: the training split.
        epoch: the batches of an epoch.
        num_batches: forward passes of the run.
        names: of all the recipe's sources; one that has no sequence is read 0 times, and told of.
    """
    present, source = np.unique(np.array(encoded.sources, dtype=object), return_inverse=True)
    times = np.zeros(len(encoded), dtype=np.int64)
    for members in _read(epoch, num_batches):
        times += np.bincount(members, minlength=len(encoded))
    lengths = np.diff(encoded.offsets)
    supervised = np.add.reduceat(encoded.targets >= 0, encoded.offsets[:-1], dtype=np.int64)
    found = {name: Passed(0, 0, 0, 0.0) for name in sorted({*present, *names})}
    for at, name in enumerate(present):
        mine = source == at
        sequences = int(times[mine].sum())
        found[str(name)] = Passed(
            sequences=sequences,
            tokens=int((times * lengths)[mine].sum()),
            supervised=int((times * supervised)[mine].sum()),
            epochs=sequences / int(mine.sum()),
        )
    return found


def _read(epoch: Callable[[int], Batches], num_batches: int) -> Iterator[NDArray[np.int32]]:
    number = 0
    while num_batches > 0:
        batches = epoch(number)
        yield batches.members(num_batches)
        num_batches -= len(batches)
        number += 1

"""What lies between two sets of log-likelihoods of the same tokens, in words: rounding, the base, another scale of the adapter.

A contract holds what the version says of each token, and what would be said in its place: by the base, by the adapter counted twice. The
set that a server gives is near one of them, or goes in the direction of one of them from the version's, or scatters around the version's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.data.contract import BASE, BF16, SCALED

__all__ = ["Drift", "as_other", "measure_drift"]

_LEAST = 1e-3
"""Nats that the order of sums may make in fp32, with room."""
_UNKNOWN = 0.05
"""Nats that rounding may make where the contract does not tell what bf16 makes."""
_TIMES_BF16 = 3.0
_NEAR = 0.25
"""Of the distance from the version to another: so near it is that other."""
_ALONG = 0.9
"""Cosine from which a difference goes in the direction of another."""
_ROUNDED = 0.5
"""Of the distance from the version to its base, and nats: up to here a scattered difference is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far a server's log-likelihoods are from the version's."""

    nats: float
    """Root of the mean square over the tokens."""
    worst: float
    tolerance: float
    words: str

    @property
    def holds(self) -> bool:
        return self.nats <= self.tolerance


def measure_drift(
    found: Sequence[float],
    expected: Sequence[float],
    others: Mapping[str, Sequence[float]],
    *,
    tolerance: float | None = None,
    stored_as: str | None = None,
) -> Drift:
    """Compare and name.

    Args:
        found: the server's, in nats.
        expected: the version's, of the same tokens.
        others: those of the contract's others, under its names.
        tolerance: nats; None takes three times what bf16 makes of this model.
        stored_as: how the server says that it stores weights, such as `Q8_0`.
    """
    server, version = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    by_name = {name: np.asarray(values, dtype=np.float64) for name, values in others.items()}
    nats, worst = _size(server - version), float(np.abs(server - version).max(initial=0.0))
    if not math.isfinite(nats):
        return Drift(
            nats=math.inf, worst=math.inf, tolerance=_UNKNOWN, words="it calls a token impossible that the version does not"
        )
    bf16 = _size(by_name.pop(BF16) - version) if BF16 in by_name else None
    allowed = tolerance if tolerance is not None else (_UNKNOWN if bf16 is None else max(_LEAST, _TIMES_BF16 * bf16))
    size = f"{nats:.2g} nats per token apart, {worst:.2g} at most, over {len(server)} tokens"
    if nats <= allowed:
        equal = nats <= _LEAST
        rounded = f"rounded, not equal{_told(stored_as)}; no farther than bf16 may be"
        like = "equal but for the order of sums" if equal else rounded
        return Drift(nats=nats, worst=worst, tolerance=allowed, words=f"{like}: {size}")
    words = _named(server, version, by_name, stored_as=stored_as)
    return Drift(nats=nats, worst=worst, tolerance=allowed, words=f"{words}: {size}")


def _named(server: np.ndarray, version: np.ndarray, others: Mapping[str, np.ndarray], *, stored_as: str | None) -> str:
    distances = {name: _size(server - values) / max(_size(values - version), 1e-9) for name, values in others.items()}
    nearest = min(distances, key=distances.__getitem__, default=None)
    if nearest is not None and distances[nearest] < _NEAR:
        return as_other(nearest)
    base = others.get(BASE)
    own = _size(server - version)
    along = {name: _cosine(server - version, values - version) for name, values in others.items() if name.startswith(SCALED)}
    # Where training ended in a minimum, less and more of the adapter look alike.
    sides = {"less" if float(name.removeprefix(SCALED)) < 1 else "more" for name, cosine in along.items() if cosine >= _ALONG}
    if sides:
        direction = " or ".join(sorted(sides))
        return f"wrong scale of the adapter: it counts {direction} than once there (alpha / rank is another)"
    if own < _ROUNDED * min(1.0, _size(base - version) if base is not None else 1.0):
        return f"the same model with rounded (quantised) weights{_told(stored_as)}, so close and not equal"
    return "another model or another adapter: neither this version, nor its base, nor either of them rounded"


def _told(stored_as: str | None) -> str:
    return f" (the server says {stored_as})" if stored_as else ""


def as_other(name: str) -> str:
    """What it means that a server answers as one of a contract's others."""
    if name == BASE:
        return "the base is served in place of the tuned model: the adapter is not there, or does nothing"
    return f"wrong scale of the adapter: it counts about {name.removeprefix(SCALED)} times there in place of once"


def _size(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / sizes if sizes else 0.0

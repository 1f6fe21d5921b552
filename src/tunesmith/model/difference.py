"""How far two saved models lie apart."""

from __future__ import annotations

import math
from itertools import zip_longest
from pathlib import Path

import torch

from tunesmith.model.save import read_tensors

__all__ = ["weights_difference"]


def weights_difference(one: Path, other: Path) -> float:
    """The relative difference of two folders' weights, |other - one| / |one|, with all tensors as one vector (Euclidean norm, fp64).

    0 where both are equal; infinite where they do not have the same tensors, or `one` is all zeros and `other` is not. Only one tensor of
    each lies in memory at a time.

    Raises:
        ModelError: a file cannot be read.
    """
    apart, size = 0.0, 0.0
    nothing = ("", torch.empty(0))
    for (name, a), (other_name, b) in zip_longest(read_tensors(one), read_tensors(other), fillvalue=nothing):
        if name != other_name or a.shape != b.shape:
            return math.inf
        before, after = a.double(), b.double()
        apart += float((after - before).square().sum())
        size += float(before.square().sum())
    if not apart:
        return 0.0
    return math.sqrt(apart / size) if size else math.inf

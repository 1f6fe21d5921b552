"""Weights that are numbers: a NaN or an infinity in one makes every answer nonsense, and no error ever says so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.errors import ModelError

__all__ = ["require_finite"]


def require_finite(tensors: Iterable[tuple[str, Tensor]], *, folder: Path) -> None:
    """Refuse weights that hold NaN or infinity. One pass over them, no copy.

    Raises:
        ModelError: naming the first of them.
    """
    broken = []
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.element_size() > 1 and tensor.numel():  # 8-bit floats have no minimum in torch
            low, high = torch.aminmax(tensor.detach())  # NaN goes through to both
            if not (torch.isfinite(low) and torch.isfinite(high)):
                broken.append(name)
    if broken:
        shown = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        raise ModelError(f"{folder}: {len(broken)} of its tensors hold NaN or infinity: {shown}. Get or train the weights again")

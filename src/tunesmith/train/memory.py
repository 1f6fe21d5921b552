"""How much memory a run takes, as the progress line and the log tell it."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

__all__ = ["memory_in_use"]

_STATM = Path("/proc/self/statm")


def memory_in_use(device: str) -> int:
    """Bytes: this process's resident set, or on a GPU the most that tensors have taken of it so far.

    On a GPU the peak is what meets the limit; what is allocated between two steps would look harmless.
    """
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS tells the peak only, and in bytes
    return peak if sys.platform == "darwin" else peak * 1024

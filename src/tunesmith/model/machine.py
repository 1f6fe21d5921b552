"""What this machine computes with: device, number format, threads, memory.

A CPU in fp32 is exact and repeatable bit for bit. bf16 is taken on a CPU only where the processor has units for it and a measured
product is faster; elsewhere it is emulated, at an eighth of the speed.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
import torch

from tunesmith.model.waiting import adapt_waiting

__all__ = [
    "WORTH_IT",
    "Machine",
    "Precision",
    "bf16_pays",
    "free_memory",
    "has_bf16_units",
    "release_memory",
    "settled_precision",
    "this_machine",
]

Precision = Literal["auto", "fp32", "bf16"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3)."""
_ROUNDS = 24
WORTH_IT = 1.3
"""bf16 gives up digits; it must be this much faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Device and number format of this process."""

    device: str
    dtype: torch.dtype
    num_threads: int

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """The number format, as a recipe names it."""
        return "fp32" if self.dtype == torch.float32 else "bf16"

    @property
    def kind(self) -> str:
        """Device and number format: on one kind equal work gives equal bits, threads and processor being equal too."""
        return f"{self.device} {self.dtype}"

    @property
    def processor(self) -> str:
        """The GPU's name, or the widest instructions that torch uses of this CPU, such as `AVX512`."""
        return torch.cuda.get_device_name() if self.device == "cuda" else torch.backends.cpu.get_cpu_capability()

    @property
    def is_exact(self) -> bool:
        return self.device == "cpu" and self.dtype == torch.float32

    def __str__(self) -> str:
        where = torch.cuda.get_device_name() if self.device == "cuda" else f"{self.num_threads} cores"
        return f"{where}, {self.precision}"


def this_machine(*, precision: Precision = "fp32", num_threads: int | None = None) -> Machine:
    """Choose device, number format and threads, and make CPU arithmetic repeatable bit for bit.

    Args:
        precision: on a CPU; `auto` measures whether bf16 pays. A GPU computes in bf16.
        num_threads: None takes the cores that this process may use.
    """
    if torch.cuda.is_available():
        return Machine(device="cuda", dtype=torch.bfloat16, num_threads=torch.get_num_threads())
    torch.use_deterministic_algorithms(mode=True)
    # Filling new memory would find bugs in kernels, and costs 4 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()
    threads = num_threads or min(torch.get_num_threads(), _usable_cores())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    adapt_waiting()
    in_bf16 = precision == "bf16" or (precision == "auto" and bf16_pays())
    return Machine(device="cpu", dtype=torch.bfloat16 if in_bf16 else torch.float32, num_threads=threads)


def settled_precision(wish: Precision, *, file: Path) -> Precision:
    """What `auto` comes to on this machine: measured once and kept, so that a run that is killed goes on in the same numbers.

    Args:
        wish: the recipe's; another than `auto` is what it is.
        file: where the answer is kept; measured anew for another processor or torch.
    """
    if wish != "auto" or torch.cuda.is_available():
        return wish
    machine = {"processor": torch.backends.cpu.get_cpu_capability(), "units": has_bf16_units(), "torch": torch.__version__}
    try:
        known = orjson.loads(file.read_bytes())
        if known["machine"] == machine and known["precision"] in {"fp32", "bf16"}:
            return "bf16" if known["precision"] == "bf16" else "fp32"
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or cut off
    found: Precision = "bf16" if bf16_pays() else "fp32"
    with suppress(OSError):  # where nothing can be kept the answer is good for this time
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        part.write_bytes(orjson.dumps({"machine": machine, "precision": found}))
        part.replace(file)
    return found


def free_memory() -> tuple[int, str]:
    """Bytes that this process may still take, and what sets the limit: the machine, a container, or `ulimit -v`."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0], "the GPU"
    limits = [(_available_on_machine(), "this machine"), (_free_in_cgroup(), "this container"), (_free_in_rlimit(), "ulimit -v")]
    return min(((size, what) for size, what in limits if size is not None), default=(2**62, "nothing known"))


def release_memory() -> None:
    """Give back what models that nobody holds any more still take."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def bf16_pays() -> bool:
    """Whether the processor has bf16 units and a product of a small model's shape is faster with them.

    A busy machine blurs the measurement, so whoever needs the same answer twice keeps the first.
    """
    if not has_bf16_units():
        return False
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(_ROUNDS):  # in turns, so that a busy moment meets both; the least is what the processor can do
        seconds = {dtype: min(least, _seconds(dtype)) for dtype, least in seconds.items()}
    return seconds[torch.float32] > WORTH_IT * seconds[torch.bfloat16]


def has_bf16_units() -> bool:
    """Whether the processor multiplies bf16 itself."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _seconds(dtype: torch.dtype) -> float:
    x, w = torch.ones(1024, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
    start = time.perf_counter()
    torch.nn.functional.linear(x, w)
    return time.perf_counter() - start


def _usable_cores() -> int:
    """Cores that this process may be scheduled on, and that its container has paid for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or no quota ("max")
        return cores


def _available_on_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_in_cgroup() -> int | None:
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text()) - int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
    return max(limit - used, 0)


def _free_in_rlimit() -> int | None:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(limit - pages * resource.getpagesize(), 0)


def _keep_freed_memory() -> None:
    """Let glibc reuse large freed blocks instead of giving them back to the system and faulting every page in again.

    A training step frees and allocates the same tens of megabytes over and over; measured on two cores with a 3 M model this
    makes it 1.16 to 1.17 times as fast, as much as another allocator would. Elsewhere than on glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20)):
        mallopt(parameter, value)

"""The header of a safetensors file, checked against the file: every tensor has its own bytes, and every byte its tensor.

The format: 8 bytes with the header's length n (little endian), n bytes of JSON, then the data. The JSON names for each tensor its
`dtype`, its `shape` and its `data_offsets` [begin, end) in the data. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

from tunesmith.errors import ModelError

__all__ = ["check_safetensors"]

MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32}
_BITS |= {
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
_BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}


def check_safetensors(file: Path, stream: IO[bytes]) -> None:
    """Check a file's header against its size. Only the header is read.

    Args:
        file: for the message.
        stream: the open file, anywhere.

    Raises:
        ModelError: saying what is wrong.
    """
    if problem := _problem(stream):
        raise ModelError(f"{file}: damaged or cut short ({problem}); copy or download it again")


def _problem(stream: IO[bytes]) -> str | None:
    stream.seek(0)
    size = os.fstat(stream.fileno()).st_size
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(MAX_HEADER, size - 8):
        return f"its header should have {length} bytes, the file has {size}"
    try:
        header = json.loads(stream.read(length), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return f"its header cannot be read: {error}"
    return _misfit(header, num_bytes=size - 8 - length)


def _misfit(header: object, *, num_bytes: int) -> str | None:
    """What in a header does not fit so many bytes of data."""
    if not isinstance(header, dict) or not isinstance(metadata := header.pop("__metadata__", {}), dict):
        return "its header or its `__metadata__` is no JSON object"
    if not all(isinstance(value, str) for value in metadata.values()):
        return "its `__metadata__` must hold texts alone"
    spans = []
    for name, entry in header.items():
        if isinstance(span := _span(entry), str):
            return f"tensor {name[:80]!r}: {span}"
        spans.append(span)
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            return f"tensors overlap or leave a gap at byte {min(begin, reached)}"
        reached = end
    return None if reached == num_bytes else f"its tensors take {reached} bytes, and {num_bytes} are there"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _span(entry: object) -> tuple[int, int] | str:
    """First and last byte of a tensor, or what is wrong with it."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "must have dtype, shape and data_offsets"
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        return "its shape and offsets must be whole numbers from 0"
    bits = _BITS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if bits is None:
        return f"its dtype {str(entry['dtype'])[:40]!r} is unknown"
    if math.prod(shape) * bits != 8 * (offsets[1] - offsets[0]):
        return f"{entry['dtype']} of shape {shape[:8]} does not fill the bytes {offsets[0]} to {offsets[1]}"
    return offsets[0], offsets[1]


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)

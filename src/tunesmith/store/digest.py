"""Content hashes: the identity of everything the store keeps.

A digest is a sha256 in hex. It never depends on time, on a path outside the folder or on the order of writing.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO

import orjson

__all__ = ["canonical_json", "digest_of", "digest_of_file", "digest_of_files", "digest_of_stream"]


def canonical_json(value: object) -> bytes:
    """The one spelling of a value: keys sorted, UTF-8, no spaces.

    Args:
        value: strings, numbers, booleans, None, lists, tuples, mappings with string keys, dataclasses and enums of these.

    Raises:
        TypeError: for anything else, for lone surrogates and for integers beyond 64 bits.
        ValueError: for NaN and infinity, which JSON cannot spell.

    >>> canonical_json({"b": 1, "a": (2.0, None)})
    b'{"a":[2.0,null],"b":1}'
    """
    spelled = orjson.dumps(value, default=_as_plain, option=orjson.OPT_SORT_KEYS)
    # orjson writes NaN and infinity as null, so that two different values would share one digest.
    if b"null" in spelled:
        _refuse_non_finite(value)
    return spelled


def digest_of(value: object) -> str:
    """Sha256 of `canonical_json(value)`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_of_file(path: Path) -> str:
    """Sha256 of a file's bytes, in hex; the file is streamed, so its size does not matter."""
    with path.open("rb") as file:
        return digest_of_stream(file)


def digest_of_stream(file: IO[bytes]) -> str:
    """Sha256 of what is left of an open file, in hex."""
    hashed = hashlib.sha256()
    while block := file.read(1 << 20):
        hashed.update(block)
    return hashed.hexdigest()


def digest_of_files(folder: Path) -> dict[str, str]:
    """Sha256 of every file below a folder, by posix path relative to it, sorted. Symlinks to files are followed."""
    return {name: digest_of_file(folder / name) for name in sorted(_file_names(folder))}


def _file_names(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _as_plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no canonical spelling; turn it into plain values first")


def _refuse_non_finite(value: object) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical spelling; use a finite number, None or a string")
    elif isinstance(value, Mapping):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            _refuse_non_finite(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            _refuse_non_finite(getattr(value, field.name))

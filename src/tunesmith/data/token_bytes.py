"""The bytes that a token stands for, where its tokenizer writes bytes: a character may be spread over several tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

__all__ = ["byte_kinds", "bytes_of"]

_ONE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_kinds(definition: Mapping[str, Any]) -> frozenset[str]:
    """The kinds of decoder in a tokenizer.json, those inside a `Sequence` included."""
    decoder = definition.get("decoder") or {}
    return frozenset(str(one.get("type")) for one in [decoder, *decoder.get("decoders", [])])


def bytes_of(name: str, *, kinds: frozenset[str]) -> bytes | None:
    """What a token of the vocabulary stands for, by its name there; None where the name does not tell.

    Args:
        name: such as `Ġshop` (byte-level, Radford et al. 2019) or `<0xE2>` (byte fallback, Kudo and Richardson 2018).
        kinds: of `byte_kinds`.
    """
    if "ByteLevel" in kinds and all(letter in _bytes_by_letter() for letter in name):
        return bytes(_bytes_by_letter()[letter] for letter in name)
    if "ByteFallback" in kinds and (found := _ONE_BYTE.fullmatch(name)):
        return bytes([int(found[1], 16)])
    return None


@cache
def _bytes_by_letter() -> Mapping[str, int]:
    """Byte-level BPE writes printable bytes of Latin-1 as themselves, and the others, in order, as letters from U+0100 on."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(0x100 + place): byte for place, byte in enumerate(others)}

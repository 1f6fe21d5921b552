"""Kinds of values on the command lines of the benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

__all__ = ["names", "positive", "seed"]


def positive(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, least=1)


def seed(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, least=0)


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Some of these names, with commas between."""

    def parse_names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown; there are {', '.join(known)}")
        return found

    return parse_names


def _whole(text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)

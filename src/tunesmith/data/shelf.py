"""Rows put aside on disk, so that all of them can be looked at while memory holds one at a time.

A shelf is a file without a name: it is gone with the process, however that ends. What it costs is about 15 µs a row and read, and
13 bytes of memory.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import orjson

from tunesmith.data.rows import dropped_of, plain_dropped, plain_record, record_of
from tunesmith.records import Dropped, Record

__all__ = ["Joined", "Made", "Mapped", "Shelf", "parted", "shelf_of_dropped", "shelf_of_records"]

_BLOCK = 1 << 20
Given = TypeVar("Given")
Row = TypeVar("Row")


class Made(Sequence[Row]):
    """A sequence whose items are made when they are asked for, by `item`."""

    @abstractmethod
    def item(self, at: int) -> Row:
        """The item at a place from 0."""

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        places = range(len(self))[index]
        return self.item(places) if isinstance(places, int) else [self.item(at) for at in places]


class Shelf(Made[Row]):
    """Rows in the order in which they were added.

    Args:
        write: makes plain values of a row.
        read: makes the row of them again.
        place: folder on whose disk they lie. None: the system's temporary folder.
    """

    def __init__(
        self, *, write: Callable[[Row], Mapping[str, Any]], read: Callable[[dict[str, Any]], Row], place: Path | None = None
    ) -> None:
        self._write = write
        self._read = read
        self._file = tempfile.TemporaryFile(dir=place, buffering=0)  # noqa: SIM115 - it lives as long as the shelf
        self._waiting = bytearray()
        self._ends = array("Q", [0])
        weakref.finalize(self, self._file.close)

    def add(self, row: Row) -> None:
        """Put one more row at the end.

        Raises:
            OSError: the disk is full.
        """
        plain = orjson.dumps(self._write(row))
        self._waiting += plain
        self._ends.append(self._ends[-1] + len(plain))
        if len(self._waiting) >= _BLOCK:
            self._flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def item(self, at: int) -> Row:
        """The row at a place from 0."""
        return self._at(self._block(at, at + 1))

    def __iter__(self) -> Iterator[Row]:
        start = 0
        while start < len(self):
            stop = start + 1
            while stop < len(self) and self._ends[stop] - self._ends[start] < _BLOCK:
                stop += 1
            block = memoryview(self._block(start, stop))
            for i in range(start, stop):
                yield self._at(block[self._ends[i] - self._ends[start] : self._ends[i + 1] - self._ends[start]])
            start = stop

    def _at(self, plain: bytes | memoryview) -> Row:
        return self._read(orjson.loads(plain))

    def _flush(self) -> None:
        while self._waiting:
            del self._waiting[: self._file.write(self._waiting)]

    def _block(self, start: int, stop: int) -> bytes:
        self._flush()
        return os.pread(self._file.fileno(), self._ends[stop] - self._ends[start], self._ends[start])


class Mapped(Made[Row], Generic[Given, Row]):
    """A sequence under a function, which is called whenever an item is asked for."""

    def __init__(self, function: Callable[[Given], Row], rows: Sequence[Given]) -> None:
        self._function = function
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def item(self, at: int) -> Row:
        """The item at a place from 0, made anew."""
        return self._function(self._rows[at])

    def __iter__(self) -> Iterator[Row]:
        return map(self._function, self._rows)


class Joined(Made[Row]):
    """Two sequences end to end."""

    def __init__(self, one: Sequence[Row], other: Sequence[Row]) -> None:
        self._one = one
        self._other = other

    def __len__(self) -> int:
        return len(self._one) + len(self._other)

    def item(self, at: int) -> Row:
        """The item at a place from 0."""
        return self._one[at] if at < len(self._one) else self._other[at - len(self._one)]

    def __iter__(self) -> Iterator[Row]:
        return chain(self._one, self._other)


def shelf_of_records(place: Path | None = None) -> Shelf[Record]:
    """A shelf for records."""
    return Shelf(write=plain_record, read=record_of, place=place)


def shelf_of_dropped(place: Path | None = None) -> Shelf[Dropped]:
    """A shelf for dropped rows."""
    return Shelf(write=plain_dropped, read=dropped_of, place=place)


def parted(rows: Iterable[Record | Dropped], *, place: Path | None = None) -> tuple[Shelf[Record], Shelf[Dropped]]:
    """Rows on two shelves: those kept, those dropped."""
    kept, dropped = shelf_of_records(place), shelf_of_dropped(place)
    for row in rows:
        if isinstance(row, Dropped):
            dropped.add(row)
        else:
            kept.add(row)
    return kept, dropped

"""Files that the user asks for are written whole or not at all.

What is written goes to a hidden file beside the target, `.NAME.XXXX.part`, is flushed to the disk and renamed. A full disk, an error
or Ctrl-C removes it; after a SIGKILL it stays, and the next writing of the same target removes it. `.gz` and `.zst` are compressed.
A target that is no regular file (`/dev/stdout`, a pipe) is written straight through.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import IO, Any, cast

import orjson

from tunesmith.errors import UserError
from tunesmith.store.folders import flush_folder, plain_errors

__all__ = ["RowWriter", "check_outputs", "open_outputs", "open_rows"]

_BUFFER = 1 << 20


class RowWriter:
    """Writes rows as JSON lines. Made by `open_rows`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.num_rows = 0

    def write(self, row: Mapping[str, Any] | bytes) -> None:
        """Write one row: an object, or a line of JSON as it stands, without its line end."""
        self._file.write(row + b"\n" if isinstance(row, bytes) else _line(row))
        self.num_rows += 1


@contextmanager
def open_rows(path: Path) -> Iterator[RowWriter]:
    """Write a file of JSON lines, which is there once the block has ended well.

    Raises:
        OutOfSpace: the disk is full; nothing half-written is kept.
        UserError: the place cannot be written to.
    """
    with open_outputs(path) as (file,):
        yield RowWriter(file)


@contextmanager
def open_outputs(*paths: Path) -> Iterator[tuple[IO[bytes], ...]]:
    """Write files of bytes, which are there once the block has ended well; folders are made as needed.

    All are flushed to the disk before the first appears, so a full disk leaves none of them. The first appears last: what
    belongs to it is then there.

    Raises:
        OutOfSpace: the disk is full; nothing half-written is kept.
        UserError: a place cannot be written to.
    """
    with plain_errors(paths[0], elsewhere="name another place"), ExitStack() as stack:
        targets = [_checked(path) for path in paths]
        opened = [stack.enter_context(_opened(target)) for target in targets]
        with ExitStack() as packing:
            yield tuple(
                packing.enter_context(_compressed(file, suffix=path.suffix))
                for path, (_, file) in zip(paths, opened, strict=True)
            )
        for part, file in opened:
            file.flush()
            if part is not None:
                os.fsync(file.fileno())
        for target, (part, _) in reversed(list(zip(targets, opened, strict=True))):
            if part is not None:
                part.rename(target)
                flush_folder(target.parent)


def check_outputs(outputs: Sequence[tuple[str, Path]], *, sources: Iterable[str | Path]) -> None:
    """Refuse an output that is also a source, or a second output: no source is ever overwritten, and no row is lost.

    Args:
        outputs: what is to be written, each under the name by which users know it, such as `--out`.
        sources: what is read: files, folders, patterns or URLs. A new file in a folder that is read is none of them.

    Raises:
        UserError: a file is both, perhaps by another name.
    """
    for (one, path), (other, its) in combinations(outputs, 2):
        if path.resolve() == its.resolve() and not _is_device(path):
            raise UserError(f"{one} and {other} both name {path}, and one would replace the other. Name another file")
    targets = [(name, path, path.resolve()) for name, path in outputs]
    there = {_place_of(target): (name, path) for name, path, target in targets if target.exists()}
    if not there:
        return
    from tunesmith.data.files import local_files

    for source in map(str, sources):
        for file in filter(Path.exists, local_files(source)):
            name, path = there.get(_place_of(file), ("", file))
            if name:
                through = "" if str(file) == source else f" (it is among {source})"
                raise UserError(
                    f"{name}: {path} is a file that is read{through}, and a source is never overwritten. Name another output"
                )


def _place_of(path: Path) -> tuple[int, int]:
    """What is equal for all names of one file, links among them."""
    place = path.stat()
    return place.st_dev, place.st_ino


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a character or a number beyond 64 bits, which orjson cannot write and JSON can
        return json.dumps(row).encode() + b"\n"


@contextmanager
def _compressed(file: IO[bytes], *, suffix: str) -> Iterator[IO[bytes]]:
    if suffix.lower() == ".gz":
        # No name and no time in the header: equal rows give equal bytes.
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as content:
            yield cast("IO[bytes]", content)
    elif suffix.lower() == ".zst":
        import zstandard

        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as content:
            yield cast("IO[bytes]", content)
    else:
        yield file


def _checked(path: Path) -> Path:
    """Where a file is to be written; its folder is made."""
    target = path.resolve()  # a link is followed: what it names is what the user means to write
    if target.is_dir():
        raise UserError(f"{path} is a folder, and a file is to be written there. Name a file in it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path}: {target.parent} is not a folder, so nothing can be written there") from error
    return target


@contextmanager
def _opened(target: Path) -> Iterator[tuple[Path | None, IO[bytes]]]:
    """A new hidden file beside the target, locked while it is written and gone afterwards unless it was renamed; or a device."""
    if target.exists() and not target.is_file():
        with target.open("wb") as device:
            yield None, device
        return
    _remove_leftovers(target)
    part, file = _locked_part(target)
    try:
        yield part, file
    except BaseException:
        # What is still buffered is not wanted, and flushing it at the close would fail once more on a full disk.
        with suppress(OSError):
            file.close()
        raise
    finally:
        part.unlink(missing_ok=True)
        file.close()


def _locked_part(target: Path) -> tuple[Path, IO[bytes]]:
    while True:
        part = target.parent / f".{target.name}.{secrets.token_hex(6)}.part"
        file = part.open("xb", buffering=_BUFFER)
        with suppress(OSError):  # a file system without locks: a leftover then stays
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()  # another process took it for a leftover in the instant before it was locked


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left of this target; one that is being written is locked, and stays."""
    leftover = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}\.part")
    for part in target.parent.iterdir():
        if leftover.fullmatch(part.name):
            with suppress(OSError), part.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()

"""Files of lines that several processes append to, and that a kill or a full disk cannot tear."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tunesmith.store.folders import flush_folder

__all__ = ["append_lines", "whole_lines"]


def append_lines(file: int, content: bytes, *, folder: Path) -> None:
    """Append to a file that is open for reading and appending, and locked: all is on the disk when this returns, or nothing.

    Args:
        file: its descriptor.
        content: whole lines, each with its line end.
        folder: that it lies in, flushed with the file's first line.

    Raises:
        OSError: such as a full disk; the file is as it was.
    """
    size = os.lseek(file, 0, os.SEEK_END)
    if size and os.pread(file, 1, size - 1) != b"\n":
        content = b"\n" + content  # a power cut or a kill has torn a line of another writer; ours begins on its own
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise
    if not size:
        flush_folder(folder)


def whole_lines(path: Path, *, start: int) -> Iterator[bytes]:
    """The lines from a byte on, with their ends; one that is torn or still being written ends them. None where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line

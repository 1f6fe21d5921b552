"""Folders that survive a power cut: make, flush, lock and remove them.

Every system error that the user can mend (disk full, no permission, a file in the way) leaves here as a `UserError`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunesmith.errors import OutOfSpace, TunesmithError, UserError, is_out_of_space

__all__ = [
    "flush_folder",
    "is_in_use",
    "make_folder",
    "make_staging",
    "new_staging_name",
    "plain_errors",
    "remove_folder",
    "staging_folders",
]

_STAGING = ".staging-"
_GRACE_S = 60.0


@contextmanager
def plain_errors(place: Path, *, elsewhere: str = "set TUNESMITH_WORKSPACE to a larger disk") -> Iterator[None]:
    """Turn system errors that the user can mend into errors that say how, naming the place and how to choose another."""
    try:
        yield
    except TunesmithError:
        raise
    except Exception as error:
        if is_out_of_space(error):
            raise OutOfSpace(
                f"no space left for {place}. Nothing half-written is kept; free some space (or {elsewhere}) and run the same "
                "command again"
            ) from error
        if isinstance(error, OSError) and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise UserError(f"no access to {error.filename or place}: {error.strerror}. Check its owner and mode") from error
        raise


def make_folder(folder: Path) -> Path:
    """Make a folder and its parents, private to the user (they hold training data), and return it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with plain_errors(folder):
        for path in reversed(missing):
            try:
                path.mkdir(mode=0o700, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise UserError(f"cannot make the folder {folder}: {path.parent} is a file. Move it or name another") from error
            flush_folder(path.parent)
        if not folder.is_dir():
            raise UserError(f"{folder} is a file, and tunesmith needs a folder there. Move it or name another workspace")
    return folder


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename or a new file in it outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours with all it holds, read-only parts included; what is absent is no error."""
    for parent, _, _ in os.walk(folder):
        with suppress(FileNotFoundError):
            Path(parent).chmod(0o700)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def new_staging_name() -> str:
    """A folder name that says who is writing; it can never be taken for an artefact."""
    return f"{_STAGING}{os.getpid()}-{secrets.token_hex(6)}"


@contextmanager
def make_staging(root: Path) -> Iterator[Path]:
    """A new folder below `root` that is locked while the block runs and gone afterwards, unless it was renamed.

    The lock ends with the process, whatever ends it, so a leftover is told from work in progress even when its process id
    has been given to another program or belongs to another container.

    Raises:
        UserError: `root` is gone, or of a kind in which no folder can be made.
    """
    folder = root / new_staging_name()
    try:
        folder.mkdir(mode=0o700)
    except FileNotFoundError as error:  # as the kernel's own file systems answer
        raise UserError(f"{root} takes no new folders. Choose another place") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system may not lock folders: the process id must do
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        remove_folder(folder)
        os.close(descriptor)


def staging_folders(root: Path) -> list[Path]:
    """The folders below `root` that a publish is writing, or was writing when it was killed."""
    return sorted(path for path in root.glob(f"{_STAGING}*") if path.is_dir()) if root.is_dir() else []


def is_in_use(staging: Path) -> bool:
    """Whether somebody is still writing this staging folder."""
    try:
        descriptor = os.open(staging, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        age_s = time.time() - os.fstat(descriptor).st_mtime
    except BlockingIOError:
        return True
    except OSError:
        return _is_alive(staging)
    finally:
        os.close(descriptor)
    # Between making the folder and locking it lies an instant in which its owner must not lose it.
    return age_s < _GRACE_S and _is_alive(staging)


def _is_alive(staging: Path) -> bool:
    pid = staging.name.removeprefix(_STAGING).partition("-")[0]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Every error tunesmith raises on purpose.

    TunesmithError                        1  our fault, or nobody's
    ├── BrokenArtefact     (OSError)      1  a stored file is missing or its sha256 differs
    ├── UserError                         2  the input can be mended by the user
    │   ├── DataError      (ValueError)      rows, files, encodings
    │   ├── EndpointError  (ConnectionError) a model behind a URL that refuses or does not answer
    │   ├── MissingExtra   (ImportError)     an optional dependency is not installed
    │   ├── ModelError     (ValueError)      a base or adapter folder that we will not or cannot load
    │   ├── NotFound       (LookupError)     a file, version, alias or model that does not exist
    │   ├── OutOfMemory    (MemoryError)     the run would not fit into memory
    │   ├── OutOfSpace     (OSError)         the disk or quota is full
    │   └── RecipeError    (ValueError)      the recipe; holds every problem found, not only the first
    ├── GateRefused                       3  a gate (bad rows, verdict) said no, with reasons
    └── Interrupted                     130  Ctrl-C or SIGTERM; the work so far is kept

The number is the exit code of the command line. A message says what is wrong, what was found and what to do.
To add one: subclass the right branch and the standard-library error, and draw it here.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

__all__ = [
    "BrokenArtefact",
    "DataError",
    "EndpointError",
    "GateRefused",
    "Interrupted",
    "MissingExtra",
    "ModelError",
    "NotFound",
    "OutOfMemory",
    "OutOfSpace",
    "Problem",
    "RecipeError",
    "TunesmithError",
    "UserError",
    "is_out_of_space",
]


class TunesmithError(Exception):
    """Root of the tree. `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 1


class BrokenArtefact(TunesmithError, OSError):
    """A stored artefact fails its manifest: a file is missing, truncated or altered."""


class UserError(TunesmithError):
    """Something the user gave us is wrong, and the message says how to mend it."""

    exit_code: ClassVar[int] = 2


class DataError(UserError, ValueError):
    """A data file cannot be read, or nothing in it can be trained on."""


class EndpointError(UserError, ConnectionError):
    """A model behind a URL refuses or does not answer; the message names the address and what it said, never the key."""


class MissingExtra(UserError, ImportError):
    """An optional feature was asked for whose dependency is not installed."""


class ModelError(UserError, ValueError):
    """A model folder is unsafe (pickle, remote code, symlink), incomplete or of an unknown kind."""


class NotFound(UserError, LookupError):
    """Something named by the user does not exist."""


class OutOfMemory(UserError, MemoryError):
    """A run would need more memory than there is, and the message says what would fit."""


class OutOfSpace(UserError, OSError):
    """No space left where the workspace lives. What was complete stays; nothing half-written is kept."""


class Problem(NamedTuple):
    """One thing wrong with a recipe: where, what, and the mend."""

    line: int | None
    key: str
    message: str


class RecipeError(UserError, ValueError):
    """A recipe with one or more problems, all of them listed at once."""

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        count = f"{len(self.problems)} error{'s' if len(self.problems) != 1 else ''}"
        lines = [
            f"  line {p.line:<4} {p.key}: {p.message}" if p.line is not None else f"  {p.key}: {p.message}" for p in self.problems
        ]
        super().__init__("\n".join([f"{path} has {count}", *lines]))


class GateRefused(TunesmithError):
    """A gate said no; the message gives its reasons and how to look closer."""

    exit_code: ClassVar[int] = 3


class Interrupted(TunesmithError):
    """The user stopped us. What was done is kept, and the same command goes on."""

    exit_code: ClassVar[int] = 130


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_out_of_space(error: BaseException) -> bool:
    """Whether an exception, or one it was raised from, says that the disk is full.

    Compiled libraries (safetensors, SQLite) wrap the system error in their own type and keep only its text.
    """
    seen: BaseException | None = error
    met: set[int] = set()  # a chain of causes may bite its own tail
    while seen is not None and id(seen) not in met:
        met.add(id(seen))
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        text = str(seen).lower()
        if "no space left on device" in text or "disk is full" in text or "file too large" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False

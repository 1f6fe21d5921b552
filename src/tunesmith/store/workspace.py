"""The workspace: one folder with everything tunesmith keeps for a project.

    artefacts/   immutable folders, named by their digest        jobs/      working folders of unfinished stages
    ledger.db    versions, aliases, events, keys (SQLite)        reports/   pages for people
    quarantine/  what `doctor` moved out of the way, bad rows    logs/      how each version was trained, step by step
    judgements/  what people and models said of answers       cache/     may be deleted at any time
    requests.db  what servers answered and what was said of it (`store.request_log`)
    answers/     what other models answered, so that it is not paid for twice
    files/       what clients sent over HTTP     tuning/   the recipes, rows and locks of jobs asked for over HTTP

Nothing is made before the first write, so looking into an empty folder leaves it empty.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import UserError
from tunesmith.store.artefacts import Artefacts
from tunesmith.store.folders import make_folder

if TYPE_CHECKING:
    from tunesmith.store.keys import Keys
    from tunesmith.store.ledger import Ledger

__all__ = ["Store", "find_workspace"]

_VARIABLE = "TUNESMITH_WORKSPACE"
_LEDGER = "TUNESMITH_LEDGER"
_LOCK = "at-work.lock"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def find_workspace(explicit: Path | None = None) -> Path:
    """Where the workspace is: the one named, else `TUNESMITH_WORKSPACE`, else `.tunesmith` in the current folder.

    The path is absolute; the folder need not exist yet.

    Raises:
        UserError: there is a file of that name.
    """
    named = os.environ.get(_VARIABLE, "")
    path = (explicit or Path(named or ".tunesmith")).expanduser().absolute()
    if path.exists() and not path.is_dir():
        origin = "--workspace" if explicit else _VARIABLE if named else "the default"
        raise UserError(f"the workspace {path} (from {origin}) is a file; name a folder")
    return path


class Store:
    """A workspace's two halves, artefacts and ledger, and its folders.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()) / "work")
    >>> store.ledger.versions(), store.root.exists()
    ([], False)
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.artefacts = Artefacts(self.root / "artefacts")

    @cached_property
    def ledger(self) -> Ledger:
        """The registry: in one SQLite file of this workspace, or where `TUNESMITH_LEDGER` says (postgresql://USER@HOST/DATABASE)."""
        from tunesmith.store.ledger import Ledger  # SQLAlchemy takes 0.2 s to import, and many commands need no ledger

        return Ledger(os.environ.get(_LEDGER) or f"sqlite:///{self.root / 'ledger.db'}")

    @cached_property
    def keys(self) -> Keys:
        """The API keys, which lie in the ledger."""
        from tunesmith.store.keys import Keys

        return Keys(self.ledger.database)

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def requests(self) -> Path:
        return self.root / "requests.db"

    @property
    def judgements(self) -> Path:
        return self.root / "judgements"

    @property
    def answers(self) -> Path:
        return self.root / "answers"

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def tuning(self) -> Path:
        return self.root / "tuning"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the block runs, `gc` removes nothing. Any number of processes may be at work; the lock dies with its process."""
        make_folder(self.root)
        with (self.root / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody is at work; nobody begins while the block runs."""
        if not self.root.is_dir():
            yield True
            return
        with (self.root / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def job_folder(self, key: str) -> Path:
        """The working folder of an unfinished stage, made if need be; what it holds outlives a kill.

        It lies on the artefacts' file system, so a checkpoint can be moved into an artefact without a copy.

        Args:
            key: the stage key: letters, digits, dots, dashes and underscores.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} cannot name a job folder; use up to 128 letters, digits, dots, dashes, underscores")
        return make_folder(self.jobs / key)

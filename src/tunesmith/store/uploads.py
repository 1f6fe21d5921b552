"""Files that clients sent: each a row of the ledger and its bytes in `files/`, under a name of ours."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tunesmith.errors import NotFound
from tunesmith.store.folders import flush_folder, make_folder, plain_errors
from tunesmith.store.schema import uploads
from tunesmith.store.workspace import Store

__all__ = ["Upload", "Uploads", "new_id"]

_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file as it was received."""

    id: str
    created_at: int
    """Unix seconds."""
    filename: str
    """As the client called it; never a path of ours."""
    purpose: str
    num_bytes: int
    num_rows: int
    details: str
    """What was found in it that its owner should know; empty where there is nothing."""


class Uploads:
    """The files of a workspace."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.ledger.database

    def part(self) -> Path:
        """Where a file may be written while it arrives; on the file system on which it will lie."""
        return make_folder(self._store.files) / f"{new_id('part')}.jsonl"

    def clear_parts(self, *, older_than_s: float = 3600.0) -> None:
        """Remove what a server left that was killed while a file arrived."""
        for path in self._store.files.glob("part-*.jsonl"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()

    def keep(self, part: Path, *, filename: str, purpose: str, num_rows: int, details: str = "") -> Upload:
        """Take a file over that lies whole and flushed at `part`.

        Raises:
            OutOfSpace: the disk is full.
        """
        upload = Upload(
            id=new_id("file"),
            created_at=int(time.time()),
            filename=filename,
            purpose=purpose,
            num_bytes=part.stat().st_size,
            num_rows=num_rows,
            details=details,
        )
        path = self.path(upload)
        with plain_errors(path):
            part.replace(path)
            flush_folder(path.parent)
        with self._database.write() as connection:
            connection.execute(sa.insert(uploads).values({name: getattr(upload, name) for name in upload.__slots__}))
        return upload

    def path(self, upload: Upload) -> Path:
        """Where its bytes lie."""
        return self._store.files / f"{upload.id}.jsonl"

    def find(self, id: str) -> Upload:  # noqa: A002 - the wire's own word
        """Look a file up.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        with self._database.read() as connection:
            row = connection.execute(sa.select(uploads).where(uploads.c.id == id)).first()
        if row is None:
            raise NotFound(f"there is no file {id[:64]!r}; it may have been deleted")
        return _upload_of(row)

    def all(self) -> Sequence[Upload]:
        """Every file, oldest first."""
        with self._database.read() as connection:
            return [_upload_of(row) for row in connection.execute(sa.select(uploads).order_by(uploads.c.seq))]

    def delete(self, id: str) -> None:  # noqa: A002
        """Forget a file and remove its bytes. A job that has begun has its own.

        Raises:
            NotFound: there is no such file.
        """
        upload = self.find(id)
        with self._database.write() as connection:
            connection.execute(sa.delete(uploads).where(uploads.c.id == upload.id))
        self.path(upload).unlink(missing_ok=True)


def new_id(kind: str) -> str:
    """A name that nobody can guess, such as `file-Abc…`."""
    return f"{kind}-{''.join(secrets.choice(_LETTERS) for _ in range(24))}"


def _upload_of(row: sa.Row[tuple[object, ...]]) -> Upload:
    return Upload(**{name: value for name, value in row._mapping.items() if name != "seq"})

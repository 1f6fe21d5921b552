"""Artefacts: immutable, content-addressed, read-only folders.

An artefact's `manifest.json` is the canonical JSON of its kind and the sha256 of every file; the sha256 of the manifest is
the artefact's digest and the name of its folder. Equal content has an equal digest, so publishing twice is harmless.
Publishing is atomic: a kill at any moment leaves no artefact or a complete one. Empty folders are not part of an artefact.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import orjson

from tunesmith.errors import BrokenArtefact, NotFound, TunesmithError
from tunesmith.store.digest import canonical_json, digest_of_file
from tunesmith.store.folders import flush_folder, make_folder, make_staging, new_staging_name, plain_errors, remove_folder

__all__ = ["Artefact", "Artefacts", "Staging"]

_MANIFEST = "manifest.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A published folder. `path` is read-only; a file of it is `artefact.path / name`."""

    digest: str
    kind: str
    path: Path
    files: Mapping[str, str]
    """Posix path below `path` -> sha256, without the manifest."""


class Staging:
    """A folder being written. `artefact` is there once the `publish` block has ended well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._artefact: Artefact | None = None

    @property
    def artefact(self) -> Artefact:
        if self._artefact is None:
            raise RuntimeError("the artefact exists only after the `with artefacts.publish(...)` block has ended")
        return self._artefact


class Artefacts:
    """The artefacts below one folder, which is made at the first publish."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def publish(self, kind: str) -> Iterator[Staging]:
        """Write files into `staging.path`; when the block ends they become an artefact, all or nothing.

        Args:
            kind: what the folder is, such as `snapshot` or `model`; part of the identity.

        Raises:
            OutOfSpace: the disk is full, in the block or while publishing; nothing of it is kept.

        >>> import tempfile
        >>> artefacts = Artefacts(Path(tempfile.mkdtemp()))
        >>> with artefacts.publish("note") as staging:
        ...     _ = (staging.path / "note.txt").write_text("hello")
        >>> list(staging.artefact.files)
        ['note.txt']
        """
        with plain_errors(self.root):
            make_folder(self.root)
            with make_staging(self.root) as folder:
                staging = Staging(folder)
                yield staging
                digest = _seal(folder, kind=kind)
                self._commit(folder, digest=digest)
        staging._artefact = self.get(digest)

    def get(self, digest: str) -> Artefact:
        """The artefact of this digest. Its manifest is checked; its files are not re-hashed (`verify` does that).

        Raises:
            NotFound: no such artefact.
            BrokenArtefact: the manifest is missing or altered.
        """
        path = self._path(digest)
        manifest, problem = _read_manifest(path, digest=digest)
        if problem:
            raise BrokenArtefact(
                f"the artefact {path} is broken: {problem}. Run `tunesmith doctor`; with --repair it moves the artefact to "
                "quarantine, and the next run makes it again"
            )
        content = orjson.loads(manifest)
        return Artefact(digest=digest, kind=content["kind"], path=path, files=MappingProxyType(content["files"]))

    def verify(self, digest: str) -> list[str]:
        """Re-hash an artefact and tell what differs from its manifest; empty when it is sound.

        Raises:
            NotFound: no such artefact.
        """
        _, problem = _read_manifest(self._path(digest), digest=digest)
        if problem:
            return [problem]
        artefact = self.get(digest)
        found = _entries(artefact.path) - {_MANIFEST}
        missing = [f"{name}: the file is missing" for name in artefact.files if name not in found]
        extra = [f"{name}: the file is not in the manifest" for name in sorted(found - set(artefact.files))]
        altered = [
            _difference(artefact.path, name, expected=expected) for name, expected in artefact.files.items() if name in found
        ]
        return missing + extra + [problem for problem in altered if problem]

    def touch(self, digest: str) -> Artefact:
        """The artefact, kept from `gc` for its whole grace time from now: for whoever is about to name it.

        Raises:
            NotFound: no such artefact.
            BrokenArtefact: the manifest is missing or altered.
        """
        path = self._path(digest)
        with self._one_at_a_time():
            if path.is_dir():
                os.utime(path)
        return self.get(digest)

    def remove(self, digest: str, *, unless_used_since: float) -> bool:
        """Remove an artefact for good, unless somebody has published or touched it since.

        Args:
            digest: of the artefact; one that is not there is no error.
            unless_used_since: seconds since the epoch.

        Returns:
            Whether it was removed.
        """
        if not _DIGEST.fullmatch(digest) or not self.root.is_dir():
            return False
        doomed = self.root / new_staging_name()
        with plain_errors(self.root):
            with self._one_at_a_time():
                if self.last_used(digest) > unless_used_since:
                    return False
                try:
                    (self.root / digest).rename(doomed)
                except FileNotFoundError:
                    return False
                flush_folder(self.root)
            remove_folder(doomed)
        return True

    def last_used(self, digest: str) -> float:
        """When it was last published or touched, in seconds since the epoch; 0 where it is not there."""
        try:
            return (self.root / digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def digests(self) -> Iterator[str]:
        """The digest of every artefact here, sorted. Nothing is checked."""
        if self.root.is_dir():
            yield from sorted(path.name for path in self.root.iterdir() if _DIGEST.fullmatch(path.name) and path.is_dir())

    def _path(self, digest: str) -> Path:
        path = self.root / digest
        # The pattern comes first: a digest read from elsewhere must never lead out of this folder.
        if not _DIGEST.fullmatch(digest) or not path.is_dir():
            raise NotFound(f"there is no artefact {digest!r} in {self.root}. `tunesmith doctor` tells what is missing")
        return path

    def _commit(self, folder: Path, *, digest: str) -> None:
        target = self.root / digest
        with self._one_at_a_time():  # or one could throw away, as the broken copy it had seen, what another has just published
            while True:
                try:
                    folder.rename(target)
                    break
                except OSError as error:
                    if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                if self._is_sound(digest):
                    os.utime(target)  # whoever publishes it is about to name it
                    break
                self._discard(target)
        flush_folder(self.root)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Across threads and processes; the lock is on the folder itself and dies with its holder."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _is_sound(self, digest: str) -> bool:
        try:
            return not self.verify(digest)
        except NotFound:
            return False

    def _discard(self, target: Path) -> None:
        # The same content is at hand again, so a broken copy makes room for it. The rename comes first: a folder that is
        # half removed must not carry an artefact's name.
        doomed = self.root / new_staging_name()
        try:
            target.rename(doomed)
        except FileNotFoundError:
            return
        remove_folder(doomed)


def _read_manifest(folder: Path, *, digest: str) -> tuple[bytes, str]:
    """The manifest's bytes, and what is wrong with them ('' when they are sound)."""
    try:
        manifest = (folder / _MANIFEST).read_bytes()
    except OSError as error:
        return b"", f"{_MANIFEST}: cannot be read ({error.strerror})"
    found = hashlib.sha256(manifest).hexdigest()
    return manifest, "" if found == digest else f"{_MANIFEST}: its sha256 is {found}, which is not the artefact's digest"


def _entries(folder: Path) -> set[str]:
    """Everything below a folder that is not a folder: files, symlinks and the rest."""
    names = set()
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        names |= {(Path(parent) / name).relative_to(folder).as_posix() for name in (*files, *links)}
    return names


def _difference(folder: Path, name: str, *, expected: str) -> str:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        return f"{name}: not a regular file"
    try:
        found = digest_of_file(path)
    except OSError as error:
        return f"{name}: cannot be read ({error.strerror})"
    return "" if found == expected else f"{name}: its sha256 is {found}, the manifest says {expected}"


def _seal(folder: Path, *, kind: str) -> str:
    """Hash and flush every file, write the manifest, make all read-only; returns the digest."""
    names = sorted(_entries(folder))
    if _MANIFEST in names:
        raise TunesmithError(f"{_MANIFEST} is written by the store; name the file in this {kind} otherwise")
    for name in names:
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise TunesmithError(f"{name} in this {kind} is a symlink or a special file; an artefact holds copies only")
    manifest = canonical_json({"kind": kind, "files": {name: digest_of_file(folder / name) for name in names}})
    (folder / _MANIFEST).write_bytes(manifest)
    for name in (*names, _MANIFEST):
        _flush_file(folder / name)
    for parent, _, _ in os.walk(folder, topdown=False):
        Path(parent).chmod(0o555)
        flush_folder(Path(parent))
    return hashlib.sha256(manifest).hexdigest()


def _flush_file(path: Path) -> None:
    path.chmod(0o444)
    with path.open("rb") as file:
        os.fsync(file.fileno())

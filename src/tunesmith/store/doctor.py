"""The doctor: re-hash everything that is kept, tell what is wrong, and mend what can be mended.

Nothing that might be wanted is deleted: a broken artefact is moved to `quarantine/`, and the records of stages that made it are
forgotten, so the next run makes it again. Its versions are marked, and an alias that points to one falls back to what is sound. Only
folders of publishes that were killed are removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tunesmith.errors import BrokenArtefact
from tunesmith.store.findings import HARMLESS, Finding, FindingKind
from tunesmith.store.folders import flush_folder, is_in_use, make_folder, plain_errors, remove_folder, staging_folders
from tunesmith.store.naming import Named, read_named
from tunesmith.store.registry_doctor import examine_registry
from tunesmith.store.schema import stages
from tunesmith.store.workspace import Store

__all__ = ["Diagnosis", "Finding", "FindingKind", "examine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What the doctor looked at and found."""

    root: str
    num_artefacts: int
    num_bytes: int
    num_versions: int
    num_stages: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether everything that answers is there and intact; orphans and marked versions do no harm."""
        return all(finding.kind in HARMLESS for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _References:
    """Who names which artefact, as the ledger tells it. `readable` is False when it could not be asked."""

    versions: Mapping[str, list[str]]
    stages: Mapping[str, list[str]]
    reports: frozenset[str]
    """Whatever else is named: reports, sheets of proofs, snapshots and recipes."""
    problems: tuple[str, ...]
    readable: bool

    def users(self, digest: str) -> list[str]:
        return [*self.versions.get(digest, ()), *self.stages.get(digest, ())]


def examine(store: Store, *, repair: bool = False) -> Diagnosis:
    """Re-hash every artefact and compare artefacts with the ledger. A workspace that does not exist is sound.

    Args:
        store: the workspace.
        repair: move broken artefacts to quarantine, forget stages whose artefact is gone or broken, remove leftovers.

    >>> import tempfile
    >>> examine(Store(Path(tempfile.mkdtemp()))).sound
    True
    """
    # The ledger is read first: what it names was published before, so a run at work is never taken for a fault.
    references = _read_references(store)
    digests = list(store.artefacts.digests())
    num_bytes = sum(_num_bytes(store.artefacts.root / digest) for digest in digests)
    findings = [
        *(Finding(kind=FindingKind.LEDGER, digest="", detail=problem) for problem in references.problems),
        *_find_leftovers(store, repair=repair),
        *_find_broken(store, digests, references=references, repair=repair),
        *_find_missing(store, digests, references=references, repair=repair),
        *(examine_registry(store, repair=repair) if references.readable else ()),
        *_find_orphans(digests, references=references),
    ]
    return Diagnosis(
        root=str(store.root),
        num_artefacts=len(digests),
        num_bytes=num_bytes,
        num_versions=sum(map(len, references.versions.values())),
        num_stages=sum(map(len, references.stages.values())),
        findings=tuple(findings),
    )


def _num_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _read_references(store: Store) -> _References:
    problems: list[str] = []
    try:
        problems = store.ledger.database.problems()
        named = read_named(store.ledger)
    except BrokenArtefact as error:
        problems.append(str(error))
        return _References(versions={}, stages={}, reports=frozenset(), problems=tuple(problems), readable=False)
    if _is_elsewhere(store, named):
        problems.append(
            "the ledger is on a server, and none of the artefacts that it names is in this workspace: those that share a ledger share "
            "the workspace too. Nothing is repaired before --workspace names the right one"
        )
    return _References(
        versions={digest: [version.ref for version in found] for digest, found in named.versions.items()},
        stages={digest: [f"stage {stage.name} ({stage.key[:12]})" for stage in found] for digest, found in named.stages.items()},
        reports=named.others,
        problems=tuple(problems),
        readable=not problems,
    )


def _is_elsewhere(store: Store, named: Named) -> bool:
    return (
        store.ledger.database.file is None and bool(named.versions) and not set(named.versions) & set(store.artefacts.digests())
    )


def _find_leftovers(store: Store, *, repair: bool) -> Iterator[Finding]:
    for folder in staging_folders(store.artefacts.root):
        if is_in_use(folder):
            continue
        if repair:
            with plain_errors(folder):
                remove_folder(folder)
        yield Finding(
            kind=FindingKind.LEFTOVER,
            digest=folder.name,
            detail="a publish was killed while it wrote this folder",
            action="removed" if repair else "",
        )


def _find_broken(store: Store, digests: list[str], *, references: _References, repair: bool) -> Iterator[Finding]:
    for digest in digests:
        problems = store.artefacts.verify(digest)
        if not problems:
            continue
        users = references.users(digest)
        used = f" (used by {', '.join(users)})" if users else ""
        action = ""
        if repair:
            place = _quarantine(store, digest)
            action = f"moved to {place.relative_to(store.root).as_posix()}{_forget_stages(store, digest, references)}"
        for problem in problems:
            yield Finding(kind=FindingKind.BROKEN, digest=digest, detail=problem + used, action=action)


def _find_missing(store: Store, digests: list[str], *, references: _References, repair: bool) -> Iterator[Finding]:
    if not references.readable:  # perhaps it is only another workspace
        return
    present = set(digests)
    for digest in sorted({*references.stages} - present):
        forgotten = _forget_stages(store, digest, references) if repair else ""
        for user in references.stages.get(digest, ()):
            action = forgotten.removeprefix("; ")
            yield Finding(kind=FindingKind.MISSING, digest=digest, detail=f"{user} names an artefact that is gone", action=action)


def _find_orphans(digests: list[str], *, references: _References) -> Iterator[Finding]:
    if not references.readable:  # nothing can be said of who names what
        return
    for digest in digests:
        if not references.users(digest) and digest not in references.reports:
            yield Finding(kind=FindingKind.ORPHAN, digest=digest, detail="nothing in the ledger names this artefact")


def _quarantine(store: Store, digest: str) -> Path:
    source = store.artefacts.root / digest
    with plain_errors(store.quarantine):
        target = make_folder(store.quarantine) / digest
        if target.exists():
            target = target.with_name(f"{digest}-{secrets.token_hex(4)}")
        source.chmod(0o700)  # a folder can change its parent only while it is writable
        source.rename(target)
        flush_folder(store.artefacts.root)
        flush_folder(store.quarantine)
    return target


def _forget_stages(store: Store, digest: str, references: _References) -> str:
    if not references.stages.get(digest):
        return ""
    with store.ledger.database.write() as connection:
        connection.execute(sa.delete(stages).where(stages.c.artefact == digest))
    return "; the stage is forgotten, so the next run makes it again"

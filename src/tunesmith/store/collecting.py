"""Take away what nothing names: artefacts of deleted versions, snapshots that only a `check` has made, reports of nothing.

What somebody may be about to name is safe. Whoever names an artefact has published it or found it by its stage first, and that makes
it new (`Artefacts.touch`); what is younger than the grace time is kept, and while a run is at work nothing is removed at all.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from tunesmith.errors import GateRefused, UserError
from tunesmith.store.naming import read_named
from tunesmith.store.schema import stages
from tunesmith.store.workspace import Store

__all__ = ["GRACE_DAYS", "Collected", "Rubbish", "collect"]

GRACE_DAYS = 7.0
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Rubbish:
    """An artefact that nothing names."""

    digest: str
    kind: str
    """Such as `model`; `?` where its manifest cannot be read."""
    num_bytes: int
    age_days: float
    """Since it was last published or found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was removed, or would be."""

    is_dry_run: bool
    grace_days: float
    removed: tuple[Rubbish, ...]
    num_stages: int
    """Records of finished stages that were forgotten; their recipe does them again."""
    num_kept: int
    num_young: int
    """Artefacts that nothing names and that are younger than the grace time."""

    @property
    def num_bytes(self) -> int:
        return sum(one.num_bytes for one in self.removed)


def collect(store: Store, *, grace_days: float = GRACE_DAYS, is_dry_run: bool = False, keep: Collection[str] = ()) -> Collected:
    """Remove artefacts that neither version, alias, report, proof nor lineage names, once they are old enough.

    Args:
        store: the workspace.
        grace_days: what was published or found in these days stays.
        is_dry_run: only say what would go.
        keep: digests that are needed for reasons that the ledger does not know.

    Raises:
        UserError: the grace time is no number from 0.
        GateRefused: a run is at work.
        BrokenArtefact: the ledger is damaged; nothing can be said of who names what.
    """
    if not grace_days >= 0:
        raise UserError(f"--grace {grace_days:g}: give a number of days from 0")
    with store.alone() as is_alone:
        if not is_alone and not is_dry_run:
            raise GateRefused(
                "a run is at work in this workspace, and may be about to name what looks unused. Try again when it has ended"
            )
        return _collect(
            store, before=time.time() - grace_days * _DAY_S, grace_days=grace_days, is_dry_run=is_dry_run, keep=set(keep)
        )


def _collect(store: Store, *, before: float, grace_days: float, is_dry_run: bool, keep: set[str]) -> Collected:
    named = read_named(store.ledger)
    kept = named.kept | keep
    digests = list(store.artefacts.digests())
    unused = [digest for digest in digests if digest not in kept]
    young = {digest for digest in unused if store.artefacts.last_used(digest) > before}
    young |= {digest for digest in unused if any(_seconds(stage.recorded_at) > before for stage in named.stages.get(digest, ()))}
    old = [_rubbish(store, digest) for digest in unused if digest not in young]
    forgotten = [stage.key for one in old for stage in named.stages.get(one.digest, ())]
    removed = tuple(old)
    if not is_dry_run:
        _forget(store, [(key, one.digest) for one in old for key in (stage.key for stage in named.stages.get(one.digest, ()))])
        removed = tuple(one for one in old if store.artefacts.remove(one.digest, unless_used_since=before))
    return Collected(
        is_dry_run=is_dry_run,
        grace_days=grace_days,
        removed=removed,
        num_stages=len(forgotten),
        num_kept=len(digests) - len(removed),
        num_young=len(young),
    )


def _forget(store: Store, recorded: list[tuple[str, str]]) -> None:
    if recorded:
        with store.ledger.database.write() as connection:
            for key, digest in recorded:
                connection.execute(sa.delete(stages).where(stages.c.key == key, stages.c.artefact == digest))


def _rubbish(store: Store, digest: str) -> Rubbish:
    folder = store.artefacts.root / digest
    try:
        kind = store.artefacts.get(digest).kind
    except OSError:
        kind = "?"
    num_bytes = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    age = (time.time() - store.artefacts.last_used(digest)) / _DAY_S
    return Rubbish(digest=digest, kind=kind, num_bytes=num_bytes, age_days=age)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()

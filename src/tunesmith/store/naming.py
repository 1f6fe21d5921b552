"""Who names which artefact, as the ledger tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from tunesmith.records import ModelVersion
from tunesmith.store.ledger import Ledger
from tunesmith.store.rows import version_of
from tunesmith.store.schema import aliases, events, stages, versions

__all__ = ["Named", "Stage", "read_named"]


class Stage(NamedTuple):
    """A finished stage."""

    key: str
    name: str
    recorded_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Digests of artefacts, and who names them."""

    versions: Mapping[str, Sequence[ModelVersion]]
    stages: Mapping[str, Sequence[Stage]]
    others: frozenset[str]
    """Whatever else versions and aliases name: reports, sheets of proofs, snapshots and recipes. Not all of it is a digest."""

    @property
    def kept(self) -> frozenset[str]:
        """All that something beside a stage names."""
        return self.others | frozenset(self.versions)


def read_named(ledger: Ledger) -> Named:
    """Read it in one view."""
    found: defaultdict[str, list[ModelVersion]] = defaultdict(list)
    recorded: defaultdict[str, list[Stage]] = defaultdict(list)
    others: set[str] = set()
    with ledger.database.read() as connection:
        for version in map(version_of, connection.execute(sa.select(versions).order_by(versions.c.id))):
            found[version.artefact].append(version)
            others.update((*version.reports, *version.lineage.values()))
        for row in connection.execute(sa.select(stages).order_by(stages.c.recorded_at, stages.c.key)):
            recorded[row.artefact].append(Stage(row.key, row.stage, row.recorded_at))
        refs = {(version.name, version.number) for some in found.values() for version in some}
        proved = sa.select(events.c.name, events.c.version, events.c.because).where(events.c.kind.in_(("proved", "refuted")))
        for row in connection.execute(proved):
            if (row.name, row.version) in refs:
                others.update(row.because)
        for because in connection.scalars(sa.select(aliases.c.because)):
            others.update(because)
    return Named(versions=found, stages=recorded, others=frozenset(others))

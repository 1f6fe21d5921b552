"""What the doctor may find."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["HARMLESS", "Finding", "FindingKind"]


class FindingKind(StrEnum):
    """What is wrong."""

    BROKEN = "broken"
    """A file of an artefact is altered, missing or too many."""
    MISSING = "missing"
    """A version or a stage names an artefact that is not there."""
    LEFTOVER = "leftover"
    """The folder of a publish whose process was killed."""
    LEDGER = "ledger"
    """The database itself is damaged."""
    ORPHAN = "orphan"
    """An artefact that nothing names: harmless, it only takes space."""
    ALIAS = "alias"
    """An alias points to a version whose files are broken or gone."""
    LOG = "log"
    """A table and the event log do not agree."""
    QUARANTINED = "quarantined"
    """A version is known to be without its files, and no alias points to it: harmless."""


HARMLESS = (FindingKind.ORPHAN, FindingKind.QUARANTINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found, and what was done about it."""

    kind: FindingKind
    digest: str
    """Digest of the artefact; the folder's name for a leftover; empty for the ledger."""
    detail: str
    action: str = ""
    """What `repair` did; empty when nothing was done."""

"""Rows of the ledger's tables as records, and back; and the sentences for what is not there."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tunesmith.errors import NotFound, UserError
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store.schema import aliases, events, versions

__all__ = [
    "Event",
    "Move",
    "append_event",
    "check_name",
    "deployment_in",
    "event_of",
    "no_such_model",
    "no_such_version",
    "now",
    "pointed_in",
    "require_version",
    "row_of",
    "version_of",
    "versions_in",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LIST = "`tunesmith models` lists them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a model; never changed, never removed."""

    id: int
    name: str
    kind: str
    """`registered`, `pointed`, `rolled_back`, `removed`, `proved`, `refuted`, `quarantined`, `restored` or `deleted`."""
    alias: str
    """The alias that moved; empty when none did."""
    version: int
    generation: int
    """The alias's generation after the move; 0 when none moved."""
    because: tuple[str, ...]
    """Report ids or reasons of a move; the digest of the sheet of a proof."""
    actor: str
    at: str
    """UTC, ISO 8601."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Of a move: `arms`, and `overruled`, the reasons against it that somebody set aside; of a removed alias the arms that it had. Of a
    deletion: `version`, the row that went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Why, by whom and when something is changed; shared by all that one transaction changes."""

    because: tuple[str, ...]
    actor: str
    at: str
    overruled: tuple[str, ...] = ()


def append_event(
    connection: sa.Connection,
    move: Move,
    *,
    name: str,
    kind: str,
    version: int,
    deployment: Deployment | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down what a transaction does. `deployment` is what an alias answers with from now on."""
    told = dict(details or {})
    if deployment is not None:
        told["arms"] = dict(deployment.arms)
    if move.overruled:
        told["overruled"] = list(move.overruled)
    connection.execute(
        sa.insert(events).values(
            name=name,
            kind=kind,
            alias=deployment.alias if deployment else "",
            version=version,
            generation=deployment.generation if deployment else 0,
            because=list(move.because),
            actor=move.actor,
            at=move.at,
            details=told,
        )
    )


def event_of(row: sa.Row[Any]) -> Event:
    """An event as it was written."""
    return Event(**{**row._mapping, "because": tuple(row.because)})


def deployment_in(connection: sa.Connection, *, name: str, alias: str) -> Deployment | None:
    """What answers for an alias."""
    row = connection.execute(sa.select(aliases).where(aliases.c.name == name, aliases.c.alias == alias)).first()
    if row is None:
        return None
    return Deployment(
        name=name, alias=alias, version=row.version, arms=row.arms, because=tuple(row.because), generation=row.generation
    )


def pointed_in(connection: sa.Connection, name: str) -> dict[str, int]:
    """Version number by alias, sorted by alias."""
    query = sa.select(aliases.c.alias, aliases.c.version).where(aliases.c.name == name)
    return {row.alias: row.version for row in sorted(connection.execute(query), key=lambda row: str(row.alias))}


def versions_in(connection: sa.Connection, name: str) -> dict[int, ModelVersion]:
    """A model's versions by number, in the order of registration."""
    rows = connection.execute(sa.select(versions).where(versions.c.name == name).order_by(versions.c.id))
    return {row.number: version_of(row) for row in rows}


def require_version(connection: sa.Connection, *, name: str, version: int) -> ModelVersion:
    """The version of that number.

    Raises:
        NotFound: there is none, or no such model.
    """
    found = versions_in(connection, name)
    if not found:
        raise NotFound(no_such_model(name, known=connection.scalars(sa.select(versions.c.name).distinct()).all()))
    if version not in found:
        raise NotFound(no_such_version(f"{name}@{version}", numbers=found, aliases={}))
    return found[version]


def no_such_model(name: str, *, known: Sequence[str]) -> str:
    """What is said where there is no model of that name."""
    if not known:
        return f"there is no model {name!r}: no model has been trained in this workspace yet. `tunesmith run RECIPE` makes one"
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"there is no model {name!r}.{meant} The workspace holds {len(known)}; {_LIST}"


def no_such_version(ref: str, *, numbers: Iterable[int], aliases: Mapping[str, int]) -> str:
    """What is said where a model has no such version or alias."""
    name, _, choice = ref.partition("@")
    shown = sorted(numbers)
    have = f"versions {', '.join(map(str, shown))}" if len(shown) <= 8 else f"{len(shown)} versions, {shown[0]} to {shown[-1]}"
    named = f" and the aliases {', '.join(sorted(aliases))}" if aliases else ""
    near = difflib.get_close_matches(choice, list(aliases), n=1)
    meant = f" Did you mean {name}@{near[0]}?" if near else ""
    return f"there is no {ref}.{meant} {name} has {have}{named}; {_LIST}"


def check_name(name: str, *, what: str) -> None:
    """Refuse a name that could not be typed or stored.

    Raises:
        UserError: it is one.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be {what}: use 1 to 63 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or a digit"
        )


def row_of(version: ModelVersion) -> dict[str, Any]:
    """A version as a row."""
    # JSON has no infinity, and a diverged run has such a perplexity: it is kept as a word.
    metrics = {name: value if math.isfinite(value) else str(value) for name, value in version.metrics.items()}
    return {**asdict(replace(version, metrics={})), "metrics": metrics, "reports": list(version.reports)}


def version_of(row: sa.Row[Any]) -> ModelVersion:
    """A row as a version."""
    return ModelVersion(
        name=row.name,
        number=row.number,
        run=row.run,
        artefact=row.artefact,
        weights_digest=row.weights_digest,
        chat_digest=row.chat_digest,
        base_digest=row.base_digest,
        created_at=row.created_at,
        metrics={name: float(value) for name, value in row.metrics.items()},
        reports=tuple(row.reports),
        lineage=row.lineage,
        state=row.state,
    )


def now() -> str:
    """UTC, ISO 8601, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""The ledger: model versions and their aliases, finished stages, and the events that tell how it came to be.

Every change is one transaction that no other writer overlaps, so several processes may register and promote at once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tunesmith.errors import GateRefused, NotFound, UserError
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store.database import Database
from tunesmith.store.schema import aliases, events, stages, versions

__all__ = ["Event", "Ledger"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LIST = "`tunesmith models` lists them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a model; never changed, never removed."""

    id: int
    name: str
    kind: str
    """`registered`, `pointed`, `proved` or `refuted`."""
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


class Ledger:
    """The registry behind a database URL, made by its first write; reading a ledger that does not exist finds nothing.

    >>> Ledger("sqlite:////nowhere/ledger.db").versions()
    []
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)

    def stage(self, key: str) -> str | None:
        """Digest of the artefact that a finished stage left, or None. The artefact itself is not looked at."""
        with self.database.read() as connection:
            return connection.scalar(sa.select(stages.c.artefact).where(stages.c.key == key))

    def record_stage(self, key: str, *, stage: str, artefact: str) -> None:
        """Remember what a finished stage left; recording a key again replaces its artefact.

        Args:
            key: hash of the stage's inputs, configuration and code version.
            stage: the stage's name, for people.
            artefact: digest of what it published.
        """
        with self.database.write() as connection:
            connection.execute(sa.delete(stages).where(stages.c.key == key))
            connection.execute(sa.insert(stages).values(key=key, stage=stage, artefact=artefact, recorded_at=_now()))

    def register(self, version: ModelVersion) -> ModelVersion:
        """Add a version and return it with its number; the same name, artefact and run again return the version there is.

        Args:
            version: with `number` 0 for the next free number of that name; with an empty `created_at` for now.

        Raises:
            UserError: the name cannot be used, or the number is taken by another version.
        """
        _check_name(version.name, what="a model name")
        with self.database.write() as connection:
            same = (versions.c.name, versions.c.artefact, versions.c.run)
            found = connection.execute(
                sa.select(versions).where(sa.tuple_(*same) == (version.name, version.artefact, version.run))
            ).first()
            if found is not None:
                return _version(found)
            numbers = connection.scalars(sa.select(versions.c.number).where(versions.c.name == version.name)).all()
            if version.number in numbers:
                raise UserError(f"{version.ref} exists already and is another model. Register with number 0 for the next one")
            registered = replace(
                version,
                number=version.number or max(numbers, default=0) + 1,
                created_at=version.created_at or _now(),
            )
            connection.execute(sa.insert(versions).values(_row(registered)))
            _append_event(connection, name=version.name, kind="registered", version=registered.number)
            return registered

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, or those of one name, in the order of registration."""
        query = sa.select(versions).order_by(versions.c.id)
        with self.database.read() as connection:
            rows = connection.execute(query if name is None else query.where(versions.c.name == name)).all()
        return [_version(row) for row in rows]

    def version(self, ref: str) -> ModelVersion:
        """The version that people mean by `boutique` (its champion, else its newest), `boutique@3` or `boutique@champion`.

        Raises:
            NotFound: naming the nearest names, versions or aliases.
        """
        name, _, choice = ref.partition("@")
        with self.database.read() as connection:
            rows = connection.execute(sa.select(versions).where(versions.c.name == name).order_by(versions.c.id)).all()
            if not rows:
                raise NotFound(_no_such_model(name, known=connection.scalars(sa.select(versions.c.name).distinct()).all()))
            pointed = _aliases(connection, name)
        found = {row.number: _version(row) for row in rows}
        newest = rows[-1].number
        if not choice:
            return found[pointed.get("champion", newest)]
        number = int(choice) if choice.isdecimal() else pointed.get(choice)
        if number is None or number not in found:
            raise NotFound(_no_such_version(ref, numbers=list(found), aliases=pointed))
        return found[number]

    def deployment(self, name: str, alias: str) -> Deployment | None:
        """What answers for an alias, or None when it points nowhere."""
        with self.database.read() as connection:
            return _deployment(connection, name=name, alias=alias)

    def aliases(self, name: str) -> dict[str, int]:
        """Version number by alias, sorted by alias."""
        with self.database.read() as connection:
            return _aliases(connection, name)

    def point(
        self,
        name: str,
        *,
        alias: str,
        version: int,
        because: Sequence[str],
        actor: str,
        expected_generation: int | None,
    ) -> Deployment:
        """Point an alias at a version, in one transaction; when the champion changes, `previous` takes the old one.

        Args:
            name: model name.
            alias: such as `champion`.
            version: number of a registered version.
            because: report ids or reasons, kept with the deployment and its event.
            actor: who asked for it.
            expected_generation: the generation last seen (0: the alias does not exist yet); None moves it whatever it is.

        Raises:
            NotFound: no such model or version.
            GateRefused: somebody else moved the alias in the meantime.
        """
        _check_name(alias, what="an alias")
        if alias.isdecimal():
            raise UserError(f"the alias {alias!r} reads like a version number; give it a name with a letter")
        with self.database.write() as connection:
            _require_version(connection, name=name, version=version)
            current = _deployment(connection, name=name, alias=alias)
            generation = current.generation if current else 0
            if expected_generation is not None and expected_generation != generation:
                where = f"at {name}@{current.version}" if current else "nowhere"
                raise GateRefused(
                    f"{name}@{alias} was moved by someone else: it is at generation {generation} and points {where}, "
                    f"generation {expected_generation} was expected. Look again and repeat the decision"
                )
            move = _Move(because=tuple(because), actor=actor, at=_now())
            if alias == "champion" and current is not None and current.version != version:
                _move(connection, move, name=name, alias="previous", version=current.version)
            return _move(connection, move, name=name, alias=alias, version=version)

    def record_proof(self, version: ModelVersion, *, artefact: str, holds: bool) -> None:
        """Tie a sheet of proofs to a version, which stays what it is.

        Args:
            version: a registered version.
            artefact: digest of the sheet.
            holds: whether every proof on it does.
        """
        with self.database.write() as connection:
            _require_version(connection, name=version.name, version=version.number)
            move = _Move(because=(artefact,), actor="prove", at=_now())
            _append_event(connection, name=version.name, kind="proved" if holds else "refuted", version=version.number, move=move)

    def events(self, name: str) -> list[Event]:
        """Everything that happened to a model, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(events).where(events.c.name == name).order_by(events.c.id)).all()
        return [Event(**{**row._mapping, "because": tuple(row.because)}) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """Why, by whom and when aliases move; shared by the aliases that one transaction moves."""

    because: tuple[str, ...]
    actor: str
    at: str


def _move(connection: sa.Connection, move: _Move, *, name: str, alias: str, version: int) -> Deployment:
    current = _deployment(connection, name=name, alias=alias)
    generation = current.generation + 1 if current else 1
    arms = {f"{name}@{version}": 1.0}
    changed = {
        "version": version,
        "arms": arms,
        "because": list(move.because),
        "generation": generation,
        "actor": move.actor,
        "updated_at": move.at,
    }
    if current is None:
        connection.execute(sa.insert(aliases).values(name=name, alias=alias, **changed))
    else:
        connection.execute(sa.update(aliases).where(aliases.c.name == name, aliases.c.alias == alias).values(changed))
    _append_event(connection, name=name, kind="pointed", version=version, alias=alias, generation=generation, move=move)
    return Deployment(name=name, alias=alias, version=version, arms=arms, because=move.because, generation=generation)


def _append_event(
    connection: sa.Connection,
    *,
    name: str,
    kind: str,
    version: int,
    alias: str = "",
    generation: int = 0,
    move: _Move | None = None,
) -> None:
    about = move or _Move(because=(), actor="", at=_now())
    connection.execute(
        sa.insert(events).values(
            name=name,
            kind=kind,
            alias=alias,
            version=version,
            generation=generation,
            because=list(about.because),
            actor=about.actor,
            at=about.at,
        )
    )


def _deployment(connection: sa.Connection, *, name: str, alias: str) -> Deployment | None:
    row = connection.execute(sa.select(aliases).where(aliases.c.name == name, aliases.c.alias == alias)).first()
    if row is None:
        return None
    return Deployment(
        name=name, alias=alias, version=row.version, arms=row.arms, because=tuple(row.because), generation=row.generation
    )


def _aliases(connection: sa.Connection, name: str) -> dict[str, int]:
    query = sa.select(aliases.c.alias, aliases.c.version).where(aliases.c.name == name).order_by(aliases.c.alias)
    return {row.alias: row.version for row in connection.execute(query)}


def _require_version(connection: sa.Connection, *, name: str, version: int) -> None:
    numbers = connection.scalars(sa.select(versions.c.number).where(versions.c.name == name)).all()
    if not numbers:
        raise NotFound(_no_such_model(name, known=connection.scalars(sa.select(versions.c.name).distinct()).all()))
    if version not in numbers:
        raise NotFound(_no_such_version(f"{name}@{version}", numbers=numbers, aliases={}))


def _no_such_model(name: str, *, known: Sequence[str]) -> str:
    if not known:
        return f"there is no model {name!r}: no model has been trained in this workspace yet. `tunesmith run RECIPE` makes one"
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"there is no model {name!r}.{meant} The workspace holds {len(known)}; {_LIST}"


def _no_such_version(ref: str, *, numbers: Sequence[int], aliases: Mapping[str, int]) -> str:
    name, _, choice = ref.partition("@")
    shown = sorted(numbers)
    have = f"versions {', '.join(map(str, shown))}" if len(shown) <= 8 else f"{len(shown)} versions, {shown[0]} to {shown[-1]}"
    named = f" and the aliases {', '.join(sorted(aliases))}" if aliases else ""
    near = difflib.get_close_matches(choice, list(aliases), n=1)
    meant = f" Did you mean {name}@{near[0]}?" if near else ""
    return f"there is no {ref}.{meant} {name} has {have}{named}; {_LIST}"


def _check_name(name: str, *, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be {what}: use 1 to 63 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or a digit"
        )


def _row(version: ModelVersion) -> dict[str, object]:
    # JSON has no infinity, and a diverged run has such a perplexity: it is kept as a word.
    metrics = {name: value if math.isfinite(value) else str(value) for name, value in version.metrics.items()}
    return {**asdict(replace(version, metrics={})), "metrics": metrics, "reports": list(version.reports)}


def _version(row: sa.Row[Any]) -> ModelVersion:
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
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

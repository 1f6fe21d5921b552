"""The ledger: model versions and their aliases, finished stages, and the events that tell how it came to be.

Every change is one transaction that no other writer overlaps, so several processes may register and promote at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from tunesmith.errors import NotFound, UserError
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store.database import Database
from tunesmith.store.moving import point_in
from tunesmith.store.rows import (
    Event,
    Move,
    append_event,
    check_name,
    deployment_in,
    event_of,
    no_such_model,
    no_such_version,
    now,
    pointed_in,
    require_version,
    row_of,
    version_of,
    versions_in,
)
from tunesmith.store.schema import events, stages, versions

__all__ = ["Event", "Ledger"]


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
            connection.execute(sa.insert(stages).values(key=key, stage=stage, artefact=artefact, recorded_at=now()))

    def register(self, version: ModelVersion) -> ModelVersion:
        """Add a version and return it with its number; the same name, artefact and run again return the version there is.

        The number of a version that was deleted is not given again.

        Args:
            version: with `number` 0 for the next free number of that name; with an empty `created_at` for now.

        Raises:
            UserError: the name cannot be used, or the number is taken by another version.
        """
        check_name(version.name, what="a model name")
        with self.database.write() as connection:
            same = (versions.c.name, versions.c.artefact, versions.c.run)
            found = connection.execute(
                sa.select(versions).where(sa.tuple_(*same) == (version.name, version.artefact, version.run))
            ).first()
            if found is not None:
                return version_of(found)
            given = sa.select(events.c.version).where(events.c.name == version.name, events.c.kind == "registered")
            numbers = {*versions_in(connection, version.name), *connection.scalars(given)}
            if version.number in numbers:
                raise UserError(f"{version.ref} exists already and is another model. Register with number 0 for the next one")
            registered = replace(
                version,
                number=version.number or max(numbers, default=0) + 1,
                created_at=version.created_at or now(),
            )
            connection.execute(sa.insert(versions).values(row_of(registered)))
            append_event(
                connection, Move(because=(), actor="", at=now()), name=version.name, kind="registered", version=registered.number
            )
            return registered

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, or those of one name, in the order of registration."""
        query = sa.select(versions).order_by(versions.c.id)
        with self.database.read() as connection:
            rows = connection.execute(query if name is None else query.where(versions.c.name == name)).all()
        return [version_of(row) for row in rows]

    def version(self, ref: str) -> ModelVersion:
        """The version that people mean by `boutique` (its champion, else its newest), `boutique@3` or `boutique@champion`.

        Raises:
            NotFound: naming the nearest names, versions or aliases.
        """
        name, at, choice = ref.partition("@")
        with self.database.read() as connection:
            found = versions_in(connection, name)
            if not found:
                raise NotFound(no_such_model(name, known=connection.scalars(sa.select(versions.c.name).distinct()).all()))
            pointed = pointed_in(connection, name)
        if not at:
            return found[pointed.get("champion", list(found)[-1])]
        number = int(choice) if choice.isdecimal() else pointed.get(choice)
        if number is None or number not in found:
            raise NotFound(no_such_version(ref, numbers=found, aliases=pointed))
        return found[number]

    def deployment(self, name: str, alias: str) -> Deployment | None:
        """What answers for an alias, or None when it points nowhere."""
        with self.database.read() as connection:
            return deployment_in(connection, name=name, alias=alias)

    def aliases(self, name: str) -> dict[str, int]:
        """Version number by alias, sorted by alias."""
        with self.database.read() as connection:
            return pointed_in(connection, name)

    def point(
        self,
        name: str,
        *,
        alias: str,
        version: int,
        because: Sequence[str],
        actor: str,
        expected_generation: int | None,
        arms: Mapping[str, float] | None = None,
        overruled: Sequence[str] = (),
    ) -> Deployment:
        """Point an alias at a version, in one transaction; when the champion changes, `previous` takes what it was.

        Args:
            name: model name.
            alias: such as `champion`; `previous` is moved by the champion alone.
            version: number of a registered version.
            because: report ids or reasons, kept with the deployment and its event.
            actor: who asked for it.
            expected_generation: the generation last seen (0: the alias does not exist yet); None moves it whatever it is.
            arms: shares of the traffic by version (`boutique@3`), 1 together, the version's own among them and above 0; one
                of 0 gets copies of requests. None gives all to the version.
            overruled: the reasons against it that somebody has set aside, kept with the event.

        Raises:
            NotFound: no such model or version.
            UserError: no such alias can be, or the shares are none.
            GateRefused: somebody else moved the alias in the meantime, or a version's files were found broken.
        """
        check_name(alias, what="an alias")
        if alias.isdecimal():
            raise UserError(f"the alias {alias!r} reads like a version number; give it a name with a letter")
        move = Move(because=tuple(because), actor=actor, at=now(), overruled=tuple(overruled))
        shares = {f"{name}@{version}": 1.0} if arms is None else dict(arms)
        with self.database.write() as connection:
            return point_in(
                connection, move, name=name, alias=alias, version=version, arms=shares, expected_generation=expected_generation
            )

    def record_proof(self, version: ModelVersion, *, artefact: str, holds: bool) -> None:
        """Tie a sheet of proofs to a version, which stays what it is.

        Args:
            version: a registered version.
            artefact: digest of the sheet.
            holds: whether every proof on it does.
        """
        with self.database.write() as connection:
            require_version(connection, name=version.name, version=version.number)
            move = Move(because=(artefact,), actor="prove", at=now())
            append_event(connection, move, name=version.name, kind="proved" if holds else "refuted", version=version.number)

    def events(self, name: str) -> list[Event]:
        """Everything that happened to a model, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(events).where(events.c.name == name).order_by(events.c.id)).all()
        return [event_of(row) for row in rows]

"""How aliases move and versions go: each change one transaction, with an event that says who, when and why.

`previous` is what `champion` was before its last change, version and traffic; `rollback` swaps the two. It keeps no traffic for
the version that took over, so that going back takes a bad version out of the traffic altogether.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tunesmith.errors import GateRefused, NotFound, UserError
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store.rows import (
    Move,
    append_event,
    deployment_in,
    no_such_version,
    now,
    pointed_in,
    require_version,
    row_of,
    versions_in,
)
from tunesmith.store.schema import aliases, events, versions

if TYPE_CHECKING:
    from tunesmith.store.ledger import Ledger

__all__ = [
    "QUARANTINED",
    "READY",
    "current",
    "delete",
    "deployments",
    "fall_back",
    "mark",
    "point_in",
    "remove_alias",
    "rollback",
]

READY = "ready"
QUARANTINED = "quarantined"
_CHAMPION, _PREVIOUS = "champion", "previous"
_ROUNDING = 1e-9


def rollback(
    ledger: Ledger, name: str, *, because: Sequence[str], actor: str, expected_generation: int | None = None
) -> Deployment:
    """Make the champion what it was before its last change; a second rollback undoes the first.

    Args:
        ledger: the registry.
        name: model name.
        because: reasons, kept with the event.
        actor: who asked for it.
        expected_generation: the champion's generation last seen; None goes back whatever it is.

    Raises:
        NotFound: no such model.
        GateRefused: there is nothing to go back to, its files are broken, or somebody else moved the champion in the meantime.
    """
    move = Move(because=tuple(because), actor=actor, at=now())
    with ledger.database.write() as connection:
        _require_model(connection, name)
        champion = deployment_in(connection, name=name, alias=_CHAMPION)
        previous = deployment_in(connection, name=name, alias=_PREVIOUS)
        _require_generation(champion, expected_generation, name=name, alias=_CHAMPION)
        if champion is None or previous is None or _answers(champion) == _answers(previous):
            raise GateRefused(
                f"{name} has nothing to go back to: `champion` has not been anything else. `tunesmith promote {name}@N` chooses a version"
            )
        _require_ready(versions_in(connection, name), previous.arms)
        _put(connection, move, replace(previous, alias=_PREVIOUS, version=champion.version, arms=champion.arms), kind="pointed")
        return _put(
            connection,
            move,
            replace(champion, version=previous.version, arms=previous.arms, because=move.because),
            kind="rolled_back",
        )


def delete(ledger: Ledger, ref: str, *, because: Sequence[str], actor: str) -> ModelVersion:
    """Take a version out of the registry. Its number is not given again, its event keeps its row, and `gc` removes its files later.

    Args:
        ledger: the registry.
        ref: with its number, such as `boutique@3`: what an alias means may change under one's hands.
        because: reasons, kept with the event.
        actor: who asked for it.

    Raises:
        NotFound: no such version.
        UserError: the version is not named by its number.
        GateRefused: an alias points to it or gives it traffic.
    """
    name, _, choice = ref.partition("@")
    if not choice.isdecimal():
        raise UserError(
            f"{ref!r} does not say which version is to be deleted; name it by its number, such as {name or 'boutique'}@3"
        )
    with ledger.database.write() as connection:
        version = require_version(connection, name=name, version=int(choice))
        for held in deployments(connection, name=name):
            if version.ref in _holds(held):
                raise GateRefused(f"{version.ref} cannot be deleted: {_held_by(held, version)}. {_way_out(held)}")
        connection.execute(sa.delete(versions).where(versions.c.name == name, versions.c.number == version.number))
        move = Move(because=tuple(because), actor=actor, at=now())
        append_event(connection, move, name=name, kind="deleted", version=version.number, details={"version": row_of(version)})
    return version


def remove_alias(
    ledger: Ledger, ref: str, *, because: Sequence[str], actor: str, expected_generation: int | None = None
) -> Deployment:
    """Take away an alias of one's own; its versions stay. Given again, its generation goes on, so that nobody's older look counts.

    Args:
        ledger: the registry.
        ref: such as `boutique@staging`.
        because: reasons, kept with the event.
        actor: who asked for it.
        expected_generation: the generation last seen; None removes it whatever it is.

    Returns:
        What answered for it.

    Raises:
        NotFound: no such model or alias.
        UserError: it is `champion` or `previous`, or no alias is named.
        GateRefused: somebody else moved it in the meantime.
    """
    name, _, alias = ref.partition("@")
    if not alias or alias.isdecimal():
        raise UserError(f"{ref!r} names no alias; write the model and the alias, such as {name or 'boutique'}@staging")
    if alias in {_CHAMPION, _PREVIOUS}:
        way = f"`tunesmith promote {name}@N` and `tunesmith rollback {name}` move it"
        raise UserError(f"`{alias}` belongs to the registry and cannot be removed: {way}")
    with ledger.database.write() as connection:
        _require_model(connection, name)
        held = deployment_in(connection, name=name, alias=alias)
        if held is None:
            raise NotFound(no_such_version(ref, numbers=versions_in(connection, name), aliases=pointed_in(connection, name)))
        _require_generation(held, expected_generation, name=name, alias=alias)
        connection.execute(sa.delete(aliases).where(aliases.c.name == name, aliases.c.alias == alias))
        move = Move(because=tuple(because), actor=actor, at=now())
        gone = replace(held, generation=held.generation + 1)
        append_event(connection, move, name=name, kind="removed", version=held.version, deployment=gone)
    return held


def mark(ledger: Ledger, version: ModelVersion, *, state: str, because: Sequence[str], actor: str) -> ModelVersion:
    """Say that a version's files are broken (`quarantined`) or sound again (`ready`). Nothing happens where that is known."""
    with ledger.database.write() as connection:
        found = require_version(connection, name=version.name, version=version.number)
        if found.state != state:
            same = (versions.c.name == version.name, versions.c.number == version.number)
            connection.execute(sa.update(versions).where(*same).values(state=state))
            move = Move(because=tuple(because), actor=actor, at=now())
            kind = "restored" if state == READY else state
            append_event(connection, move, name=version.name, kind=kind, version=version.number)
        return replace(found, state=state)


def fall_back(ledger: Ledger, name: str, *, alias: str, because: Sequence[str], actor: str) -> Deployment | None:
    """Take versions that are not ready out of an alias: their traffic goes to its other arms, else to `previous`.

    Returns:
        What answers now; None where nothing that is sound is left, and nothing was changed.
    """
    with ledger.database.write() as connection:
        held = deployment_in(connection, name=name, alias=alias)
        if held is None:
            return None
        ready = {version.ref for version in versions_in(connection, name).values() if version.state == READY}
        if ready.issuperset(_holds(held)):
            return held
        found = _without(held, set(held.arms) - ready) if f"{name}@{held.version}" in ready else None
        previous = deployment_in(connection, name=name, alias=_PREVIOUS)
        if found is None and alias != _PREVIOUS and previous is not None and f"{name}@{previous.version}" in ready:
            found = replace(_without(previous, set(previous.arms) - ready), alias=alias)
        if found is None:
            return None
        move = Move(because=tuple(because), actor=actor, at=now())
        return _put(connection, move, replace(found, generation=held.generation, because=move.because), kind="pointed")


def deployments(connection: sa.Connection, *, name: str | None = None) -> list[Deployment]:
    """Every alias, or those of one model, with what answers for it."""
    query = sa.select(aliases.c.name, aliases.c.alias)
    rows = connection.execute(query if name is None else query.where(aliases.c.name == name)).all()
    found = (deployment_in(connection, name=row.name, alias=row.alias) for row in sorted(rows, key=tuple))
    return [deployment for deployment in found if deployment is not None]


def current(ledger: Ledger, name: str) -> list[Deployment]:
    """Every alias of a model with what answers for it, in one view."""
    with ledger.database.read() as connection:
        return deployments(connection, name=name)


def point_in(
    connection: sa.Connection,
    move: Move,
    *,
    name: str,
    alias: str,
    version: int,
    arms: Mapping[str, float],
    expected_generation: int | None,
) -> Deployment:
    """The inside of `Ledger.point`."""
    if alias == _PREVIOUS:
        raise UserError(
            "`previous` is what `champion` was before; it moves with the champion, and `tunesmith rollback` goes back to it"
        )
    require_version(connection, name=name, version=version)
    known = versions_in(connection, name)
    _check_arms(arms, name=name, version=version, known=known)
    current = deployment_in(connection, name=name, alias=alias)
    _require_generation(current, expected_generation, name=name, alias=alias)
    _require_ready(known, arms)
    generation = current.generation if current else _last_generation(connection, name=name, alias=alias)
    wanted = Deployment(name=name, alias=alias, version=version, arms=arms, because=move.because, generation=generation)
    if alias == _CHAMPION and current is not None and _answers(current) != _answers(wanted):
        kept = current if current.version == version else _without(current, {f"{name}@{version}"})
        before = deployment_in(connection, name=name, alias=_PREVIOUS)
        kept = replace(kept, alias=_PREVIOUS, generation=before.generation if before else 0)
        _put(connection, move, kept, kind="pointed")
    return _put(connection, move, wanted, kind="pointed")


def _put(connection: sa.Connection, move: Move, wanted: Deployment, *, kind: str) -> Deployment:
    """Write an alias's row and its event; the generation goes up by one."""
    put = replace(wanted, generation=wanted.generation + 1, because=move.because)
    changed = {
        "version": put.version,
        "arms": dict(put.arms),
        "because": list(put.because),
        "generation": put.generation,
        "actor": move.actor,
        "updated_at": move.at,
    }
    here = (aliases.c.name == put.name, aliases.c.alias == put.alias)
    if connection.execute(sa.update(aliases).where(*here).values(changed)).rowcount == 0:
        connection.execute(sa.insert(aliases).values(name=put.name, alias=put.alias, **changed))
    append_event(connection, move, name=put.name, kind=kind, version=put.version, deployment=put)
    return put


def _last_generation(connection: sa.Connection, *, name: str, alias: str) -> int:
    """The generation with which an alias was removed; 0 for one that has never been."""
    query = sa.select(sa.func.max(events.c.generation)).where(events.c.name == name, events.c.alias == alias)
    return connection.scalar(query) or 0


def _answers(deployment: Deployment) -> tuple[int, dict[str, float]]:
    return deployment.version, dict(deployment.arms)


def _holds(deployment: Deployment) -> set[str]:
    """Every version that an alias names."""
    return {f"{deployment.name}@{deployment.version}", *deployment.arms}


def _held_by(held: Deployment, version: ModelVersion) -> str:
    if held.version != version.number and not held.arms[version.ref]:
        return f"{held.name}@{held.alias} sends it copies of its requests"
    if held.version != version.number:
        return f"{held.name}@{held.alias} gives it {100 * held.arms[version.ref]:.3g} % of its traffic"
    return "it is `previous`, to which a rollback goes" if held.alias == _PREVIOUS else f"{held.name}@{held.alias} points to it"


def _way_out(held: Deployment) -> str:
    """How an alias lets go of a version."""
    if held.alias == _PREVIOUS:
        return "`previous` lets go of it when `champion` moves: `tunesmith promote` another version first"
    if held.alias == _CHAMPION:
        return f"Promote {held.name} without it first"
    return f"Move the alias first (`tunesmith promote {held.name}@N --alias {held.alias}`), or `tunesmith unalias {held.name}@{held.alias}`"


def _without(deployment: Deployment, gone: Iterable[str]) -> Deployment:
    """The same with the shares of some versions given to the others; all to its own version where none is left."""
    left = {ref: share for ref, share in deployment.arms.items() if ref not in set(gone)}
    total = math.fsum(left.values())
    if not left:
        return replace(deployment, arms={f"{deployment.name}@{deployment.version}": 1.0})
    return deployment if len(left) == len(deployment.arms) else replace(deployment, arms={r: s / total for r, s in left.items()})


def _check_arms(arms: Mapping[str, float], *, name: str, version: int, known: Mapping[int, ModelVersion]) -> None:
    refs = {found.ref for found in known.values()}
    for ref, share in arms.items():
        if ref not in refs:
            raise NotFound(f"{ref} cannot have traffic of {name}: it is no version of {name}. `tunesmith models` lists them")
        if not 0 <= share <= 1 + _ROUNDING:  # nor where it is no number
            raise UserError(f"{ref} cannot have {share:g} of the traffic: a share lies between 0 and 1")
    if not arms.get(f"{name}@{version}"):
        raise UserError(f"{name}@{version} itself has no share of the traffic")
    if abs(math.fsum(arms.values()) - 1) > _ROUNDING:
        raise UserError(f"the shares of the traffic sum to {math.fsum(arms.values()):g}, not to 1: {_in_words(arms)}")


def _in_words(arms: Mapping[str, float]) -> str:
    return ", ".join(f"{ref}={share:g}" for ref, share in arms.items())


def _require_ready(known: Mapping[int, ModelVersion], arms: Iterable[str]) -> None:
    states = {version.ref: version.state for version in known.values()}
    for ref in arms:
        if states.get(ref) != READY:
            raise GateRefused(
                f"{ref} is {states.get(ref, 'gone')}: its files were found broken. Its recipe makes them again, and "
                "`tunesmith doctor --repair` then gives it back"
            )


def _require_generation(current: Deployment | None, expected: int | None, *, name: str, alias: str) -> None:
    generation = current.generation if current else 0
    if expected is not None and expected != generation:
        where = f"at {name}@{current.version}" if current else "nowhere"
        raise GateRefused(
            f"{name}@{alias} was moved by someone else: it is at generation {generation} and points {where}, "
            f"generation {expected} was expected. Look again and repeat the decision"
        )


def _require_model(connection: sa.Connection, name: str) -> None:
    known = versions_in(connection, name)
    require_version(connection, name=name, version=next(iter(known), 0))

"""What the event log says the registry is: the state that its events add up to, to compare with the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from tunesmith.records import Deployment
from tunesmith.store.moving import READY, deployments
from tunesmith.store.rows import Event, event_of
from tunesmith.store.schema import aliases, events, versions

__all__ = ["Difference", "State", "put_back", "read_differences", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A registry, as far as its events tell."""

    versions: Mapping[str, str]
    """State by version, such as `boutique@3`: `ready`. Deleted ones are not here."""
    aliases: Mapping[str, Deployment]
    """What answers, by alias, such as `boutique@champion`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something on which the tables and the event log do not agree."""

    what: str
    """A version or an alias."""
    detail: str
    logged: Deployment | None = None
    """What an alias is by its events; None where it cannot be put back: there are none, or a version that they name is gone."""


def replay(told: Iterable[Event]) -> State:
    """Add events up to a state, as if they happened now.

    Args:
        told: every event of a model, or of several, oldest first.
    """
    states: dict[str, str] = {}
    pointed: dict[str, Deployment] = {}
    for event in told:
        ref = f"{event.name}@{event.version}"
        if event.kind in {"registered", "restored"}:
            states[ref] = READY
        elif event.kind == "quarantined":
            states[ref] = event.kind
        elif event.kind == "deleted":
            states.pop(ref, None)
        elif event.kind == "removed":
            pointed.pop(f"{event.name}@{event.alias}", None)
        elif event.alias:
            pointed[f"{event.name}@{event.alias}"] = Deployment(
                name=event.name,
                alias=event.alias,
                version=event.version,
                arms=event.details.get("arms", {ref: 1.0}),  # older events tell no shares: there were none
                because=event.because,
                generation=event.generation,
            )
    return State(versions=states, aliases=pointed)


def read_differences(connection: sa.Connection) -> list[Difference]:
    """Where the tables say something else than the event log; nothing in a sound ledger."""
    logged = replay(event_of(row) for row in connection.execute(sa.select(events).order_by(events.c.id)))
    query = sa.select(versions.c.name, versions.c.number, versions.c.state)
    kept = State(
        versions={f"{row.name}@{row.number}": row.state for row in connection.execute(query)},
        aliases={f"{held.name}@{held.alias}": held for held in deployments(connection)},
    )
    return [*_of_versions(kept, logged), *_of_aliases(kept, logged)]


def put_back(connection: sa.Connection, difference: Difference) -> bool:
    """Make an alias again what its events say. They say it already, so none is added. Returns whether it could be done."""
    held = difference.logged
    if held is None:
        return False
    here = (aliases.c.name == held.name, aliases.c.alias == held.alias)
    last = sa.select(events.c.actor, events.c.at).where(events.c.name == held.name, events.c.alias == held.alias)
    actor, at = connection.execute(last.order_by(events.c.id.desc())).first() or ("", "")
    connection.execute(sa.delete(aliases).where(*here))
    connection.execute(
        sa.insert(aliases).values(
            name=held.name,
            alias=held.alias,
            version=held.version,
            arms=dict(held.arms),
            because=list(held.because),
            generation=held.generation,
            actor=actor,
            updated_at=at,
        )
    )
    return True


def _of_versions(kept: State, logged: State) -> Iterator[Difference]:
    for ref in sorted({*kept.versions, *logged.versions}):
        here, there = kept.versions.get(ref, "gone"), logged.versions.get(ref, "gone")
        if here != there:
            yield Difference(what=ref, detail=f"{ref} is {here}, and its events say {there}")


def _of_aliases(kept: State, logged: State) -> Iterator[Difference]:
    for ref in sorted({*kept.aliases, *logged.aliases}):
        here, there = kept.aliases.get(ref), logged.aliases.get(ref)
        if here != there:
            named = {f"{there.name}@{there.version}", *there.arms} if there else set()
            can_be = there is not None and named <= set(kept.versions)
            detail = f"{ref} is {_in_words(here)}, and its events say {_in_words(there)}"
            yield Difference(what=ref, detail=detail, logged=there if can_be else None)


def _in_words(held: Deployment | None) -> str:
    if held is None:
        return "nowhere"
    shares = "" if len(held.arms) == 1 else f" ({', '.join(f'{ref}={share:g}' for ref, share in held.arms.items())})"
    return f"at {held.name}@{held.version}{shares}, generation {held.generation}"

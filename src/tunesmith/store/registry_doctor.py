"""The doctor's look at the registry: versions without their files, aliases that point to them, tables that their log contradicts."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.errors import NotFound
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store.findings import Finding, FindingKind
from tunesmith.store.moving import QUARANTINED, READY, deployments, fall_back, mark
from tunesmith.store.replaying import put_back, read_differences
from tunesmith.store.workspace import Store

__all__ = ["examine_registry"]

_DOCTOR = "doctor"


def examine_registry(store: Store, *, repair: bool) -> Iterator[Finding]:
    """Compare versions with their files, aliases with versions, and tables with the event log.

    Broken files have been moved away before where `repair` is set.
    """
    yield from _examine_log(store, repair=repair)
    with store.ledger.database.read() as connection:
        held = deployments(connection)
    answering = [one for one in held if one.alias != "previous"]
    aliased = {ref for one in answering for ref in (f"{one.name}@{one.version}", *one.arms)}
    broken = []
    for version in store.ledger.versions():
        problem = _problem(store, version)
        if problem:
            broken.append(version.ref)
        yield from _examine_version(store, version, problem=problem, is_aliased=version.ref in aliased, repair=repair)
    for one in held:
        if set(broken) & {f"{one.name}@{one.version}", *one.arms}:
            yield _examine_alias(store, one, broken=broken, repair=repair)


def _problem(store: Store, version: ModelVersion) -> str:
    try:
        problems = store.artefacts.verify(version.artefact)
    except NotFound:
        return "names an artefact that is gone"
    return f"has broken files: {problems[0]}" if problems else ""


def _examine_version(store: Store, version: ModelVersion, *, problem: str, is_aliased: bool, repair: bool) -> Iterator[Finding]:
    known = version.state == QUARANTINED
    if not problem and not known:
        return
    if not problem:
        if repair:
            mark(store.ledger, version, state=READY, because=("its files are sound again",), actor=_DOCTOR)
        yield Finding(
            kind=FindingKind.QUARANTINED,
            digest=version.artefact,
            detail=f"{version.ref} is marked as broken, and its files are sound again",
            action="marked as ready" if repair else "",
        )
        return
    if repair and not known:
        mark(store.ledger, version, state=QUARANTINED, because=(problem,), actor=_DOCTOR)
    is_marked = known or repair
    kind = FindingKind.QUARANTINED if is_marked and not is_aliased else FindingKind.MISSING
    advice = "; its recipe makes them again" if is_marked else ""
    if problem.startswith("names") or is_marked:
        yield Finding(
            kind=kind,
            digest=version.artefact,
            detail=f"{version.ref} {problem}{advice}",
            action="marked as broken" if repair and not known else "",
        )


def _examine_alias(store: Store, held: Deployment, *, broken: list[str], repair: bool) -> Finding:
    ref, bad = f"{held.name}@{held.alias}", sorted(set(broken) & {f"{held.name}@{held.version}", *held.arms})
    detail = f"{ref} points to {' and '.join(bad)}, whose files are broken"
    if held.alias == "previous":  # it answers nobody
        advice = "; a rollback is refused until they are back or the champion has moved"
        return Finding(kind=FindingKind.QUARANTINED, digest="", detail=detail + advice)
    if not repair:
        return Finding(kind=FindingKind.ALIAS, digest="", detail=detail)
    because = (f"the files of {' and '.join(bad)} are broken",)
    found = fall_back(store.ledger, held.name, alias=held.alias, because=because, actor=_DOCTOR)
    if found is None:
        advice = f"; nothing sound is left to fall back to: run the recipe again, or `tunesmith promote {held.name}@N`"
        return Finding(kind=FindingKind.ALIAS, digest="", detail=detail + advice)
    return Finding(
        kind=FindingKind.ALIAS,
        digest="",
        detail=detail,
        action=f"now at {found.name}@{found.version}, generation {found.generation}",
    )


def _examine_log(store: Store, *, repair: bool) -> Iterator[Finding]:
    with store.ledger.database.read() as connection:
        differences = read_differences(connection)
    if repair and differences:
        with store.ledger.database.write() as connection:  # looked at again: somebody may have moved it meanwhile
            differences = read_differences(connection)
            mended = [one.what for one in differences if put_back(connection, one)]
    else:
        mended = []
    for one in differences:
        action = "put back to what its events say" if one.what in mended else ""
        yield Finding(kind=FindingKind.LOG, digest="", detail=one.detail, action=action)

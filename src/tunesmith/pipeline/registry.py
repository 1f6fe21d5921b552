"""What a person does with versions: promote one, go back, look at how it came to be, take it away, and clear up."""

from __future__ import annotations

import getpass
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from tunesmith import store as kept
from tunesmith.errors import BrokenArtefact, GateRefused, NotFound, UserError
from tunesmith.pipeline.evaluating import stored_report
from tunesmith.pipeline.lineage import stored_recipe
from tunesmith.pipeline.policy import policy_of
from tunesmith.pipeline.promoting import reasons_against
from tunesmith.pipeline.proving import stored_sheet
from tunesmith.pipeline.versions import MODEL_FACTS
from tunesmith.records import Deployment, ModelVersion
from tunesmith.store import Collected, Event, Store, files_of

__all__ = ["Branch", "clear_up", "delete_ref", "go_back", "history", "lineage", "promote_ref", "remove_alias"]

_CHAMPION = "champion"


def promote_ref(
    ref: str,
    *,
    store: Store,
    alias: str = _CHAMPION,
    traffic: Mapping[str, float] | None = None,
    shadows: Sequence[str] = (),
    expected_generation: int | None = None,
    because: str = "",
    force: bool = False,
) -> Deployment:
    """Let an alias point to a version, if its files are sound, its proofs hold, and (for the champion) its recipe's rule allows it.

    Args:
        ref: such as `boutique@7`.
        store: the workspace.
        alias: `champion`, or one of your own.
        traffic: shares of other versions, such as `{"boutique@3": 0.1}`; the version has the rest. An alias means its version of now.
        shadows: versions that get copies of requests, and whose answers nobody sees.
        expected_generation: the alias's generation last seen; None: it must not move while the version is judged, unless by `force`.
        because: the reason, kept with the event.
        force: set aside what speaks against it; files that are broken cannot be. Needs `because`.

    Raises:
        NotFound: no such version.
        UserError: `force` without a reason, shares that are none, a version that is named twice or is another model's.
        GateRefused: with the reasons.
    """
    if force and not because.strip():
        raise UserError('--force needs a reason, which is kept with the event: --force --because "..."')
    version = store.ledger.version(ref)
    judged = store.ledger.deployment(version.name, alias)
    if expected_generation is None and not force:  # what the version is judged beside is what it takes the place of
        expected_generation = judged.generation if judged else 0
    arms, found = _arms(version, traffic=traffic or {}, shadows=shadows, store=store)
    for one in found:
        _require_files(one, store=store)
    reasons = tuple(reason for one in found for reason in _reasons(one, is_main=one is version, alias=alias, store=store))
    if reasons and not force:
        raise GateRefused(_refusal(version, reasons, alias=alias))
    return store.ledger.point(
        version.name,
        alias=alias,
        version=version.number,
        because=(because,) if because else version.reports,
        actor=_person(),
        expected_generation=expected_generation,
        arms=arms,
        overruled=reasons,
    )


def go_back(name: str, *, store: Store, because: str = "") -> Deployment:
    """Make the champion what it was before, if its files are sound.

    Raises:
        NotFound: no such model.
        UserError: a version is named, and not a model.
        GateRefused: there is nothing to go back to, or its files are broken.
    """
    model, at, _ = name.partition("@")
    if at:
        way = f"`tunesmith rollback {model}` goes back to what champion was before, and `tunesmith promote {name}` chooses a version"
        raise UserError(f"{name!r} is a version, and a rollback takes a model's name: {way}")
    previous = store.ledger.deployment(name, "previous")
    champion = store.ledger.deployment(name, _CHAMPION)
    for ref in previous.arms if previous else ():
        _require_files(store.ledger.version(ref), store=store)
    return kept.rollback(
        store.ledger,
        name,
        because=(because,) if because else (),
        actor=_person(),
        expected_generation=champion.generation if champion else None,
    )


def remove_alias(ref: str, *, store: Store, because: str = "", expected_generation: int | None = None) -> Deployment:
    """Take away an alias of one's own, such as `boutique@staging`; its versions stay.

    Raises:
        NotFound: no such model or alias.
        UserError: it is `champion` or `previous`, or no alias is named.
        GateRefused: it has moved since.
    """
    reasons = (because,) if because else ()
    return kept.remove_alias(store.ledger, ref, because=reasons, actor=_person(), expected_generation=expected_generation)


def history(ref: str, *, store: Store) -> list[Event]:
    """Everything that happened to a model, oldest first; of `boutique@3` or `boutique@staging` what concerns that version or alias.

    Raises:
        NotFound: nothing ever did.
    """
    name, at, choice = ref.partition("@")
    events = store.ledger.events(name)
    if at and choice.isdecimal():
        number = int(choice)
        events = [event for event in events if event.version == number or f"{name}@{number}" in event.details.get("arms", {})]
    elif at:
        events = [event for event in events if choice and event.alias == choice]
    if not events:
        store.ledger.version(ref)  # says which there are
    return events


def delete_ref(ref: str, *, store: Store, because: str = "") -> ModelVersion:
    """Take a version out of the registry; `clear_up` removes its files when nothing else names them.

    Raises:
        NotFound: no such version.
        UserError: it is not named by its number.
        GateRefused: an alias needs it.
    """
    return kept.delete(store.ledger, ref, because=(because,) if because else (), actor=_person())


def clear_up(*, store: Store, grace_days: float, is_dry_run: bool) -> Collected:
    """Remove artefacts that nothing names. See `store.collect`, to which this tells what lies in the files of versions.

    Raises:
        GateRefused: a run is at work.
        UserError: the grace time is no number from 0.
    """
    keep = {digest for version in store.ledger.versions() for digest in _named_in_files(version, store=store)}
    return kept.collect(store, grace_days=grace_days, is_dry_run=is_dry_run, keep=keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A part of where a version comes from, and where that comes from in its turn."""

    kind: str
    """`version`, `base`, `snapshot`, `recipe`, `report`, `proofs`, or another kind of `ModelVersion.lineage`."""
    what: str
    detail: str = ""
    parts: tuple[Branch, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def lineage(ref: str, *, store: Store) -> Branch:
    """Where a version comes from: its snapshot, recipe, base and parents, and what was found and proved of it.

    Raises:
        NotFound: no such version.
    """
    return _branch(store.ledger.version(ref), store=store, seen=())


def _branch(version: ModelVersion, *, store: Store, seen: tuple[str, ...]) -> Branch:
    pointed = [alias for alias, number in store.ledger.aliases(version.name).items() if number == version.number]
    detail = " · ".join(filter(None, [", ".join(pointed), version.created_at, "" if version.state == "ready" else version.state]))
    made = dict(version.lineage)
    parent = made.pop("parent", None)
    parts = [Branch(kind=kind, what=what, detail=_told(kind, what, store=store)) for kind, what in sorted(made.items())]
    parts += [Branch(kind="report", what=report, detail=_told("report", report, store=store)) for report in version.reports]
    sheet = stored_sheet(version, store=store)
    parts.append(Branch(kind="proofs", what=sheet.summary if sheet else "never proved"))
    if parent is not None and parent not in seen:
        parts.append(_parent(parent, store=store, seen=(*seen, version.ref)))
    return Branch(kind="version" if not seen else "parent", what=version.ref, detail=detail, parts=tuple(parts))


def _parent(ref: str, *, store: Store, seen: tuple[str, ...]) -> Branch:
    try:
        return _branch(store.ledger.version(ref), store=store, seen=seen)
    except NotFound:
        return Branch(kind="parent", what=ref, detail="deleted")


def _told(kind: str, digest: str, *, store: Store) -> str:
    """What an artefact says of itself in a few words."""
    if kind not in {"snapshot", "report", "recipe"}:
        return ""
    try:
        path = store.artefacts.get(digest).path
        if kind == "snapshot":
            rows = sum(orjson.loads((path / "snapshot.json").read_bytes())["splits"].values())
            return f"{rows:,} rows"
        if kind == "report":
            return str(orjson.loads((path / "report.json").read_bytes())["verdict"])
        return str(orjson.loads((path / "recipe.json").read_bytes())["train"]["method"])
    except (NotFound, BrokenArtefact):
        return "gone"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _arms(
    version: ModelVersion, *, traffic: Mapping[str, float], shadows: Sequence[str], store: Store
) -> tuple[dict[str, float], list[ModelVersion]]:
    """Shares by version, the version's own first, and the versions that have them."""
    shares: dict[str, float] = {}
    found = [version]
    for option, ref, share in (*(("--traffic", *one) for one in traffic.items()), *(("--shadow", ref, 0.0) for ref in shadows)):
        other = store.ledger.version(ref)
        called = ref if ref == other.ref else f"{ref} ({other.ref})"
        if other.name != version.name:
            raise UserError(
                f"{option} {called}: it is no version of {version.name}, and requests for {version.name} go to no other model"
            )
        if option == "--traffic" and other.ref == version.ref:
            raise UserError(f"--traffic {called}: the version itself has what the others leave")
        if option == "--traffic" and share == 0:
            raise UserError(f"--traffic {called}=0: a share lies above 0. `--shadow {ref}` sends it copies of the requests")
        if option == "--traffic" and not 0 < share < 1:  # nor where it is no number
            raise UserError(f"--traffic {called}={share:g}: a share lies between 0 and 1, such as 0.1 for one request in ten")
        if option == "--shadow" and (other.ref == version.ref or shares.get(other.ref)):
            raise UserError(f"--shadow {called}: it answers requests already, so it cannot have copies of them")
        if other.ref in shares:
            raise UserError(f"{option} {called}: {other.ref} is named twice; name it once")
        shares[other.ref] = share
        found.append(other)
    if (given := math.fsum(shares.values())) >= 1:
        raise UserError(
            f"--traffic: the others have {given:g} together, which leaves nothing to {version.ref}; give them less than 1"
        )
    return {version.ref: 1.0 - given, **shares}, found


def _require_files(version: ModelVersion, *, store: Store) -> None:
    try:
        problems = store.artefacts.verify(version.artefact)
    except NotFound:
        problems = ["its artefact is gone"]
    if problems:
        raise GateRefused(
            f"{version.ref} cannot answer: {problems[0]}. `tunesmith doctor --repair` sets it aside; its recipe makes it again"
        )


def _reasons(version: ModelVersion, *, is_main: bool, alias: str, store: Store) -> Iterator[str]:
    """What speaks against a version; of traffic and of aliases of one's own the proofs alone."""
    sheet = stored_sheet(version, store=store)
    if sheet is None:
        yield f"{version.ref} was never proved (`tunesmith prove {version.ref}`)"
    elif not sheet.holds:
        yield f"{version.ref}: {sheet.objection} (`tunesmith prove {version.ref}`)"
    champion = store.ledger.deployment(version.name, _CHAMPION)
    if is_main and alias == _CHAMPION and (champion is None or champion.version != version.number):
        yield from _reasons_of_policy(version, champion, store=store)


def _reasons_of_policy(version: ModelVersion, champion: Deployment | None, *, store: Store) -> Iterator[str]:
    try:
        recipe = stored_recipe(version, store=store)
        report = stored_report(version, store=store)
    except (NotFound, BrokenArtefact) as error:
        yield f"its recipe or report cannot be read: {error}"
        return
    policy = policy_of(str(recipe["promote"]) if recipe else "if_better")
    if policy.rule == "manual":
        return  # a person decides, and does
    yield from reasons_against(report, policy=policy, has_champion=champion is not None)
    if report is None or champion is None or policy.rule in {"always", "never"} or "champion" not in report.scores:
        return
    rival = report.details.get("reproduce", {}).get("models", {}).get(_CHAMPION)
    present = store.ledger.version(f"{champion.name}@{champion.version}")
    if rival is not None and rival != present.artefact:
        yield f"it was compared with another champion than {present.ref} (`tunesmith compare {present.ref} {version.ref}`)"


def _refusal(version: ModelVersion, reasons: Sequence[str], *, alias: str) -> str:
    lines = [f"Refused. {version.ref} does not become {alias}:", *(f"  {reason}" for reason in reasons)]
    return "\n".join([*lines, '  promote all the same, on record: --force --because "..."'])


def _named_in_files(version: ModelVersion, *, store: Store) -> Iterator[str]:
    """Artefacts that a version's own facts name: the snapshot of one made before lineage was kept, and a base that is a version."""
    try:
        facts = orjson.loads((files_of(version, store=store).path / MODEL_FACTS).read_bytes())
    except (NotFound, BrokenArtefact, OSError, ValueError):
        return
    if isinstance(snapshot := facts.get("snapshot"), str):
        yield snapshot
    if isinstance(base := facts.get("base_files"), str) and Path(base).parent == store.artefacts.root:
        yield Path(base).name


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"

"""Files to a snapshot: read, clean, sample, split, and publish as one immutable artefact.

The artefact holds `train.jsonl`, `validation.jsonl`, `test.jsonl`, `dropped.jsonl` (every row left out, with its reason) and
`snapshot.json` (the account). It names no absolute path and no time: equal rows under equal names give an equal id. What cleaning
replaced lies beside it, in the workspace's `cleaning/ID`.
Rows stream through reading and cleaning onto a shelf on the workspace's disk, and from there into the artefact: memory holds about
1 kB of what is remembered of each, never the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data.clean import Cleaning
from tunesmith.data.clean.undo import plain_change
from tunesmith.data.clean_config import DecontaminateSettings, named
from tunesmith.data.clean_files import keep_account
from tunesmith.data.config import DataConfig
from tunesmith.data.nested import LOWER_RANKED
from tunesmith.data.percent import percent
from tunesmith.data.read import NOT_WANTED, SourceReading, read
from tunesmith.data.rows import plain_dropped, plain_record, record_of
from tunesmith.data.shelf import Mapped, Shelf, parted, shelf_of_dropped
from tunesmith.data.split import Division, divide
from tunesmith.data.writing import open_rows
from tunesmith.errors import BrokenArtefact, DataError, NotFound
from tunesmith.records import Dropped, Leakage, Record, Snapshot, SourceCount
from tunesmith.store.folders import make_folder, plain_errors
from tunesmith.store.workspace import Store

__all__ = ["freeze", "load_snapshot", "load_split"]

OnProgress = Callable[[str, int], None]


def freeze(config: DataConfig, *, folder: Path, store: Store, on_progress: OnProgress | None = None) -> Snapshot:
    """Freeze a recipe's data.

    Args:
        config: the recipe's `data` part.
        folder: the recipe's folder.
        store: where the snapshot is published.
        on_progress: called with what is being done and how many rows it has reached.

    Raises:
        NotFound: a source names no file.
        DataError: a source or a file of one is unreadable, more than `max_bad_share` of the rows are bad (these are then written to the
            workspace's quarantine), none is left, or there are too few groups to split.
    """
    report = on_progress or (lambda _what, _done: None)
    with plain_errors(make_folder(store.root)):
        readings = [read(source, folder=folder, number=number) for number, source in enumerate(config.sources)]
        unread = _check_files(readings, config=config)
        reading = _Reading(readings, config=config, store=store, report=report)
        changes: Shelf[dict[str, Any]] = Shelf(write=dict, read=dict, place=store.root)
        cleaning = Cleaning(
            config.clean,
            folder=folder,
            place=store.root,
            on_change=lambda change: changes.add(plain_change(change)),
            on_progress=report,
        )
        kept, dropped = parted(cleaning.rows(reading), place=store.root)
        formats = {name: found for one in readings for name, found in one.formats.items()}
        steps = [*(f"read {name}: {found}" for name, found in formats.items()), *map(str, cleaning.accounts)]
        records, sampling = _sample(kept, readings=readings)
        steps += sampling
        report("split", len(records))
        division = divide(records, homes=[source.split for source in config.sources], config=config.split, seed=config.seed)
        steps += division.steps
        parts, held_back, told = _without_own_tests(division, config=config)
        steps += told
        report("publish", len(records))
        account = {
            "clusters": dict(division.clusters),
            "leakage": asdict(division.leakage) if division.leakage else None,
            "num_read": reading.num_read - (len(kept) - len(records)),
            "num_bad": len(reading.bad),
            "formats": formats,
            "steps": steps,
            **({"unread": unread} if unread else {}),
        }
        with store.artefacts.publish("snapshot") as staging:
            counts = _write_parts(staging.path, parts)
            reasons = _write_dropped(staging.path / "dropped.jsonl", chain(reading.bad, dropped, held_back))
            account |= {
                "splits": {name: len(part) for name, part in parts.items()},
                "dropped": dict(sorted(_by_reason(reasons).items())),
                "sources": _by_file(readings, counts=counts, reasons=reasons, seen=reading.paths),
            }
            (staging.path / "snapshot.json").write_bytes(orjson.dumps(account, option=orjson.OPT_INDENT_2))
        digest = staging.artefact.digest
        # Not in the artefact, which may be handed on: here stands what was scrubbed.
        keep_account(store.root / "cleaning" / digest, accounts=cleaning.accounts, changes=changes)
    return _snapshot(digest, account)


def load_snapshot(store: Store, digest: str) -> Snapshot:
    """Read a snapshot's account.

    Raises:
        NotFound: there is no such artefact, or it is not a snapshot.
        BrokenArtefact: its files were altered.
    """
    artefact = store.artefacts.get(digest)
    if artefact.kind != "snapshot":
        raise NotFound(f"artefact {digest} is a {artefact.kind}, not a snapshot")
    try:
        return _snapshot(digest, orjson.loads((artefact.path / "snapshot.json").read_bytes()))
    except (OSError, ValueError, KeyError) as error:
        raise BrokenArtefact(f"snapshot {digest}: snapshot.json cannot be read ({error}). Run `tunesmith doctor`.") from error


def load_split(store: Store, snapshot: Snapshot, *, split: str) -> list[Record]:
    """Read the records of `train`, `validation` or `test`.

    Raises:
        NotFound: there is no such split.
        BrokenArtefact: its file was altered.
    """
    if split not in snapshot.splits:
        raise NotFound(f"there is no split {split!r}. There are: {', '.join(snapshot.splits)}")
    path = store.artefacts.get(snapshot.id).path / f"{split}.jsonl"
    try:
        with path.open("rb") as file:
            records = [record_of(orjson.loads(line)) for line in file]
    except (OSError, ValueError, KeyError) as error:
        raise BrokenArtefact(f"snapshot {snapshot.id}: {path.name} cannot be read ({error}). Run `tunesmith doctor`.") from error
    if len(records) != snapshot.splits[split]:
        expected = snapshot.splits[split]
        raise BrokenArtefact(
            f"snapshot {snapshot.id}: {path.name} has {len(records):,} rows, not {expected:,}. Run `tunesmith doctor`."
        )
    return records


class _Reading:
    """The good rows of all sources as a stream; what cannot be used is kept apart, and too much of it is refused at the end."""

    def __init__(self, readings: Sequence[SourceReading], *, config: DataConfig, store: Store, report: OnProgress) -> None:
        self._readings = readings
        self._config = config
        self._store = store
        self._report = report
        self.bad = shelf_of_dropped(store.root)
        self.num_read = 0
        self.paths: dict[str, int] = {}
        """For each file of which a record came, the number of its source."""

    def __iter__(self) -> Iterator[Record | Dropped]:
        for row in chain.from_iterable(reading.rows for reading in self._readings):
            self.num_read += 1
            if self.num_read % 1000 == 0:
                self._report("read", self.num_read)
            if isinstance(row, Dropped):
                if row.reason in {LOWER_RANKED, NOT_WANTED}:  # a choice, and no fault: the gate does not count it
                    yield row
                else:
                    self.bad.add(row)
            else:
                self.paths.setdefault(row.source.path, row.origin)
                yield row
        self._report("read", self.num_read)
        _check_gate(self.bad, num_read=self.num_read, config=self._config, store=self._store)


def _check_files(readings: Sequence[SourceReading], *, config: DataConfig) -> dict[str, str]:
    """Refuse files that cannot be read, unless everything may be bad: what they hold cannot be weighed against a share of the rows."""
    unread = {name: why for reading in readings for name, why in reading.unread.items()}
    if not unread or config.max_bad_share >= 1:
        return unread
    shown = [f"{name}  {why}" for name, why in unread.items()]
    more = [f"… and {len(shown) - 10:,} more"] if len(shown) > 10 else []
    num_files = len(unread) + sum(len(reading.files) for reading in readings)
    summary = f"{len(unread):,} of {num_files:,} files cannot be read, and nobody knows how many rows they hold."
    advice = "Mend them, leave them out (path: FOLDER/*.jsonl names the others), or train without them: data.max_bad_share: 1."
    raise DataError("\n".join([*shown[:10], *more, summary, advice]))


def _check_gate(bad: Sequence[Dropped], *, num_read: int, config: DataConfig, store: Store) -> None:
    """Refuse data of which too much is bad, and keep the bad rows where they can be looked at."""
    if num_read > len(bad) and len(bad) <= config.max_bad_share * num_read:
        return
    paths = []
    for name in dict.fromkeys(_quarantine_name(row.source.path) for row in bad):
        paths.append(store.quarantine / name)
        with open_rows(paths[-1]) as quarantine:
            for row in bad:
                if _quarantine_name(row.source.path) == name:
                    quarantine.write(plain_dropped(row))
    shown = [f"{row.source}  {row.detail}" for row in bad[:10]]
    more = [f"… and {len(bad) - 10:,} more"] if len(bad) > 10 else []
    shares = f"{percent(len(bad) / num_read)}, the gate is {100 * config.max_bad_share:g} %"
    summary = f"{len(bad):,} of {num_read:,} rows quarantined ({shares}): {', '.join(map(str, paths))}"
    raise DataError("\n".join([*shown, *more, summary, "Mend the rows, or raise data.max_bad_share."]))


def _quarantine_name(source: str) -> str:
    """A file name for a source's bad rows: `chats/a.csv.gz` gives `chats_a.csv.jsonl`."""
    name = source.removesuffix(".gz").removesuffix(".jsonl").replace("/", "_").replace("\\", "_").lstrip("._")
    return f"{name or 'rows'}.jsonl"


def _sample(kept: Shelf[Record], *, readings: Sequence[SourceReading]) -> tuple[Sequence[Record], list[str]]:
    """Apply each source's `limit`: of its cleaned records those with the smallest ids, which are hashes of content.

    Returns:
        The records left, in order; and what was done, for people.
    """
    if all(reading.source.limit is None for reading in readings):
        return kept, []
    ids: list[list[tuple[str, int]]] = [[] for _ in readings]
    for place, record in enumerate(kept):
        ids[record.origin].append((record.id, place))
    steps: list[str] = []
    chosen: list[int] = []
    for reading, mine in zip(readings, ids, strict=True):
        limit = reading.source.limit
        if limit is not None and len(mine) > limit:
            steps.append(f"limit {', '.join(reading.formats)}: {limit:,} of {len(mine):,} rows")
        chosen += (place for _, place in sorted(mine)[:limit])
    return Mapped(kept.__getitem__, sorted(chosen)), steps


def _without_own_tests(division: Division, *, config: DataConfig) -> tuple[dict[str, Sequence[Record]], list[Dropped], list[str]]:
    """Take out of the training rows, where `decontaminate` is among the steps, those that hold what the recipe's own tests ask.

    Returns:
        The parts, what was dropped, and what was done, for people.
    """
    parts = dict(division.parts)
    settings = next(
        (given or DecontaminateSettings() for name, given in map(named, config.clean) if name == "decontaminate"), None
    )
    if not isinstance(settings, DecontaminateSettings) or not parts["test"]:
        return {**parts}, [], []
    from tunesmith.data.clean.decontaminate import without_tests

    judged = enumerate(without_tests(parts["train"], parts["test"], settings=settings))
    dropped = {place: row for place, row in judged if row is not None}
    parts["train"] = parts["train"].without(dropped)
    return {**parts}, [*dropped.values()], [f"decontaminate against the recipe's own tests: {len(dropped):,} dropped"]


def _write_parts(folder: Path, parts: Mapping[str, Sequence[Record]]) -> Counter[tuple[str, str]]:
    """Write each split's shard; counts the rows of each file in each split."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, part in parts.items():
        with (folder / f"{name}.jsonl").open("wb") as file:
            for record in part:
                counts[record.source.path, name] += 1
                file.write(orjson.dumps(plain_record(record), option=orjson.OPT_APPEND_NEWLINE))
    return counts


def _write_dropped(path: Path, rows: Iterable[Dropped]) -> Counter[tuple[str, str]]:
    """Write the rows left out; counts those of each file by reason."""
    counts: Counter[tuple[str, str]] = Counter()
    with path.open("wb") as file:
        for row in rows:
            counts[row.source.path, row.reason] += 1
            file.write(orjson.dumps(plain_dropped(row), option=orjson.OPT_APPEND_NEWLINE))
    return counts


def _by_reason(reasons: Counter[tuple[str, str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (_, reason), count in reasons.items():
        total[reason] += count
    return total


def _by_file(
    readings: Sequence[SourceReading],
    *,
    counts: Counter[tuple[str, str]],
    reasons: Counter[tuple[str, str]],
    seen: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """What became of the rows of each file: those of a split, those dropped by reason, and its source's place in the recipe."""
    numbers = {name: reading.number for reading in reversed(readings) for name in reading.formats}
    names = dict.fromkeys([*(name for reading in readings for name in reading.formats), *seen, *(path for path, _ in reasons)])
    return {
        name: {
            "number": numbers.get(name, seen.get(name, 0)),
            "splits": {part: counts[name, part] for part in ("train", "validation", "test")},
            "dropped": {reason: count for (path, reason), count in sorted(reasons.items()) if path == name},
        }
        for name in names
    }


def _snapshot(digest: str, account: dict[str, Any]) -> Snapshot:
    return Snapshot(
        id=digest,
        splits=account["splits"],
        num_read=account["num_read"],
        dropped=account["dropped"],
        formats=account["formats"],
        steps=tuple(account["steps"]),
        # Snapshots of the first versions have none of these.
        num_bad=account.get("num_bad"),
        clusters=account.get("clusters", {}),
        leakage=Leakage(**account["leakage"]) if account.get("leakage") else None,
        sources={name: SourceCount(**counts) for name, counts in account.get("sources", {}).items()},
        unread=account.get("unread", {}),
    )

"""Files to a snapshot: read, clean, sample, split, and publish as one immutable artefact.

The artefact holds `train.jsonl`, `validation.jsonl`, `test.jsonl`, `dropped.jsonl` (every row left out, with its reason) and
`snapshot.json` (the account). It names no absolute path and no time: equal rows under equal names give an equal id. What cleaning
replaced lies beside it, in the workspace's `cleaning/ID`.
Records are held in memory here, about 1.5 kB for a short conversation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data.clean import clean
from tunesmith.data.clean.undo import Change
from tunesmith.data.clean_config import DecontaminateSettings, named
from tunesmith.data.clean_files import keep_account
from tunesmith.data.config import DataConfig
from tunesmith.data.read import SourceReading, read
from tunesmith.data.rows import plain_dropped, plain_record, record_of
from tunesmith.data.split import Division, split
from tunesmith.data.writing import open_rows
from tunesmith.errors import BrokenArtefact, DataError, NotFound
from tunesmith.records import Dropped, Leakage, Record, Snapshot, SourceCount
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
        DataError: a source is unreadable, more than `max_bad_share` of the rows are bad (these are then written to the
            workspace's quarantine), none is left, or there are too few groups to split.
    """
    report = on_progress or (lambda _what, _done: None)
    readings = [read(source, folder=folder) for source in config.sources]
    read_records, bad = _read_all(readings, report=report)
    num_read = sum(map(len, read_records)) + len(bad)
    _check_gate(bad, num_read=num_read, config=config, store=store)
    steps = [f"read {name}: {found}" for reading in readings for name, found in reading.formats.items()]
    changes: list[Change] = []
    cleaned = clean(
        (record for records in read_records for record in records),
        steps=config.clean,
        folder=folder,
        on_change=changes.append,
        on_progress=report,
    )
    steps += map(str, cleaned.accounts)
    kept, left_out, sampling = _sample(cleaned.kept, readings=readings, read_records=read_records)
    steps += sampling
    report("split", len(kept))
    division = split(kept, config=config.split, seed=config.seed)
    steps += division.steps
    held_back, told = _without_own_tests(division, config=config)
    steps += told
    dropped = [*bad, *cleaned.dropped, *held_back]
    account = {
        "splits": {name: len(part) for name, part in division.parts.items()},
        "clusters": dict(division.clusters),
        "leakage": asdict(division.leakage) if division.leakage else None,
        "num_read": num_read - left_out,
        "num_bad": len(bad),
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
        "formats": {name: found for reading in readings for name, found in reading.formats.items()},
        "steps": steps,
        "sources": _by_file(readings, read_records=read_records, parts=division.parts, dropped=dropped),
    }
    report("publish", len(kept))
    with store.artefacts.publish("snapshot") as staging:
        for name, part in division.parts.items():
            _write_lines(staging.path / f"{name}.jsonl", map(plain_record, part))
        _write_lines(staging.path / "dropped.jsonl", map(plain_dropped, dropped))
        (staging.path / "snapshot.json").write_bytes(
            orjson.dumps(account, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
    digest = staging.artefact.digest
    # Not in the artefact, which may be handed on: here stands what was scrubbed.
    keep_account(store.root / "cleaning" / digest, accounts=cleaned.accounts, changes=changes)
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


def _read_all(readings: Sequence[SourceReading], *, report: OnProgress) -> tuple[list[list[Record]], list[Dropped]]:
    """Read every source: its good records, and the bad rows of all."""
    records: list[list[Record]] = []
    bad: list[Dropped] = []
    done = 0
    for reading in readings:
        good: list[Record] = []
        for row in reading.rows:
            if isinstance(row, Dropped):
                bad.append(row)
            else:
                good.append(row)
            done += 1
            if done % 1000 == 0:
                report("read", done)
        records.append(good)
    report("read", done)
    return records, bad


def _check_gate(bad: Sequence[Dropped], *, num_read: int, config: DataConfig, store: Store) -> None:
    """Refuse data of which too much is bad, and keep the bad rows where they can be looked at."""
    if num_read > len(bad) and len(bad) <= config.max_bad_share * num_read:
        return
    by_file: dict[str, list[Dropped]] = {}
    for row in bad:
        by_file.setdefault(row.source.path, []).append(row)
    paths = []
    for name, rows in by_file.items():
        path = store.root / "quarantine" / _quarantine_name(name)
        with open_rows(path) as quarantine:
            for row in rows:
                quarantine.write(plain_dropped(row))
        paths.append(str(path))
    shown = [f"{row.source}  {row.detail}" for row in bad[:10]]
    more = [f"… and {len(bad) - 10:,} more"] if len(bad) > 10 else []
    shares = f"{100 * len(bad) / num_read:.2g} %, the gate is {100 * config.max_bad_share:g} %"
    summary = f"{len(bad):,} of {num_read:,} rows quarantined ({shares}): {', '.join(paths)}"
    raise DataError("\n".join([*shown, *more, summary, "Mend the rows, or raise data.max_bad_share."]))


def _quarantine_name(source: str) -> str:
    """A file name for a source's bad rows: `chats/a.csv.gz` gives `chats_a.csv.jsonl`."""
    name = source.removesuffix(".gz").removesuffix(".jsonl").replace("/", "_").replace("\\", "_").lstrip("._")
    return f"{name or 'rows'}.jsonl"


def _sample(
    kept: list[Record], *, readings: Sequence[SourceReading], read_records: Sequence[Sequence[Record]]
) -> tuple[list[Record], int, list[str]]:
    """Apply each source's `limit`: of its cleaned records those with the smallest ids, which are hashes of content.

    Returns:
        The records left, in order; how many were left out; and what was done, for people.
    """
    if all(reading.source.limit is None for reading in readings):
        return kept, 0, []
    chosen: set[int] = set()
    steps = []
    # A cleaned record is another object, and its place is the very one that it was read from.
    alive = {id(record.source): record for record in kept}
    for reading, records in zip(readings, read_records, strict=True):
        mine = [alive[id(record.source)] for record in records if id(record.source) in alive]
        limit = reading.source.limit
        if limit is not None and len(mine) > limit:
            steps.append(f"limit {', '.join(reading.formats)}: {limit:,} of {len(mine):,} rows")
            mine = sorted(mine, key=lambda record: record.id)[:limit]
        chosen |= {id(record) for record in mine}
    left = [record for record in kept if id(record) in chosen]
    return left, len(kept) - len(left), steps


def _without_own_tests(division: Division, *, config: DataConfig) -> tuple[list[Dropped], list[str]]:
    """Take out of the training rows, where `decontaminate` is among the steps, those that hold what the recipe's own tests ask."""
    settings = next(
        (given or DecontaminateSettings() for name, given in map(named, config.clean) if name == "decontaminate"), None
    )
    if not isinstance(settings, DecontaminateSettings) or not division.parts["test"]:
        return [], []
    from tunesmith.data.clean.decontaminate import without_tests

    dropped: list[Dropped] = []
    kept: list[Record] = []
    for row in without_tests(division.parts["train"], division.parts["test"], settings=settings):
        if isinstance(row, Dropped):
            dropped.append(row)
        else:
            kept.append(row)
    division.parts["train"][:] = kept
    return dropped, [f"decontaminate against the recipe's own tests: {len(dropped):,} dropped"]


def _by_file(
    readings: Sequence[SourceReading],
    *,
    read_records: Sequence[Sequence[Record]],
    parts: Mapping[str, Sequence[Record]],
    dropped: Sequence[Dropped],
) -> dict[str, dict[str, Any]]:
    """What became of the rows of each file: those of a split, those dropped by reason, and its source's place in the recipe."""
    numbers: dict[str, int] = {}
    for number, (reading, records) in enumerate(zip(readings, read_records, strict=True)):
        for name in [*reading.formats, *(record.source.path for record in records)]:
            numbers.setdefault(name, number)
    in_split = Counter((record.source.path, name) for name, part in parts.items() for record in part)
    by_reason = Counter((row.source.path, row.reason) for row in dropped)
    return {
        name: {
            "number": numbers.get(name, 0),
            "splits": {part: in_split[name, part] for part in parts},
            "dropped": {reason: count for (path, reason), count in sorted(by_reason.items()) if path == name},
        }
        for name in dict.fromkeys([*numbers, *(row.source.path for row in dropped)])
    }


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


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
    )

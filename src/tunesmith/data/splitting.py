"""Files to files: `train.jsonl`, `validation.jsonl` and `test.jsonl`, without a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data.config import SourceConfig, SplitConfig
from tunesmith.data.read import read
from tunesmith.data.rows import plain_dropped, plain_record
from tunesmith.data.shelf import parted
from tunesmith.data.split import SPLITS, split
from tunesmith.data.writing import check_outputs, open_outputs
from tunesmith.errors import DataError
from tunesmith.records import Leakage
from tunesmith.store.folders import plain_errors

__all__ = ["FilesSplit", "split_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSplit:
    """What was written, and what is known of it."""

    paths: Mapping[str, Path]
    """For each split its file; `dropped` holds rows that cannot be used, if there are any."""
    splits: Mapping[str, int]
    """Rows in each."""
    clusters: Mapping[str, int]
    """Clusters in each."""
    leakage: Leakage | None
    formats: Mapping[str, str]
    num_read: int
    dropped: Mapping[str, int]
    """Rows that cannot be used, by reason."""
    steps: tuple[str, ...]
    unread_files: Mapping[str, str]
    """Files of a folder or archive of which nothing could be read, each with why."""
    skipped: tuple[str, ...] = ()
    """Files of a folder or archive that are of no kind read here."""

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return asdict(self) | {"paths": {name: str(path) for name, path in self.paths.items()}}


def split_files(sources: Sequence[SourceConfig], *, out: Path, config: SplitConfig, seed: int = 0) -> FilesSplit:
    """Read files, divide their rows, and write each part as JSON lines: a row keeps its shape, with its `source` and `cluster`.

    Args:
        sources: the files.
        out: folder of the new files; they appear together at the end, or not at all.
        config: the shares held out, and from what likeness rows stay together.
        seed: of the order in which clusters are dealt.

    Raises:
        NotFound: there is no such file.
        DataError: a file cannot be read, no row can be used, or there are too few clusters to split.
        UserError: one of the new files would replace a source.
        OutOfSpace: the disk is full; nothing half-written is kept.
    """
    readings = [read(source, folder=Path()) for source in sources]
    may_be_written = (out / f"{name}.jsonl" for name in (*SPLITS, "dropped"))
    check_outputs([("--out", path) for path in may_be_written], sources=(source.path for source in sources))
    with plain_errors(out, elsewhere="name another place"):
        records, bad = parted(chain.from_iterable(reading.rows for reading in readings), place=_disk_of(out))
    if not records:
        shown = "\n".join(f"{row.source}  {row.detail}" for row in bad[:10])
        raise DataError(f"{shown}\nnone of {len(bad):,} rows can be used, so there is nothing to split. Mend the rows.")
    division = split(records, config=config, seed=seed)
    content: dict[str, Iterable[dict[str, Any]]] = {name: map(plain_record, part) for name, part in division.parts.items()}
    if bad:
        content["dropped"] = map(plain_dropped, bad)
    paths = {name: out / f"{name}.jsonl" for name in content}
    with open_outputs(*paths.values()) as files:
        for file, rows in zip(files, content.values(), strict=True):
            file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    return FilesSplit(
        paths=paths,
        splits={name: len(part) for name, part in division.parts.items()},
        clusters=division.clusters,
        leakage=division.leakage,
        formats={name: found for reading in readings for name, found in reading.formats.items()},
        num_read=len(records) + len(bad),
        dropped=dict(sorted(Counter(row.reason for row in bad).items())),
        steps=division.steps,
        unread_files={name: why for reading in readings for name, why in reading.unread.items()},
        skipped=tuple(name for reading in readings for name in reading.skipped),
    )


def _disk_of(folder: Path) -> Path:
    """The nearest folder that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())

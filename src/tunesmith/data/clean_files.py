"""Files of rows to a file of cleaned rows, one of dropped rows, and one of what was replaced. In constant memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from tunesmith.data.clean import Cleaning, StepAccount
from tunesmith.data.clean.undo import Change, plain_change
from tunesmith.data.clean_config import CleanStep, PiiSettings, Settings, StepName, named
from tunesmith.data.config import FormatName, SourceConfig
from tunesmith.data.read import SourceReading, read
from tunesmith.data.rows import plain_dropped, plain_record
from tunesmith.data.writing import check_outputs, open_outputs
from tunesmith.records import Dropped, Record

__all__ = ["CleanedFiles", "clean_files", "keep_account"]

_OPTIONS = {"kept": "--out", "dropped": "--dropped", "changes": "--changes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedFiles:
    """The account of a cleaning."""

    formats: dict[str, str]
    """Of each file, and the evidence for it."""
    accounts: tuple[StepAccount, ...]
    unread: Counter[str]
    """Rows that could not be read, by reason."""
    unread_files: Mapping[str, str]
    """Files of a folder or archive of which nothing could be read, each with why."""
    skipped: tuple[str, ...] = ()
    """Files of a folder or archive that are of no kind read here."""
    num_kept: int
    num_dropped: int
    """Those that could not be read included."""
    written: dict[str, str]
    """Which file holds what."""
    notes: tuple[str, ...] = ()
    """What the steps do not do, where one might think so."""

    def as_json(self) -> dict[str, Any]:
        """The account for machines."""
        return {
            "num_read": self.num_kept + self.num_dropped,
            "num_kept": self.num_kept,
            "num_dropped": self.num_dropped,
            "unread": dict(self.unread),
            "unread_files": dict(self.unread_files),
            "skipped": list(self.skipped),
            "steps": [_plain_account(account) for account in self.accounts],
            "formats": self.formats,
            "files": self.written,
            "notes": list(self.notes),
        }


def clean_files(
    paths: Sequence[str],
    *,
    steps: Sequence[StepName | CleanStep],
    out: Path,
    dropped: Path | None = None,
    changes: Path | None = None,
    layout: FormatName = "auto",
    on_progress: Callable[[str, int], None] | None = None,
) -> CleanedFiles:
    """Clean files of rows.

    Args:
        paths: files, folders or patterns, in the order in which of two duplicates the first is kept.
        steps: as in `DataConfig.clean`.
        out: where the rows that are kept go, in their own shape with their `source`.
        dropped: where the others go, each with `reason`, `detail` and `source`. None: beside `out`.
        changes: where every row goes as it was before a step changed it. None: nowhere.
        layout: as in `SourceConfig.format`.
        on_progress: called with what is being done and how many rows it has reached.

    Raises:
        UserError: a file cannot be read or written, or would replace a source or another output; or a step cannot be had. Nothing is
            then written.
    """
    readings = [read(SourceConfig(path=path, format=layout), folder=Path()) for path in paths]
    targets = {"kept": out, "dropped": dropped or out.with_name(f"{out.name.split('.')[0]}.dropped.jsonl")}
    targets |= {"changes": changes} if changes else {}
    check_outputs([(_OPTIONS[name], path) for name, path in targets.items()], sources=paths)
    unread: Counter[str] = Counter()
    num_kept = num_dropped = 0
    with ExitStack() as stack:
        files = dict(zip(targets, stack.enter_context(open_outputs(*targets.values())), strict=True))

        def keep_change(change: Change) -> None:
            _write(files["changes"], plain_change(change))

        # Rows are put aside beside the file that is written, where there must be room for them anyway.
        place = None if out.exists() and not out.is_file() else out.parent
        cleaning = Cleaning(steps, place=place, on_change=keep_change if changes else None, on_progress=on_progress)
        for row in cleaning.rows(_rows(readings, unread)):
            if isinstance(row, Dropped):
                num_dropped += 1
                _write(files["dropped"], plain_dropped(row))
            else:
                num_kept += 1
                _write(files["kept"], plain_record(row))
    return CleanedFiles(
        formats={name: found for reading in readings for name, found in reading.formats.items()},
        accounts=cleaning.accounts,
        unread=unread,
        unread_files={name: why for reading in readings for name, why in reading.unread.items()},
        skipped=tuple(name for reading in readings for name in reading.skipped),
        num_kept=num_kept,
        num_dropped=num_dropped,
        written={name: str(path) for name, path in targets.items()},
        notes=tuple(_not_covered(settings) for name, settings in map(named, steps) if name == "pii"),
    )


def _not_covered(settings: Settings | None) -> str:
    """What personal data stays in the rows."""
    if isinstance(settings, PiiSettings) and settings.names:
        return "pii: ages and street addresses are not covered, and a language model finds names and places but never all of them"
    return (
        "pii: names, places, ages and street addresses are not covered, for they have no pattern. "
        "A language model finds most names and places: "
        "{pii: {names: true}}, which needs the extra presidio (pip install 'tunesmith[presidio]')"
    )


def keep_account(folder: Path, *, accounts: Sequence[StepAccount], changes: Sequence[Mapping[str, Any]]) -> None:
    """Write what a cleaning did, and what it replaced (`plain_change`), so that any row can be restored. The owner alone may read it."""
    if not changes and not any(account.examples for account in accounts):
        return
    paths = folder / "account.json", folder / "changes.jsonl"
    with open_outputs(*paths) as (account_file, changes_file):
        account_file.write(orjson.dumps([_plain_account(account) for account in accounts], option=orjson.OPT_INDENT_2))
        for change in changes:
            _write(changes_file, change)
    for path in paths:
        path.chmod(0o600)


def _rows(readings: Sequence[SourceReading], unread: Counter[str]) -> Iterator[Record | Dropped]:
    for reading in readings:
        for row in reading.rows:
            if isinstance(row, Dropped):
                unread[row.reason] += 1
            yield row


def _write(file: IO[bytes], row: Mapping[str, Any]) -> None:
    file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _plain_account(account: StepAccount) -> dict[str, Any]:
    examples = [example._asdict() | {"source": str(example.source)} for example in account.examples]
    plain = asdict(account) | {"examples": examples}
    return plain | {"dropped": dict(account.dropped), "found": dict(account.found)}

"""Cleaning: an ordered list of steps, an account of each, and a copy of whatever it replaced.

Rows stream through the steps one by one; for a step that must see all of them first they are put aside on disk. So memory holds no
rows, only what a step remembers of each. To add a step: a module
of this package named after it, with `build(settings, *, folder) -> Step`; its name in `clean_config.StepName`; and its settings, if it
has any, as a field of `clean_config.CleanStep`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, get_args

import orjson

from tunesmith.data.clean.step import Noted, Outcome, Step, Whole, texts_of
from tunesmith.data.clean.undo import Change
from tunesmith.data.clean_config import CleanStep, StepName, named
from tunesmith.data.rows import plain_record
from tunesmith.data.shelf import shelf_of_records
from tunesmith.records import Dropped, Record, Source

__all__ = ["STEPS", "Cleaned", "Cleaning", "Example", "StepAccount", "clean"]

STEPS: tuple[str, ...] = get_args(StepName)

_NUM_EXAMPLES = 5


class Example(NamedTuple):
    """One row that a step touched. `after` is None where it was dropped."""

    source: Source
    before: str
    after: str | None
    detail: str


@dataclass(slots=True, kw_only=True)
class StepAccount:
    """What a step did. It grows while rows stream through."""

    step: str
    num_in: int = 0
    num_out: int = 0
    num_changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows by reason."""
    found: Counter[str] = field(default_factory=Counter)
    """Findings in kept rows by kind, such as `email`."""
    examples: list[Example] = field(default_factory=list)
    """The first five rows that it changed, dropped or found something in."""

    def __str__(self) -> str:
        changed = f"{self.num_changed:,} changed, " if self.num_changed else ""
        return f"{self.step}: {changed}{self.dropped.total():,} dropped"


class Cleaned(NamedTuple):
    """What is left, in order; what was dropped; and the account of each step."""

    kept: list[Record]
    dropped: list[Dropped]
    accounts: tuple[StepAccount, ...] = ()


class Cleaning:
    """Steps in order, and their accounts.

    Args:
        steps: as in `DataConfig.clean`.
        folder: to which paths in settings are relative.
        place: folder on whose disk rows are put aside. None: the system's temporary folder.
        on_change: called with every replacement, so that it can be kept.
        on_progress: called with a step's name and how many rows it has seen, every thousand.
    """

    def __init__(
        self,
        steps: Sequence[StepName | CleanStep],
        *,
        folder: Path = Path(),
        place: Path | None = None,
        on_change: Callable[[Change], None] | None = None,
        on_progress: Callable[[str, int], None] | None = None,
    ) -> None:
        self._place = place
        self._steps = [(name, load_step(name)(settings, folder=folder)) for name, settings in map(named, steps)]
        self._on_change = on_change
        self._on_progress = on_progress
        self.accounts = tuple(StepAccount(step=name) for name, _ in self._steps)

    def rows(self, records: Iterable[Record | Dropped]) -> Iterator[Record | Dropped]:
        """Every record cleaned or dropped, as a stream; what is dropped already passes through."""
        rows = iter(records)
        for (_, step), account in zip(self._steps, self.accounts, strict=True):
            rows = self._judge(step, rows, account) if isinstance(step, Whole) else self._apply(step, rows, account)
        return rows

    def _judge(self, step: Whole, rows: Iterator[Record | Dropped], account: StepAccount) -> Iterator[Record | Dropped]:
        shelf = shelf_of_records(self._place)
        for row in rows:
            if isinstance(row, Dropped):
                yield row
            else:
                shelf.add(row)
        for given, outcome in zip(shelf, step.judge(shelf), strict=True):
            yield self._enter(outcome, given, account)

    def _apply(
        self, step: Callable[[Iterable[Record]], Iterator[Outcome]], rows: Iterator[Record | Dropped], account: StepAccount
    ) -> Iterator[Record | Dropped]:
        given: deque[Record] = deque()
        passing: deque[Dropped] = deque()

        def records() -> Iterator[Record]:
            for row in rows:
                if isinstance(row, Dropped):
                    passing.append(row)
                else:
                    given.append(row)
                    yield row

        for outcome in step(records()):
            while passing:
                yield passing.popleft()
            yield self._enter(outcome, given.popleft(), account)
        yield from passing

    def _enter(self, outcome: Outcome, given: Record, account: StepAccount) -> Record | Dropped:
        """Write one outcome into the account."""
        account.num_in += 1
        if self._on_progress and account.num_in % 1000 == 0:
            self._on_progress(account.step, account.num_in)
        if outcome is None or outcome is given:
            account.num_out += 1
            return given
        if isinstance(outcome, Dropped):
            account.dropped[outcome.reason] += 1
            _show(account, given, None, outcome.detail)
            # The whole row, as it came into the step, so that nothing is lost.
            return outcome if outcome.raw else replace(outcome, raw=orjson.dumps(plain_record(given)).decode())
        record, detail = (outcome.record, outcome.detail) if isinstance(outcome, Noted) else (outcome, "")
        account.num_out += 1
        if isinstance(outcome, Noted):
            account.found.update(outcome.findings)
        record = record or given
        if record is not given:
            account.num_changed += 1
            if self._on_change:
                self._on_change(Change(account.step, given, record))
        _show(account, given, record, detail)
        return record


def clean(
    records: Iterable[Record],
    *,
    steps: Sequence[StepName | CleanStep],
    folder: Path = Path(),
    on_change: Callable[[Change], None] | None = None,
    on_progress: Callable[[str, int], None] | None = None,
) -> Cleaned:
    """Apply cleaning steps.

    Args:
        records: in the order in which of two duplicates the first is kept.
        steps: as in `DataConfig.clean`.
        folder: to which paths in settings are relative.
        on_change: called with every replacement, so that it can be kept.
        on_progress: called with a step's name and how many rows it has seen, every thousand.
    """
    cleaning = Cleaning(steps, folder=folder, on_change=on_change, on_progress=on_progress)
    kept: list[Record] = []
    dropped: list[Dropped] = []
    for row in cleaning.rows(records):
        if isinstance(row, Dropped):
            dropped.append(row)
        else:
            kept.append(row)
    return Cleaned(kept, dropped, cleaning.accounts)


def load_step(name: str) -> Callable[..., Step]:
    """The builder of a step; its module, and the libraries behind it, are loaded only now."""
    if name not in STEPS:
        raise ValueError(f"cleaning step {name!r} is unknown. Known: {', '.join(STEPS)}")
    builder: Callable[..., Step] = import_module(f"{__name__}.{name}").build
    return builder


def _show(account: StepAccount, given: Record, after: Record | None, detail: str) -> None:
    """Keep an example: of a conversation the first message that differs."""
    if len(account.examples) == _NUM_EXAMPLES:
        return
    before_texts = texts_of(given)
    after_texts = texts_of(after) if after else before_texts
    at = next((i for i, (a, b) in enumerate(zip(before_texts, after_texts, strict=True)) if a != b), 0)
    account.examples.append(Example(given.source, before_texts[at], after_texts[at] if after else None, detail))

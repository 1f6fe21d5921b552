"""The account of a split on its way to training: every row and every token is kept, truncated or dropped, and nothing is lost.

It adds up exactly, for each source and in whole: all = kept + truncated + dropped, in tokens and in supervised tokens; in rows,
all = kept + dropped, where a row that lost a part is among the kept. Knows neither tokenizer nor model; `pack.encode` fills it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any, NamedTuple

from tunesmith.errors import DataError, GateRefused
from tunesmith.records import Dropped, Source

__all__ = ["Account", "Bookkeeper", "Ledger", "LongRow", "Tally", "refuse_faults", "refuse_losses"]

MAX_LOST = 0.01
"""Share of the supervised tokens that may be cut away under the policy `error`."""
HARD = frozenset({"no_place_for_answer", "no_end_of_turn", "double_bos"})
"""Reasons for which a row is not left out but the job is refused: what such a row teaches is wrong, and so may be its neighbours."""
_NUM_NAMED = 5
_DROPPED = "dropped "
_UNSEEN_TOOLS = "unseen tools"
_NUM_FAULTS = 10


class Tally(NamedTuple):
    """Rows, their tokens, and how many of these are supervised: predicted, with a weight above 0."""

    rows: int = 0
    tokens: int = 0
    supervised: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(*map(sum, zip(self, other, strict=True)))


_NONE = Tally()


class LongRow(NamedTuple):
    """A row with more tokens than fit, and how many it has."""

    source: Source
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of one source's rows."""

    every: Tally = _NONE
    kept: Tally = _NONE
    """Rows that are trained on, and the tokens of theirs that are read."""
    truncated: Tally = _NONE
    """What was cut away from rows that are kept."""
    dropped: Mapping[str, Tally] = field(default_factory=dict)
    """By reason."""
    num_split_rows: int = 0
    """Rows that became several sequences because they are long."""
    num_repeated: int = 0
    """Tokens that are read a second time, as the context with which a further sequence of a long row begins."""
    num_unseen_tools: int = 0
    """Rows that offer tools which the chat template does not print: the model learns to call what it cannot see."""

    @property
    def num_masked(self) -> int:
        """Tokens that are read and not learned."""
        return self.kept.tokens - self.kept.supervised

    def as_json(self) -> dict[str, Any]:
        return {
            "all": self.every._asdict(),
            "kept": self.kept._asdict() | {"masked": self.num_masked},
            "truncated": self.truncated._asdict(),
            "dropped": {reason: tally._asdict() for reason, tally in self.dropped.items()},
            "split_rows": self.num_split_rows,
            "repeated_tokens": self.num_repeated,
            "rows_with_unseen_tools": self.num_unseen_tools,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The account of a split, source by source, with what is wrong and what is long."""

    sources: Mapping[str, Account] = field(default_factory=dict)
    faults: tuple[Dropped, ...] = ()
    """Rows for which a job must be refused."""
    longest: tuple[LongRow, ...] = ()
    """The longest of the rows that do not fit, the longest first."""

    @property
    def total(self) -> Account:
        return _sum(self.sources.values())

    @property
    def num_lost(self) -> int:
        """Supervised tokens that are not learned because their row is too long; those under the policy `drop` are not among them."""
        total = self.total
        return total.truncated.supervised + total.dropped.get("nothing_supervised", _NONE).supervised

    @property
    def num_cut_rows(self) -> int:
        """Rows of which a part, or all that would be learned, is lost because they are too long."""
        total = self.total
        return total.truncated.rows + total.dropped.get("nothing_supervised", _NONE).rows

    def plus(self, other: Ledger) -> Ledger:
        """Both accounts as one."""
        names = dict.fromkeys([*self.sources, *other.sources])
        return Ledger(
            sources={name: _sum([book.sources[name] for book in (self, other) if name in book.sources]) for name in names},
            faults=self.faults + other.faults,
            longest=_longest([*self.longest, *other.longest]),
        )

    def as_json(self) -> dict[str, Any]:
        return {"total": self.total.as_json(), "sources": {name: account.as_json() for name, account in self.sources.items()}}


class Bookkeeper:
    """Writes a ledger, row by row."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, list[int]]] = {}
        """source -> what became of them -> rows, tokens, supervised tokens."""
        self._faults: list[Dropped] = []
        self._long: list[LongRow] = []

    def keep(self, source: str, *, every: Tally, kept: Tally, num_repeated: int = 0, is_split: bool = False) -> None:
        """A row that is trained on; `every` is what it had, `kept` what is left of it."""
        self._count(source, "every", every)
        self._count(source, "kept", kept)
        if kept[1:] != every[1:]:
            self._count(source, "truncated", Tally(1, every.tokens - kept.tokens, every.supervised - kept.supervised))
        if is_split:
            self._count(source, "split", Tally(1, num_repeated))

    def drop(self, source: str, row: Dropped, *, every: Tally, is_fault: bool = False) -> None:
        """A row that is left out."""
        self._count(source, "every", every)
        self._count(source, _DROPPED + row.reason, every)
        if is_fault:
            self._faults.append(row)

    def note_length(self, source: Source, *, tokens: int) -> None:
        """A row that does not fit."""
        self._long.append(LongRow(source, tokens))

    def note_unseen_tools(self, source: str) -> None:
        """A row whose tools are not in its tokens."""
        self._count(source, _UNSEEN_TOOLS, Tally(1))

    def close(self) -> Ledger:
        sources = {
            source: _account({kind: Tally(*cell) for kind, cell in cells.items()}) for source, cells in self._cells.items()
        }
        return Ledger(sources=sources, faults=tuple(self._faults), longest=_longest(self._long))

    def _count(self, source: str, kind: str, tally: Tally) -> None:
        cell = self._cells.setdefault(source, {}).setdefault(kind, [0, 0, 0])
        for i, number in enumerate(tally):
            cell[i] += number


def _account(tallies: Mapping[str, Tally]) -> Account:
    return Account(
        every=tallies.get("every", _NONE),
        kept=tallies.get("kept", _NONE),
        truncated=tallies.get("truncated", _NONE),
        dropped={kind.removeprefix(_DROPPED): tallies[kind] for kind in sorted(tallies) if kind.startswith(_DROPPED)},
        num_split_rows=tallies.get("split", _NONE).rows,
        num_repeated=tallies.get("split", _NONE).tokens,
        num_unseen_tools=tallies.get(_UNSEEN_TOOLS, _NONE).rows,
    )


def refuse_faults(ledger: Ledger) -> None:
    """Refuse a job whose rows would teach something wrong.

    Raises:
        DataError: there is such a row; each is named with its file and line.
    """
    if not ledger.faults:
        return
    shown = [f"{row.source}  {row.detail}" for row in ledger.faults[:_NUM_FAULTS]]
    more = len(ledger.faults) - len(shown)
    shown += [f"… and {more:,} more"] if more else []
    count = f"{len(ledger.faults):,} of {ledger.total.every.rows:,} rows"
    raise DataError("\n".join([*shown, f"{count} would teach nothing, or something wrong. Nothing was trained."]))


def refuse_losses(ledger: Ledger, *, max_length: int, context: int) -> None:
    """Refuse a job that would cut away more than 1 % of what is to be learned. For the policy `error`.

    Args:
        ledger: of all that is trained on.
        max_length: in tokens; what lies beyond is cut away.
        context: tokens that the model can read.

    Raises:
        GateRefused: with the longest rows, and with the length that would keep all.
    """
    supervised = ledger.total.every.supervised
    if ledger.num_lost <= MAX_LOST * supervised:
        return
    longest = ledger.longest[0].tokens
    advice = f"Nothing is lost with train.max_length: {longest}."
    if longest > context:
        advice = (
            f"train.max_length: {longest} would keep all, but this model reads at most {context:,}: shorten or divide the rows."
        )
    raise GateRefused(
        "\n".join(
            [
                *(f"{row.source}  {row.tokens:,} tokens" for row in ledger.longest),
                f"{ledger.num_lost:,} of {supervised:,} supervised tokens ({ledger.num_lost / supervised:.1%}) lie beyond "
                f"max_length ({max_length:,}) and would be lost; the gate is {MAX_LOST:.0%}. The longest rows stand above.",
                f"{advice} Or say what becomes of long rows: data.overlong: split, left, right or drop.",
            ]
        )
    )


def _sum(accounts: Iterable[Account]) -> Account:
    every = kept = truncated = _NONE
    dropped: dict[str, Tally] = {}
    num_split_rows = num_repeated = num_unseen_tools = 0
    for account in accounts:
        every, kept, truncated = every.plus(account.every), kept.plus(account.kept), truncated.plus(account.truncated)
        for reason, tally in account.dropped.items():
            dropped[reason] = dropped.get(reason, _NONE).plus(tally)
        num_split_rows += account.num_split_rows
        num_repeated += account.num_repeated
        num_unseen_tools += account.num_unseen_tools
    return Account(
        every=every,
        kept=kept,
        truncated=truncated,
        dropped=dict(sorted(dropped.items())),
        num_split_rows=num_split_rows,
        num_repeated=num_repeated,
        num_unseen_tools=num_unseen_tools,
    )


def _longest(rows: Iterable[LongRow]) -> tuple[LongRow, ...]:
    return tuple(nlargest(_NUM_NAMED, rows, key=lambda row: row.tokens))

"""Sections of a data report that were measured elsewhere: from plain values, as a run keeps them, to tables and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.pipeline.accounting import tools_warning
from tunesmith.pipeline.page_parts import MOST_ROWS, Cell, Sample, Samples, Section, Table, count_of, rows_of

__all__ = ["coverage_section", "ledger_section", "mixing_section", "plain_section"]


def ledger_section(ledger: Mapping[str, Any]) -> Section:
    """What became of every token of the training rows.

    Args:
        ledger: `total` and, by name, `sources`: accounts with `all`, `kept`, `truncated` and `dropped`, as a run keeps them.
    """
    accounts = {**ledger["sources"], "all": ledger["total"]}
    columns = ("source", "tokens", "read", "supervised", "masked", "cut away", "left out")
    rows: list[tuple[Cell, ...]] = []
    for name, account in accounts.items():
        kept = account["kept"]
        left_out = sum(tally["tokens"] for tally in account["dropped"].values())
        figures = (kept["tokens"], kept["supervised"], kept["masked"], account["truncated"]["tokens"], left_out)
        rows.append((name, account["all"]["tokens"], *figures))
    reasons = ledger["total"]["dropped"]
    dropped: list[tuple[Cell, ...]] = [(reason, t["rows"], t["tokens"], t["supervised"]) for reason, t in reasons.items()]
    tables = [Table("Tokens by source", columns, tuple(rows), bars=1)]
    if dropped:
        tables.append(Table("Rows left out, by reason", ("reason", "rows", "tokens", "supervised"), tuple(dropped), bars=1))
    kept, cut = ledger["total"]["kept"], ledger["total"]["truncated"]
    unseen = tools_warning(ledger["total"])
    share = 100 * kept["supervised"] / max(kept["tokens"], 1)
    return Section(
        name="ledger",
        title="What is learned of it",
        summary=f"{kept['tokens']:,} tokens of {rows_of(kept['rows'])} are read, {kept['supervised']:,} of them ({share:.0f} %) learned; "
        f"{cut['supervised']:,} tokens that would be learned are cut away." + (f" {unseen}" if unseen else ""),
        figures=ledger,
        parts=tuple(tables),
        headline=(("learned tokens", f"{kept['supervised']:,}"),),
    )


def mixing_section(sources: Mapping[str, Mapping[str, Any]]) -> Section | None:
    """How often each source is read, and its share of what is read.

    Args:
        sources: by name: `tokens`, `supervised` and `epochs`, as realised; of one source alone there is nothing to say.
    """
    if len(sources) < 2:
        return None
    total = sum(passed["tokens"] for passed in sources.values()) or 1
    rows: list[tuple[Cell, ...]] = [
        (name, passed["tokens"], f"{100 * passed['tokens'] / total:.1f} %", passed["supervised"], _cell(float(passed["epochs"])))
        for name, passed in sources.items()
    ]
    most = max(sources, key=lambda name: sources[name]["epochs"])
    return Section(
        name="mixing",
        title="How sources are mixed",
        summary=f"{total:,} tokens of {count_of(len(sources), 'source')} are read; {most} most often, {sources[most]['epochs']:.1f} times.",
        figures={"sources": {name: dict(passed) for name, passed in sources.items()}},
        parts=(Table("Read in the whole training", ("source", "tokens", "share", "supervised", "times"), tuple(rows), bars=1),),
    )


def coverage_section(coverage: Mapping[str, Any], *, num_train: int, num_test: int) -> Section:
    """How well the training rows cover the test rows: the verdict, how near they are, and what is missing.

    Args:
        coverage: as `Coverage.as_json` gives it, of all these rows or of some drawn evenly.
        num_train: training rows there are.
        num_test: test rows there are.
    """
    is_drawn = (num_train, num_test) != (coverage["num_rows"], coverage["num_targets"])
    drawn = f" Drawn evenly from {rows_of(num_train)} and {count_of(num_test, 'test row')}." if is_drawn else ""
    histogram = coverage["histogram"]
    bins: list[tuple[Cell, ...]] = [
        (f"{at / len(histogram):.1f} to {(at + 1) / len(histogram):.1f}", count) for at, count in enumerate(histogram)
    ]
    advice: list[tuple[Cell, ...]] = [(f"{at}", sentence) for at, sentence in enumerate(coverage["advice"], start=1)]
    gaps = [
        Samples(
            f"Missing: {gap['topic']} ({count_of(gap['num_targets'], 'test row')})",
            tuple(
                Sample(one["source"], f"the nearest, {one['nearness']}: {one['nearest']}", one["text"]) for one in gap["examples"]
            ),
        )
        for gap in coverage["gaps"][:MOST_ROWS]
    ]
    counts = f"{coverage['num_well']:,} well, {coverage['num_thin']:,} thinly, {coverage['num_uncovered']:,} not at all"
    return Section(
        name="coverage",
        title="Do the training rows cover the test rows?",
        summary=f"{coverage['verdict']}: of {count_of(coverage['num_targets'], 'test row')} {counts}; "
        f"{coverage['num_near_rows']:,} of {rows_of(coverage['num_rows'])} are near one, "
        f"worth {coverage['effective_rows']:,.0f} that fit alike.{drawn}",
        figures=coverage,
        parts=(
            Table("Test rows by the nearness of their nearest row", ("nearness", "test rows"), tuple(bins), bars=1),
            *([Table("What to collect", ("", "advice"), tuple(advice))] if advice else []),
            *gaps,
        ),
        headline=(("coverage", coverage["verdict"]),),
    )


def plain_section(name: str, *, title: str, summary: str, figures: Mapping[str, Any]) -> Section:
    """A section of figures that were measured elsewhere.

    Values stand in one table; a mapping of mappings, or a list of them, is a table of its own.
    """
    single: list[tuple[Cell, ...]] = []
    tables = []
    for key, value in figures.items():
        words = key.replace("_", " ")
        rows = _table_of(value)
        if rows:
            columns = list(dict.fromkeys(column for _, row in rows for column in row))
            cells = tuple((head, *(_cell(row.get(column, "")) for column in columns)) for head, row in rows[:MOST_ROWS])
            tables.append(Table(words, ("", *(column.replace("_", " ") for column in columns)), cells))
        elif isinstance(value, Mapping):
            tables.append(Table(words, ("", "value"), tuple((str(k), _cell(v)) for k, v in list(value.items())[:MOST_ROWS])))
        else:
            single.append((words, _cell(value)))
    parts = [Table("Figures", ("", "value"), tuple(single)), *tables] if single else tables
    return Section(name=name, title=title, summary=summary, figures=figures, parts=tuple(parts))


def _table_of(value: object) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of what is a table: a mapping of mappings, or a list of them."""
    if isinstance(value, Mapping):
        named = [(str(key), row) for key, row in value.items()]
    else:
        named = [(str(i), row) for i, row in enumerate(value, start=1)] if isinstance(value, list | tuple) else []
    return [(key, row) for key, row in named if isinstance(row, Mapping)] if all(isinstance(r, Mapping) for _, r in named) else []


def _cell(value: object) -> Cell:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(_cell(item)) for item in value)
    return value if isinstance(value, int) else str(value)

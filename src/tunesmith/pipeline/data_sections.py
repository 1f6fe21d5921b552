"""What a data report says: one function for each section, from measured values to figures, tables, pictures and samples.

A section holds its figures once; the page and the JSON are both made of it, so they cannot differ. What was not measured gives no
section. Knows no HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tunesmith.data.percent import percent
from tunesmith.data.profile import Lengths, Near, Repeats
from tunesmith.pipeline.page_parts import MOST_ROWS, Cell, Histogram, Sample, Samples, Section, Table, count_of, rows_of
from tunesmith.records import Dropped, Record

__all__ = [
    "clusters_section",
    "counts_section",
    "dropped_section",
    "languages_section",
    "lengths_section",
    "repeats_section",
    "splits_section",
    "unsearched_section",
]

_SHOWN = 1200
"""Characters of a sample."""


def counts_section(records: Sequence[Record], *, num_dropped: int, formats: Mapping[str, str]) -> Section:
    """Rows by source, domain, label and licence, messages by role, and the format found in each source."""
    sources = Counter(record.source.path for record in records)
    turns = Counter(message.role.value for record in records for message in record.messages)
    kinds = {
        "source": sources,
        "domain": Counter(record.domain for record in records if record.domain),
        "label": Counter(record.label for record in records if record.label is not None),
        "licence": Counter(record.licence for record in records if record.licence),
    }
    tables = [_counted("Rows by source", "source", sources, extra=("format", formats))]
    tables += [_counted(f"Rows by {name}", name, counts) for name, counts in list(kinds.items())[1:] if counts]
    if turns:
        tables.append(_counted("Messages by role", "role", turns))
    figures = {"rows": len(records), "dropped": num_dropped, "formats": dict(formats)}
    figures |= {f"by_{name}": dict(counts.most_common()) for name, counts in kinds.items()}
    figures |= {
        "messages_by_role": dict(turns.most_common()),
        "preference_pairs": sum(bool(record.rejected) for record in records),
        "groups": len({record.group for record in records if record.group is not None}),
    }
    return Section(
        name="counts",
        title="What there is",
        summary=f"{rows_of(len(records))} from {count_of(len(sources), 'source')}, {num_dropped:,} dropped.",
        figures=figures,
        parts=tuple(tables),
        headline=(("rows", f"{len(records):,}"), ("dropped", f"{num_dropped:,}")),
    )


def lengths_section(measured: Mapping[str, tuple[str, Lengths]], *, tokenizer: str | None, num_rows: int) -> Section | None:
    """How long rows are.

    Args:
        measured: what was measured -> (its unit, how it is spread), such as `rows, in tokens`.
        tokenizer: whose tokens were counted.
        num_rows: of the whole; tokens may have been counted of some only, evenly drawn.
    """
    if not measured:
        return None
    columns = ("", "total", "mean", "least", "p5", "p25", "p50", "p75", "p95", "p99", "most")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            name,
            found.total,
            round(found.mean, 1),
            found.smallest,
            *(round(found.percentiles[f"p{q}"], 1) for q in (5, 25, 50, 75, 95, 99)),
            found.largest,
        )
        for name, (_, found) in measured.items()
    )
    last, (unit, lengths) = list(measured.items())[-1]
    whose = f" Tokens are those of {tokenizer}." if tokenizer else ""
    if lengths.num < num_rows and unit == "tokens":
        whose += f" They were counted of {lengths.num:,} rows evenly drawn."
    total = (("tokens", f"{lengths.total:,}"),) if unit == "tokens" and lengths.num == num_rows else ()
    return Section(
        name="lengths",
        title="How long rows are",
        summary=f"Half of the {last} have at most {lengths.percentiles['p50']:,.0f} {unit}, 95 % at most "
        f"{lengths.percentiles['p95']:,.0f}, the longest {lengths.largest:,}.{whose}",
        figures={"tokenizer": tokenizer} | {f"{name} ({unit})": _plain(found) for name, (unit, found) in measured.items()},
        parts=(
            Table("Percentiles", columns, rows),
            *(Histogram(f"{name}, in {unit}", unit, found) for name, (unit, found) in measured.items()),
        ),
        headline=total,
    )


def languages_section(counts: Mapping[str, int], *, num_rows: int) -> Section | None:
    """Which languages rows are in, of all rows or of some drawn evenly."""
    looked_at = sum(counts.values())
    if not looked_at:
        return None
    known = Counter({name: n for name, n in counts.items() if name != "unknown"})
    drawn = "" if looked_at == num_rows else f", of {looked_at:,} rows evenly drawn from {num_rows:,}"
    unknown = counts.get("unknown", 0)
    found = (
        ", ".join(f"{name} {100 * n / looked_at:.1f} %" for name, n in known.most_common(3)) or "no row is long enough to tell"
    )
    return Section(
        name="languages",
        title="Languages",
        summary=f"{found}{drawn}; {unknown:,} too short to tell.",
        figures={"rows_looked_at": looked_at, "by_language": dict(Counter(counts).most_common())},
        parts=(_counted("Rows by language (ISO 639-1)", "language", Counter(counts)),),
    )


def repeats_section(repeats: Repeats) -> Section:
    """Exact duplicates that are still there, and questions whose answers differ."""
    found = [Sample(str(row.source), f"stands {times:,} times", _text(row)) for row, times in repeats.most_repeated]
    disagreeing = [
        Sample(" · ".join(str(r.source) for r in rows[:4]), f"{len(rows):,} different answers", "\n\n".join(map(_text, rows[:4])))
        for _, rows in repeats.conflicts
    ]
    parts = [
        Samples(caption, tuple(samples))
        for caption, samples in (("Repeated most", found), ("One question, different answers", disagreeing))
        if samples
    ]
    return Section(
        name="duplicates",
        title="Said twice",
        summary=f"{rows_of(repeats.num_duplicates)} with the very content of an earlier one; "
        f"{count_of(repeats.num_conflicts, 'question')} with different answers.",
        figures={"exact_duplicates": repeats.num_duplicates, "conflicting_questions": repeats.num_conflicts},
        parts=tuple(parts),
        headline=(("duplicates", f"{repeats.num_duplicates:,}"),),
    )


def dropped_section(dropped: Sequence[Dropped], *, num_read: int, num_samples: int = 3) -> Section | None:
    """Rows that are not trained on: how many for each reason, and some of each."""
    if not dropped:
        return None
    by_reason: dict[str, list[Dropped]] = {}
    for row in dropped:
        by_reason.setdefault(row.reason, []).append(row)
    ordered = sorted(by_reason.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    share = len(dropped) / max(num_read, len(dropped))
    return Section(
        name="dropped",
        title="What was dropped, and why",
        summary=f"{rows_of(len(dropped))} of {num_read:,} ({percent(share)}), for {count_of(len(ordered), 'reason')}.",
        figures={
            "rows": len(dropped),
            "by_reason": {reason: len(rows) for reason, rows in ordered},
            "by_source": dict(Counter(row.source.path for row in dropped).most_common()),
            "samples": {
                reason: [{"source": str(r.source), "detail": r.detail, "raw": r.raw[:_SHOWN]} for r in rows[:num_samples]]
                for reason, rows in ordered
            },
        },
        parts=(
            _counted("Rows by reason", "reason", Counter({reason: len(rows) for reason, rows in ordered})),
            *(
                Samples(reason, tuple(Sample(str(row.source), row.detail, row.raw[:_SHOWN]) for row in rows[:num_samples]))
                for reason, rows in ordered
            ),
        ),
    )


def splits_section(splits: Mapping[str, Sequence[Record]], *, leaks: Mapping[str, int], near: Near | None) -> Section | None:
    """How rows are divided, and what of the held-out ones stands in the training rows.

    Args:
        splits: name -> rows; one alone is not divided.
        leaks: name of a held-out split -> its rows whose content or first question is among the training rows.
        near: near-duplicates, if they were looked for.
    """
    if len(splits) < 2:
        return None
    total = sum(map(len, splits.values())) or 1
    found: dict[str, Mapping[str, int]] = {"the same in train": leaks}
    if near is not None:
        found["nearly the same in train"] = near.leaks
    rows = tuple(
        (name, len(rows), f"{100 * len(rows) / total:.1f} %", *(counts.get(name, "") for counts in found.values()))
        for name, rows in splits.items()
    )
    parts = [
        f"{sum(counts.values()):,} held-out rows stand {'nearly ' if i else ''}in the training rows"
        for i, counts in enumerate(found.values())
    ]
    return Section(
        name="splits",
        title="Training and held-out rows",
        summary="; ".join(parts) + ".",
        figures={
            "rows": {name: len(rows) for name, rows in splits.items()},
            "leaking_rows": dict(leaks),
            **({"near_duplicates_in_train": dict(near.leaks), "threshold": near.threshold} if near is not None else {}),
            "by_domain": {name: dict(Counter(r.domain for r in rows if r.domain).most_common()) for name, rows in splits.items()},
        },
        parts=(Table("Splits", ("split", "rows", "share", *found), rows, bars=1),),
    )


def clusters_section(near: Near, *, num_shown: int = 5) -> Section:
    """Rows that say nearly the same."""
    clusters, threshold = near.clusters, near.threshold
    sizes = Counter(map(len, clusters))
    num_rows = sum(map(len, clusters))
    largest = sorted(clusters, key=len, reverse=True)[:num_shown]
    samples = [
        Sample(str(alike[0].source), f"{len(alike):,} rows", "\n\n".join(f"{row.source}\n{_text(row)}" for row in alike[:4]))
        for alike in largest
    ]
    rows: list[tuple[Cell, ...]] = [(f"{size:,}", num) for size, num in sorted(sizes.items())[:MOST_ROWS]]
    table = Table("Clusters by size", ("rows in a cluster", "clusters"), tuple(rows), bars=1)
    return Section(
        name="near_duplicates",
        title="Said nearly the same",
        summary=f"{rows_of(num_rows)} in {count_of(len(clusters), 'cluster')} of near-duplicates "
        f"(Jaccard similarity of character 5-grams from {threshold:g}).",
        figures={
            "threshold": threshold,
            "clusters": len(clusters),
            "rows_in_clusters": num_rows,
            "clusters_by_size": {str(size): n for size, n in sorted(sizes.items())},
        },
        parts=(table, Samples("The largest", tuple(samples))) if clusters else (),
        headline=(("near-duplicates", f"{num_rows - len(clusters):,}"),),
    )


def unsearched_section(*, num_rows: int, most: int) -> Section:
    """That near-duplicates were not looked for, and how to have it done."""
    return Section(
        name="near_duplicates",
        title="Said nearly the same",
        summary=f"Not looked for here: the page searches up to {rows_of(most)}, and there are {num_rows:,}. The cleaning step "
        "`near_duplicates` searches any number of rows and says what it drops.",
        figures={"searched": False, "most_rows": most},
        parts=(),
    )


def _text(record: Record) -> str:
    said = record.text if record.text is not None else "\n".join(f"{m.role}: {m.content}" for m in record.messages)
    return said if len(said) <= _SHOWN else said[: _SHOWN - 1] + "…"


def _counted(caption: str, name: str, counts: Counter[str], *, extra: tuple[str, Mapping[str, str]] | None = None) -> Table:
    """A table of counts, most frequent first; what is past the longest useful list is one last line."""
    total = sum(counts.values()) or 1
    shown = counts.most_common(MOST_ROWS)
    more = [(extra[0], extra[1])] if extra else []
    rows: list[tuple[Cell, ...]] = [
        (key, n, f"{100 * n / total:.1f} %", *(values.get(key, "") for _, values in more)) for key, n in shown
    ]
    if (rest := len(counts) - len(shown)) > 0:
        left = total - sum(n for _, n in shown)
        rows.append((f"{rest:,} more", left, f"{100 * left / total:.1f} %", *("" for _ in more)))
    return Table(caption, (name, "number", "share", *(column for column, _ in more)), tuple(rows), bars=1)


def _plain(found: Lengths) -> dict[str, Any]:
    return asdict(found) | {"bins": [one._asdict() for one in found.bins]}

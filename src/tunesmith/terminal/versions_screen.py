"""Screens of what is stored of versions: one, the difference of two, and what came of training one again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tunesmith.terminal.layout import columns, field, first_of, on_one_line

if TYPE_CHECKING:
    from tunesmith.pipeline.reproduction import Reproduction
    from tunesmith.pipeline.version_diff import VersionsDiff
    from tunesmith.pipeline.version_facts import VersionFacts

__all__ = ["diff_screen", "reproduction_screen", "shown_screen"]

_MOST = 12
"""Lines of one part."""
_WIDEST = 40


def shown_screen(facts: VersionFacts, *, aliases: Sequence[str]) -> Text:
    """One version: what it is made of, how good it is, what is proved of it."""
    version = facts.version
    made = version.lineage
    parts = [field("version", " · ".join([version.ref, *aliases, version.created_at[:16].replace("T", " ")]))]
    parts += [field("weights", version.weights_digest[:12])]
    parts += [field("base", f"{facts.base_name} · {version.base_digest[:12]}")]
    parts += [field("data", line) for line in ([facts.rows_in_words] if facts.rows_in_words else [])]
    parts += [field("train", facts.training_in_words)]
    if made:
        shown = ("tunesmith", "torch", "transformers", "machine", "processor", "threads", "seed")
        parts += [field("made with", " · ".join(f"{name} {made[name]}" for name in shown if name in made))]
    if version.metrics:
        parts += [field("metrics", " · ".join(f"{name} {value:.4g}" for name, value in version.metrics.items()))]
    parts += [field("verdict", facts.report.verdict if facts.report else "none: it keeps no test rows")]
    parts += [field("proofs", facts.sheet.summary if facts.sheet else f"none yet: tunesmith prove {version.ref}")]
    again = facts.reproduction
    parts += [field("again", again.verdict if again else f"not tried: tunesmith reproduce {version.ref}")]
    parts += [field("next", f"tunesmith card {version.ref}")]
    return Text("\n").join(parts)


def diff_screen(diff: VersionsDiff) -> Text:
    """What is different between two versions; what is equal is not shown."""
    parts = [field("versions", f"{diff.first} → {diff.second}")]
    parts += [field("data", line) for line in [_data(diff.data)]]
    parts += [Text(columns(rows)) for rows in [_domains(diff.data)] if rows]
    for label, part in (("recipe", diff.configuration), ("made of", diff.made_of)):
        parts += [field(label, part["missing"] if "missing" in part else _changes(part["changed"]))]
    if "missing" in diff.metrics:
        parts += [field("metrics", diff.metrics["missing"])]
    else:
        parts += list(_metrics(diff.metrics, first=diff.first, second=diff.second))
    parts += [field("proofs", "\n".join(_proofs(diff.proofs, refs=(diff.first, diff.second))))]
    parts += [field("next", f"tunesmith compare {diff.first} {diff.second}")]
    return Text("\n").join(parts)


def reproduction_screen(found: Reproduction) -> Text:
    """What came of training a version again."""
    style = "green" if found.holds else "bold red"
    differs = [field("differs", "\n".join(found.differs))] if found.differs else []
    return Text("\n").join([*differs, field("verdict", Text(found.verdict, style=style))])


def _data(data: Mapping[str, Any]) -> str:
    if "missing" in data:
        return str(data["missing"])
    if data["is_same"]:
        return f"the same {data['rows']:,} rows, split alike (snapshot {data['snapshot'][:12]})"
    rows = data["rows"]
    lines = [f"{rows['before']:,} → {rows['after']:,} rows"]
    for kind in ("added", "removed", "changed", "moved to another split"):
        if rows[kind]:
            shown = ", ".join(data["shown"][kind])
            lines.append(f"{rows[kind]:,} {kind}: {shown}{', …' if rows[kind] > len(data['shown'][kind]) else ''}")
    lines += [f"{name} {before:,} → {after:,}" for name, (before, after) in data["splits"].items() if before != after]
    sources = [
        f"source {path} {one['state']}: {one['rows'][0]:,} → {one['rows'][1]:,} rows" for path, one in data["sources"].items()
    ]
    return "\n".join([*lines, *first_of(sources, most=_MOST)])


def _domains(data: Mapping[str, Any]) -> list[list[str]]:
    changed = {name: counts for name, counts in data.get("domains", {}).items() if counts[0] != counts[1]}
    if not changed:
        return []
    rows = [[name or "(no domain)", f"{before:,}", f"{after:,}"] for name, (before, after) in changed.items()]
    return [["domain", "before", "after"], *rows[:_MOST]]


def _changes(changed: Mapping[str, Sequence[Any]]) -> str:
    if not changed:
        return "the same"
    return "\n".join(
        first_of([f"{key}: {_shown(before)} → {_shown(after)}" for key, (before, after) in changed.items()], most=_MOST)
    )


def _shown(value: Any) -> str:
    text = "(none)" if value is None else on_one_line(str(value), limit=_WIDEST)
    is_digest = len(text) >= _WIDEST and isinstance(value, str) and not set(value) - set("0123456789abcdef")
    return text[:12] if is_digest else text


def _metrics(metrics: Mapping[str, Any], *, first: str, second: str) -> Iterator[Text]:
    paired = metrics["paired"]
    rows = [["metric", first, second, "paired difference [95 %]"]]
    for name in {**metrics["figures"], **paired}:
        before, after = (_number(value) for value in metrics["figures"].get(name, (None, None)))
        rows.append([name, before, after, _paired(paired[name]) if name in paired else ""])
    if len(rows) > 1:
        yield Text(columns(rows))
    yield field("", metrics["why"])


def _paired(score: Mapping[str, Any]) -> str:
    inside = f" [{_number(score['low'])}, {_number(score['high'])}]" if "low" in score and "high" in score else " (too few rows)"
    return _number(score["value"], sign="+") + inside


def _number(value: Any, *, sign: str = "") -> str:
    return "" if value is None else f"{float(value):{sign}.4g}"


def _proofs(proofs: Mapping[str, Any], *, refs: Sequence[str]) -> Iterator[str]:
    for ref, summary in zip(refs, proofs["proved"], strict=True):
        yield f"{ref}: {summary or 'not tried'}"
    words = {True: "holds", False: "FAILS", None: "not used"}
    for name, (one, other) in proofs["proofs"].items():
        states = ["not tried" if proof is None else words[proof["holds"]] for proof in (one, other)]
        if states[0] != states[1]:
            yield f"{name}: {states[0]} → {states[1]}"

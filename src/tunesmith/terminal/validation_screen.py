"""What `data validate` found: how much is bad, what is wrong by kind with first examples, and what next."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from tunesmith.data.percent import percent
from tunesmith.data.validation import Finding, Severity, Validation
from tunesmith.terminal.layout import columns, field, first_of

__all__ = ["validation_screen"]

_NUM_EXAMPLES = 3


def validation_screen(validation: Validation) -> Text:
    """Findings grouped by code, the gravest first, each with a few examples and its mend."""
    sound = validation.num_rows - validation.num_bad - validation.num_doubtful
    rows = (
        f"{validation.num_rows:,} read · {sound:,} sound · {validation.num_doubtful:,} with warnings alone · "
        f"{validation.num_bad:,} bad ({percent(validation.num_bad / max(validation.num_rows, 1))})"
    )
    parts = [field("rows", rows)]
    parts.append(field("formats", "\n".join(f"{file.name}: {file.format}" for file in validation.files)))
    if validation.skipped:
        parts.append(field("not read", "\n".join(first_of(validation.skipped))))
    parts += _lengths(validation)
    for severity in Severity:
        for code, count in validation.counts[severity].most_common():
            found = [finding for finding in validation.findings if (finding.code, finding.severity) == (code, severity)]
            parts += [Text(""), *_group(code, count, found, severity=severity)]
    parts += [Text(""), field("verdict", _verdict(validation)), *_next(validation)]
    return Text("\n").join(parts)


def _group(code: str, count: int, found: list[Finding], *, severity: Severity) -> Iterator[Text]:
    style = "bold red" if severity is Severity.ERROR else "yellow"
    mark = " · --fix mends it" if found and all(finding.is_fixable for finding in found) else ""
    yield field(severity.value, Text.assemble((code, style), f"   {count:,}{mark}"))
    for finding in found[:_NUM_EXAMPLES]:
        shown = f" · {finding.value}" if finding.value and finding.value not in finding.detail else ""
        yield field("", f"{finding.source}  {finding.detail}{shown}")
    if count > len(found[:_NUM_EXAMPLES]):
        yield field("", Text(f"… and {count - len(found[:_NUM_EXAMPLES]):,} more", style="dim"))
    if found:
        yield field("", Text(found[0].mend, style="dim"))


def _lengths(validation: Validation) -> Iterator[Text]:
    """Lengths as a table, and what conversations lack."""
    statistics = validation.statistics
    shown = {
        "messages in a row": statistics.messages_per_row,
        "characters in a row": statistics.characters_per_row,
        **{f"characters, {role}": lengths for role, lengths in sorted(statistics.characters_by_role.items())},
        "tokens in a row": statistics.tokens_per_row,
        "tokens learned": statistics.learned_tokens_per_row,
    }
    table: list[tuple[str, ...]] = [("lengths", "number", "least", "5 %", "median", "mean", "95 %", "most")]
    for name, lengths in shown.items():
        if found := lengths.as_json():
            figures = (found[key] for key in ("count", "min", "p5", "median", "mean", "p95", "max"))
            table.append((name, *(f"{figure:,.0f}" if figure == int(figure) else f"{figure:,.1f}" for figure in figures)))
    if len(table) > 1:
        yield Text(columns(table, indent=2))
    if statistics.num_conversations:
        lacking = (
            f"{statistics.num_missing_system:,} without a system prompt, {statistics.num_missing_user:,} without a user message"
        )
        yield field("of these", f"{statistics.num_conversations:,} conversations: {lacking}")
    if validation.num_over_limit is not None:
        yield field("too long", f"{validation.num_over_limit:,} rows have more than {validation.rules.max_tokens:,} tokens")


def _verdict(validation: Validation) -> str:
    gate = f"the gate is {100 * validation.rules.max_bad_share:g} %"
    if not validation.counts[Severity.ERROR] and not validation.counts[Severity.WARNING]:
        return "Clean: nothing was found."
    passes = "They pass" if validation.passes else "They do not pass"
    what = "left out of the corrected copy" if validation.fixed else "bad"
    return f"{passes}: {percent(validation.bad_share)} of the rows are {what}, {gate}."


def _next(validation: Validation) -> Iterator[Text]:
    fixed = validation.fixed
    if fixed is not None:
        yield field("written", f"{fixed.out}: {fixed.num_written:,} rows")
        yield field("", f"{fixed.changes}: what was changed, in {fixed.num_changed:,} rows or lines")
        yield field("", f"{fixed.rejected}: {fixed.num_rejected:,} rows that have to be mended by hand, with the reasons")
    elif any(finding.is_fixable for finding in validation.findings):
        yield field("next", f"tunesmith data validate {' '.join(file.name for file in validation.files)} --fix fixed.jsonl")

"""What a cleaning did, step by step."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from tunesmith.data.clean_files import CleanedFiles
from tunesmith.terminal.layout import columns, field, first_of, unread_field

__all__ = ["cleaned_screen"]

_WIDTH = 100


def cleaned_screen(cleaned: CleanedFiles) -> RenderableType:
    """The account of each step, an example of each, and where everything lies."""
    table = [["step", "in", "changed", "dropped", "out"]]
    table += [[a.step, *(f"{n:,}" for n in (a.num_in, a.num_changed, a.dropped.total(), a.num_out))] for a in cleaned.accounts]
    num_read = cleaned.num_kept + cleaned.num_dropped
    parts: list[RenderableType] = [field("formats", f"{name}: {found}") for name, found in cleaned.formats.items()]
    counts = f"{num_read:,} read · {cleaned.num_kept:,} kept · {cleaned.num_dropped:,} dropped"
    parts += [field("rows", counts), Text(columns(table))]
    parts += unread_field(cleaned.unread_files)
    if cleaned.skipped:
        parts.append(field("not read", "\n".join(first_of(cleaned.skipped))))
    if cleaned.unread:
        parts.append(field("unreadable", _counts(cleaned.unread)))
    for account in cleaned.accounts:
        if account.dropped or account.found:
            parts.append(field(account.step, _counts(account.dropped + account.found)))
        for source, before, after, detail in account.examples[:2]:
            shown = [f"{source}  {detail}".rstrip(), f"- {_short(before)}"]
            shown += [f"+ {_short(after)}"] if after is not None and after != before else []
            parts.append(field("", "\n".join(shown)))
    parts += [field("note", note) for note in cleaned.notes]
    parts += [field(name, path) for name, path in cleaned.written.items()]
    return Group(*parts)


def _counts(counted: dict[str, int]) -> str:
    return " · ".join(f"{name} {count:,}" for name, count in sorted(counted.items(), key=lambda entry: -entry[1]))


def _short(text: str) -> str:
    line = text.replace("\n", "⏎")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"

"""The screen of `data read`: what each file was taken for, what could be used, and what could not."""

from __future__ import annotations

from rich.text import Text

from tunesmith.data.collect import Collected
from tunesmith.terminal.layout import field, first_of, unread_field

__all__ = ["collected_screen"]


def collected_screen(found: Collected) -> Text:
    """What was read."""
    left_out = found.num_read - found.num_kept
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.dropped.items())
    lines = [
        field("formats", "\n".join(f"{path}: {format_}" for path, format_ in found.formats.items())),
        field(
            "rows",
            f"{found.num_read:,} read · {found.num_kept:,} kept · {left_out:,} left out" + (f" ({reasons})" if reasons else ""),
        ),
    ]
    lines += unread_field(found.unread_files)
    if found.examples:
        lines.append(field("left out", "\n".join(found.examples)))
    if found.skipped:
        lines.append(field("not read", "\n".join(first_of(found.skipped))))
    written = found.out + (f" · {found.dropped_path}" if found.dropped_path else "")
    lines += [field("written", written), field("next", f"tunesmith data validate {found.out}")]
    return Text("\n").join(lines)

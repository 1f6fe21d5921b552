"""What `data split` did: rows and clusters in each part, what leaks, and where the files are."""

from __future__ import annotations

from rich.text import Text

from tunesmith.data.splitting import FilesSplit
from tunesmith.terminal.layout import field, first_of, unread_field

__all__ = ["split_screen"]


def split_screen(done: FilesSplit) -> Text:
    """A few lines."""
    bad = "".join(f" · {count:,} {reason}" for reason, count in done.dropped.items())
    parts = [
        *unread_field(done.unread_files),
        *([field("not read", "\n".join(first_of(done.skipped)))] if done.skipped else []),
        field("rows", f"{done.num_read:,} read · {sum(done.splits.values()):,} kept{bad}"),
        field("formats", "\n".join(f"{path}: {found}" for path, found in done.formats.items())),
        field(
            "split", " · ".join(f"{name} {count:,} in {done.clusters[name]:,} clusters" for name, count in done.splits.items())
        ),
    ]
    parts += [field("together" if i == 0 else "", step) for i, step in enumerate(done.steps[1:])]
    if done.leakage is not None:
        parts.append(field("leakage", str(done.leakage)))
        parts += [field("warning", done.leakage.reason)] if done.leakage.reason else []
    parts.append(field("files", "\n".join(str(path) for path in done.paths.values())))
    return Text("\n").join(parts)

"""What became of versions: a move, a history, where one comes from, and what was cleared up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from tunesmith.pipeline.registry import Branch
from tunesmith.records import Deployment
from tunesmith.terminal.layout import columns, field, on_one_line, size

if TYPE_CHECKING:
    from tunesmith.store import Collected, Event

__all__ = ["collected_rubbish_screen", "history_screen", "lineage_screen", "moved_screen"]

_NUM_SHOWN = 20


def moved_screen(moved: Deployment, *, previous: Deployment | None) -> Text:
    """Who answers now, with which shares, and how to go back."""
    parts = [field(moved.alias, f"{moved.name}@{moved.version} · generation {moved.generation}")]
    if len(moved.arms) > 1:
        parts.append(field("traffic", _traffic(moved.arms)))
    if moved.alias == "champion" and previous is not None:
        parts.append(field("previous", f"{previous.name}@{previous.version}"))
        parts.append(field("next", f"tunesmith history {moved.name}       tunesmith rollback {moved.name}"))
    return Text("\n").join(parts)


def history_screen(events: Sequence[Event]) -> Text:
    """One line for each event, oldest first, and its reasons below."""
    return Text("\n").join(part for event in events for part in _told(event))


def _told(event: Event) -> Iterator[Text]:
    words = {"pointed": "is", "rolled_back": "is again", "removed": "is no longer"}
    what = f"{words[event.kind]} {event.alias} (generation {event.generation})" if event.kind in words else event.kind
    who = f" · by {event.actor}" if event.actor else ""
    yield Text(f"  {event.at[:16].replace('T', ' ')}  {event.name}@{event.version} {what}{who}")
    arms = event.details.get("arms", {})
    if len(arms) > 1:
        yield Text("                    traffic " + _traffic(arms))
    for reason in event.because:
        yield Text(f"                    because {on_one_line(_short(reason))}")
    for reason in event.details.get("overruled", ()):
        yield Text(f"                    although {on_one_line(reason)}")


def _traffic(arms: Mapping[str, float]) -> str:
    return " · ".join(f"{ref} {100 * share:.3g} %" if share else f"{ref} gets copies" for ref, share in arms.items())


def _short(reason: str) -> str:
    is_digest = len(reason) == 64 and all(letter in "0123456789abcdef" for letter in reason)
    return f"artefact {reason[:12]}" if is_digest else reason


def lineage_screen(branch: Branch) -> Text:
    """A tree: below each version what it was made of, what was found of it, and its parent."""
    return Text("\n".join(_lines(branch, indent="")))


def _lines(branch: Branch, *, indent: str) -> Iterator[str]:
    what = branch.what[:12] if len(branch.what) == 64 else branch.what
    label = "" if branch.kind == "version" else f"{branch.kind} "
    yield indent + on_one_line(" · ".join(filter(None, [label + what, branch.detail])), limit=110)
    below = indent.replace("└ ", "  ") + "└ "
    for part in branch.parts:
        yield from _lines(part, indent=below)


def collected_rubbish_screen(found: Collected) -> Text:
    """What was removed, or would be, and what was kept."""
    rows = [["artefact", "kind", "MB", "days"]]
    rows += [
        [one.digest[:12], one.kind, f"{one.num_bytes / 1e6:.1f}", f"{one.age_days:.1f}"] for one in found.removed[:_NUM_SHOWN]
    ]
    more = len(found.removed) - _NUM_SHOWN
    verb = "would be removed" if found.is_dry_run else "removed"
    stages = f" · {found.num_stages} finished stages forgotten" if found.num_stages and not found.is_dry_run else ""
    parts = [Text(columns(rows))] if found.removed else []
    parts += [Text(f"             … and {more:,} more")] if more > 0 else []
    parts.append(field("gc", f"{len(found.removed)} artefacts {verb} · {size(found.num_bytes)}{stages}"))
    young = f" · {found.num_young} that nothing names are younger than {found.grace_days:g} days" if found.num_young else ""
    parts.append(field("kept", f"{found.num_kept} artefacts{young}"))
    return Text("\n").join(parts)

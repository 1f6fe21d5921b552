"""What would be trained, before anything is: rows, tokens, what is learned of them, steps, time and memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.pipeline.preparation import prepare
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.recipe import LoadedRecipe
from tunesmith.records import Snapshot
from tunesmith.store import Store

if TYPE_CHECKING:
    from tunesmith.train import Plan

__all__ = ["Checked", "Piece", "check"]


class Piece(NamedTuple):
    """A stretch of a rendered row that is learned, or is context only."""

    text: str
    is_learned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The answer to: what will be trained on?"""

    snapshot: Snapshot
    plan: Plan
    preview_source: str
    """file:line of the row shown."""
    preview: tuple[Piece, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        plan = asdict(self.plan)
        dropped = plan.pop("dropped")
        return {
            "snapshot": {"id": self.snapshot.id, "splits": dict(self.snapshot.splits), "formats": dict(self.snapshot.formats)},
            "rows": {
                "read": self.snapshot.num_read,
                "kept": sum(self.snapshot.splits.values()),
                "dropped": dict(self.snapshot.dropped),
                "without_supervision": len(dropped),
            },
            "plan": plan,
            "preview": {"source": self.preview_source, "pieces": [piece._asdict() for piece in self.preview]},
        }


def check(loaded: LoadedRecipe, *, store: Store, watcher: Watcher | None = None) -> Checked:
    """Read, clean, split and tokenise everything, build the model, and time a few steps of it.

    Raises:
        UserError: data, base or recipe cannot be used.
    """
    from tunesmith.train import plan_job

    watch = watcher or Silent()
    prepared = prepare(loaded, store=store, watcher=watch)
    watch.begin("plan", f"tokenising {len(prepared.job.train):,} rows, loading the model, timing a few steps")
    row = prepared.job.train[0]
    rendered = prepared.job.chat.render(row)[0]
    pieces = groupby(zip(rendered.tokens, rendered.weights, strict=True), key=lambda pair: pair[1] > 0)
    return Checked(
        snapshot=prepared.snapshot,
        plan=plan_job(prepared.job),
        preview_source=str(row.source),
        preview=tuple(
            Piece(text=prepared.job.chat.decode([token for token, _ in piece], keep_control=True), is_learned=is_learned)
            for is_learned, piece in pieces
        ),
    )

"""What would be trained, before anything is: rows, tokens, what is learned of them, steps, time and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.pipeline.covering import Coverage, cover_test
from tunesmith.pipeline.learning_curve import LearningCurve, learning_curve
from tunesmith.pipeline.preparation import Prepared, complete_report, held_out, prepare
from tunesmith.pipeline.preview import Preview, preview_row
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.recipe import LoadedRecipe
from tunesmith.pipeline.running import training_key
from tunesmith.records import Snapshot
from tunesmith.store import Store

if TYPE_CHECKING:
    from tunesmith.train import Plan

__all__ = ["Checked", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The answer to: what will be trained on?"""

    snapshot: Snapshot
    plan: Plan
    previews: tuple[Preview, ...]
    """Rows as the model reads them."""
    coverage: Coverage | None
    """How well the training rows cover the test rows; None without test rows."""
    learning_curve: LearningCurve | None = None
    """What more rows would do; None where it was not asked for."""

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        plan = {name: value for name, value in _plain(self.plan).items() if name not in {"dropped", "ledger", "sources", "mix"}}
        rows = {
            "read": self.snapshot.num_read,
            "kept": sum(self.snapshot.splits.values()),
            "dropped": dict(self.snapshot.dropped),
            "unread": dict(self.snapshot.unread),
        }
        return {
            "snapshot": {
                "id": self.snapshot.id,
                "splits": dict(self.snapshot.splits),
                "clusters": dict(self.snapshot.clusters),
                "leakage": asdict(self.snapshot.leakage) if self.snapshot.leakage else None,
                "formats": dict(self.snapshot.formats),
            },
            "rows": rows
            | {
                "without_supervision": len(self.plan.dropped),
                "sources": {name: asdict(count) for name, count in self.snapshot.sources.items()},
                "left_out": [{"source": str(r.source), "reason": r.reason, "detail": r.detail} for r in self.plan.dropped],
            },
            "plan": plan,
            "ledger": self.plan.ledger.as_json(),
            "sources": {name: passed._asdict() for name, passed in self.plan.sources.items()},
            "mix": self.plan.mix,
            "coverage": self.coverage.as_json() if self.coverage else None,
            "learning_curve": self.learning_curve.as_json() if self.learning_curve else None,
            "preview": self.previews[0].as_json(),
            "previews": [each.as_json() for each in self.previews],
        }


def check(
    loaded: LoadedRecipe, *, store: Store, watcher: Watcher | None = None, num_shown: int = 1, with_curve: bool = False
) -> Checked:
    """Read, clean, split and tokenise everything, build the model, and time a few steps of it.

    Args:
        loaded: a checked recipe.
        store: the workspace.
        watcher: hears what happens.
        num_shown: rows to show as the model will read them, spread over the training rows.
        with_curve: train on parts of the rows too, to say whether more data would help.

    Raises:
        UserError: data, base or recipe cannot be used.
        GateRefused: too much of what is to be learned would be cut away.
    """
    from tunesmith.train import plan_job

    watch = watcher or Silent()
    prepared = prepare(loaded, store=store, watcher=watch)
    watch.begin("plan", f"tokenising {len(prepared.job.train):,} rows, loading the model, timing a few steps")
    plan = plan_job(prepared.job)
    train = prepared.job.train
    coverage = cover_test(train, test=prepared.records("test"))
    passed = {name: one._asdict() for name, one in plan.sources.items() if name not in held_out(loaded.recipe.data)}
    complete_report(prepared, ledger=plan.ledger.as_json(), sources=passed, watcher=watch, coverage=coverage)
    shown = [train[at] for at in _spread(len(train), num_shown)]
    return Checked(
        snapshot=prepared.snapshot,
        plan=plan,
        previews=tuple(preview_row(row, job=prepared.job) for row in shown),
        coverage=coverage,
        learning_curve=_curve(prepared, plan=plan, watcher=watch) if with_curve else None,
    )


def _curve(prepared: Prepared, *, plan: Plan, watcher: Watcher) -> LearningCurve:
    return learning_curve(prepared, training_key=training_key(prepared), num_steps=plan.num_steps, watcher=watcher)


def _spread(length: int, count: int) -> Sequence[int]:
    """So many places among so many, evenly, the first among them."""
    count = max(min(count, length), 1)
    return [at * length // count for at in range(count)]


def _plain(plan: Plan) -> dict[str, Any]:
    ledger = plan.ledger
    return asdict(plan) | {"num_truncated_rows": ledger.num_cut_rows, "num_truncated_supervised_tokens": ledger.num_lost}

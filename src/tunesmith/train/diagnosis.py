"""What a finished run says about itself, in plain words: what is wrong, the figure, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.records import CurvePoint

__all__ = ["RunFacts", "diagnose"]

_RISE = 1.02
"""A validation loss this much above its best is a rise and not noise."""
_LEARNED = 0.05
"""Nats per token; a training loss that starts below has nothing left to fall."""
_FEW_STEPS = 20
_FEW_ROWS = 20
"""Of so few validation rows the mean loss moves by chance as much as from one measurement to the next."""
_FEW_TOKENS = 16
"""Learned in one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a diagnosis needs to know beside the curve."""

    best_step: int
    """The step whose weights were kept."""
    num_steps: int
    """Done; fewer than planned after an early stop."""
    num_planned_steps: int
    first_loss: float
    """Training loss of the first step, before anything was learned."""
    num_clipped: int
    """Steps whose gradient was scaled down."""
    learning_rate: float
    """The peak."""
    tokens_per_step: float
    supervised_per_step: float
    num_rows: int
    num_truncated_rows: int
    num_supervised: int
    """Tokens that are learned in an epoch."""
    num_truncated_supervised: int
    """Tokens that would be, had they not lain beyond `max_length`."""
    max_length: int
    context: int
    """Tokens that the model can read."""
    num_validation_rows: int


Curve = Sequence[CurvePoint]


def diagnose(curve: Curve, run: RunFacts) -> tuple[str, ...]:
    """Warnings about a finished run, what was learned first, then what it was learned from.

    Args:
        curve: measurements in the order of steps.
        run: what was run.
    """
    return tuple(warning for check in _CHECKS if (warning := check(curve, run)))


def _overfitting(curve: Curve, run: RunFacts) -> str | None:
    losses = [point.validation_loss for point in curve if point.validation_loss is not None]
    if not losses or losses[-1] <= min(losses) * _RISE or not curve[-1].train_loss < curve[0].train_loss:
        return None
    return (
        f"overfitting after step {run.best_step}: the validation loss rose from {min(losses):.3f} to {losses[-1]:.3f} "
        f"while the training loss went on falling. The weights of step {run.best_step} were kept; fewer epochs would do"
    )


def _rate_too_high(curve: Curve, run: RunFacts) -> str | None:
    """A spike, or a loss that ends above its lowest. Where nearly every gradient is clipped, less of a rise is enough."""
    if not curve:
        return None
    start = CurvePoint(step=1, train_loss=run.first_loss)
    low, high = _largest_rise([start, *curve])
    clipped = run.num_clipped / max(run.num_steps, 1)
    is_jumpy = low is start or run.num_steps / len(curve) < 5  # one step's loss, or the mean of a few, moves by itself
    tolerance = 0.5 if is_jumpy else 0.05 if clipped >= 0.9 and high is curve[-1] else 0.2
    if high.train_loss - low.train_loss <= max(tolerance * low.train_loss, tolerance / 2):
        return None
    beyond = ", above where it began" if low is not start and high.train_loss > run.first_loss else ""
    return (
        f"the learning rate {run.learning_rate:.1e} looks too high: the training loss rose from {low.train_loss:.3f} at step "
        f"{low.step} to {high.train_loss:.3f} at step {high.step}{beyond}, and {clipped:.0%} of the gradients were clipped. "
        f"Set train.learning_rate to {run.learning_rate / 3:.1e}, a third"
    )


def _not_falling(curve: Curve, run: RunFacts) -> str | None:
    if len(curve) < 2 or curve[0].train_loss < _LEARNED or curve[-1].train_loss < curve[0].train_loss:
        return None
    if _rate_too_high(curve, run):
        return None
    return (
        f"the training loss did not fall ({curve[0].train_loss:.3f} to {curve[-1].train_loss:.3f}): set train.learning_rate to "
        f"{run.learning_rate * 3:.1e}, three times as high; if it does not fall then, look at the rows (tunesmith check)"
    )


def _few_steps(_: Curve, run: RunFacts) -> str | None:
    if run.num_planned_steps >= _FEW_STEPS:
        return None
    return (
        f"only {_count(run.num_planned_steps, 'step')}, of {run.tokens_per_step:,.0f} tokens each: too few to learn much. Raise "
        "train.epochs, or lower train.batch_tokens"
    )


def _faint_steps(_: Curve, run: RunFacts) -> str | None:
    if run.supervised_per_step >= _FEW_TOKENS:
        return None
    return (
        f"a step learns from {run.supervised_per_step:.1f} tokens on average, out of {run.tokens_per_step:,.0f} that it reads: "
        "its direction is mostly chance. Raise train.batch_tokens, or shorten the prompts"
    )


def _truncated(_: Curve, run: RunFacts) -> str | None:
    lost = run.num_truncated_supervised
    if not lost:
        return None
    advice = f"Raise train.max_length (now {run.max_length:,})"
    if run.max_length >= run.context:
        advice = f"The model reads no more than {run.context:,}: shorten the rows, or divide them"
    return (
        f"{run.num_truncated_rows:,} of {_count(run.num_rows, 'row')} were cut at {run.max_length:,} tokens, and with them "
        f"{lost:,} trained tokens ({lost / (lost + run.num_supervised):.2%}), the ends of answers among them. {advice}"
    )


def _few_validation_rows(curve: Curve, run: RunFacts) -> str | None:
    if all(point.validation_loss is None for point in curve):
        return "no validation rows: the last weights were kept, and overfitting would go unseen (data.split.validation)"
    if run.num_validation_rows >= _FEW_ROWS:
        return None
    return (
        f"only {_count(run.num_validation_rows, 'validation row')}: too few to tell a better step from luck. "
        "Raise data.split.validation, or add rows"
    )


_CHECKS: tuple[Callable[[Curve, RunFacts], str | None], ...] = (
    _rate_too_high,
    _not_falling,
    _overfitting,
    _few_steps,
    _faint_steps,
    _truncated,
    _few_validation_rows,
)


def _largest_rise(curve: Curve) -> tuple[CurvePoint, CurvePoint]:
    """The lowest point before, and the point itself, where the training loss stands highest above what it had reached."""
    pairs = [(min(curve[:i], key=_train_loss), point) for i, point in enumerate(curve) if i]
    return max(pairs, key=lambda pair: pair[1].train_loss - pair[0].train_loss)


def _train_loss(point: CurvePoint) -> float:
    return point.train_loss


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")

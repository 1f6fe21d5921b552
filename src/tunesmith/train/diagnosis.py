"""What a learning curve says, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.records import CurvePoint

__all__ = ["diagnose"]

_RISE = 1.02
"""A validation loss this much above its best is a rise and not noise."""


def diagnose(curve: Sequence[CurvePoint], *, best_step: int) -> tuple[str, ...]:
    """Warnings about a finished run: overfitting, nothing learned, no validation rows.

    Args:
        curve: measurements in the order of steps.
        best_step: the step whose weights were kept.
    """
    measured = [point for point in curve if point.validation_loss is not None]
    if not measured:
        return ("no validation rows: the last weights were kept, and overfitting would go unseen (data.split.validation)",)
    warnings = []
    best = min(point.validation_loss or 0.0 for point in measured)
    last = measured[-1]
    train_fell = last.train_loss < measured[0].train_loss
    if last.validation_loss is not None and last.validation_loss > best * _RISE and train_fell:
        warnings.append(
            f"overfitting after step {best_step}: the validation loss rose from {best:.3f} to {last.validation_loss:.3f} "
            f"while the training loss went on falling. The weights of step {best_step} were kept; fewer epochs would do"
        )
    if len(measured) > 1 and not train_fell:
        warnings.append(
            f"the training loss did not fall ({measured[0].train_loss:.3f} to {last.train_loss:.3f}): "
            "try another train.learning_rate"
        )
    return tuple(warnings)

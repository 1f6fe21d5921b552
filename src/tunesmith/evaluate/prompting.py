"""Prompt or fine-tune: the trained arm beside the best of the prompts, paired on the same rows.

The best prompt is chosen on the very test rows, which flatters it: what is then said to beat it does so all the more surely. One metric
is compared, chosen beforehand by `reading.leading`, so its p value needs no correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.comparison import compare
from tunesmith.evaluate.metric import Statistics
from tunesmith.evaluate.reading import leading, reading_of

__all__ = ["beside_prompts"]

_OF_DIFFERENCE = ("value", "low", "high", "p_value", "detectable")


def beside_prompts(
    measured: Mapping[str, Mapping[str, Statistics]],
    *,
    subject: str,
    prompted: Sequence[str],
    clusters: NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    """Compare the subject with the best prompted arm.

    Args:
        measured: arm -> metric -> statistics.
        subject: the trained arm.
        prompted: names of the arms that stand for prompting.
        clusters: shape (R,), the cluster of each row.
        seed: of resampling.

    Returns:
        `{"prompting": {"arm", "metric", "value", "subject", "difference"}}` in plain values; empty where there is nothing to compare.
    """
    rivals = [arm for arm in prompted if arm in measured and arm != subject]
    shared = [metric for metric in measured.get(subject, {}) if any(metric in measured[arm] for arm in rivals)]
    metric = leading(shared)
    if metric is None:
        return {}
    rows = {arm: {metric: measured[arm][metric]} for arm in (subject, *rivals) if metric in measured[arm]}
    values = {
        arm: figures[metric].value for arm, figures in compare(rows, clusters=clusters, seed=seed).scores.items() if figures
    }
    sign = -1.0 if reading_of(metric).lower_is_better else 1.0
    finite = {arm: value for arm, value in values.items() if math.isfinite(value)}
    if subject not in finite or len(finite) < 2:
        return {}
    best = max((arm for arm in finite if arm != subject), key=lambda arm: sign * finite[arm])
    pair = {arm: rows[arm] for arm in (best, subject)}
    found = compare(pair, clusters=clusters, seed=seed, baseline=best, corrects=False).differences[subject].get(metric)
    if found is None:
        return {}
    difference = {name: getattr(found, name) for name in _OF_DIFFERENCE}
    if any(number is not None and not math.isfinite(number) for number in difference.values()):
        return {}
    return {
        "prompting": {
            "arm": best,
            "metric": metric,
            "value": finite[best],
            "subject": finite[subject],
            "difference": difference,
        }
    }

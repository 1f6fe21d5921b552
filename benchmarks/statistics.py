"""How often our comparison of two systems is wrong, and how much it sees: `python -m benchmarks.statistics [--json]`.

False alarms: two systems that are equally good answer clustered test rows (rows of a cluster are nearly the same question, so both tend
to be right or wrong on all of them); the share of tries in which a difference is called significant at 5 %. Power: one system is better
by five points on paired rows; the share of tries in which that is seen. Beside ours stand what people use: a test that takes rows for
independent, and one that does not pair them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluate.comparison import compare
from tunesmith.evaluate.metric import mean_statistics

Hits = NDArray[np.bool_]
_ALPHA = 0.05
_RIGHT = 0.6
_BROKEN = 0.2


def main() -> None:
    """One JSON object or a line on stdout, progress on stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(tries=options.tries, seed=options.seed)
    print(json.dumps(result, indent=2) if options.json else " · ".join(f"{key} {value}" for key, value in result.items()))


def measure(*, tries: int, seed: int) -> dict[str, float | int]:
    """Shares of tries in which a difference is called significant."""
    rng = np.random.default_rng(seed)
    false_alarms = {"ours": 0, "naive": 0, "interval": 0}
    power = {"ours": 0, "unpaired": 0, "interval": 0}
    for number in range(tries):
        clusters = np.repeat(np.arange(50), 10)
        base, tuned = clustered_pair(rng, num_clusters=50, size=10)
        p_value, excludes_zero = _ours(base, tuned, clusters=clusters, seed=number)
        false_alarms["ours"] += p_value < _ALPHA
        false_alarms["interval"] += excludes_zero
        false_alarms["naive"] += _paired_z(base, tuned) < _ALPHA
        base, tuned = improved_pair(rng, num_rows=300, gain=0.05)
        p_value, excludes_zero = _ours(base, tuned, clusters=np.arange(300), seed=number)
        power["ours"] += p_value < _ALPHA
        power["interval"] += excludes_zero
        power["unpaired"] += _unpaired_z(base, tuned) < _ALPHA
        if (number + 1) % 100 == 0:
            print(f"{number + 1:,} of {tries:,} tries", file=sys.stderr, flush=True)
    return {
        "tries": tries,
        "false_alarms": false_alarms["ours"] / tries,
        "false_alarms_interval": false_alarms["interval"] / tries,
        "false_alarms_rows_taken_for_independent": false_alarms["naive"] / tries,
        "power": power["ours"] / tries,
        "power_interval": power["interval"] / tries,
        "power_unpaired": power["unpaired"] / tries,
    }


def clustered_pair(rng: np.random.Generator, *, num_clusters: int, size: int) -> tuple[Hits, Hits]:
    """Two systems, equally good: each knows half of the clusters, and is right on 85 % of their rows, 15 % of others (ICC 0.49)."""
    systems = []
    for _ in range(2):
        knows = rng.random(num_clusters) < 0.5
        rate = np.repeat(np.where(knows, 0.85, 0.15), size)
        systems.append(rng.random(len(rate)) < rate)
    return systems[0], systems[1]


def improved_pair(rng: np.random.Generator, *, num_rows: int, gain: float) -> tuple[Hits, Hits]:
    """A system, and the same after tuning: better by `gain` on average, changed on few rows only, as after a fine-tune."""
    base = rng.random(num_rows) < _RIGHT
    # For five rows that are mended one is broken: on average `gain` more are right.
    mended, broken = gain / (1 - _BROKEN), gain * _BROKEN / (1 - _BROKEN)
    change = rng.random(num_rows)
    tuned = np.where(base, change >= broken / _RIGHT, change < mended / (1 - _RIGHT))
    return base, tuned


def _ours(base: Hits, tuned: Hits, *, clusters: NDArray[np.int64], seed: int) -> tuple[float, bool]:
    measured = {
        name: {"right": mean_statistics(list(hits.astype(float)), signature="")}
        for name, hits in (("base", base), ("tuned", tuned))
    }
    score = compare(measured, clusters=clusters, seed=seed, baseline="base").differences["tuned"]["right"]
    excludes_zero = score.low is not None and score.high is not None and not score.low <= 0 <= score.high
    return score.p_value if score.p_value is not None else 1.0, excludes_zero


def _paired_z(base: Hits, tuned: Hits) -> float:
    change = tuned.astype(float) - base.astype(float)
    return _two_sided(change.mean(), change.std(ddof=1) / math.sqrt(len(change)))


def _unpaired_z(base: Hits, tuned: Hits) -> float:
    spread = sum(hits.mean() * (1 - hits.mean()) / len(hits) for hits in (base, tuned))
    return _two_sided(tuned.mean() - base.mean(), math.sqrt(spread))


def _two_sided(value: float, spread: float) -> float:
    return math.erfc(abs(value) / spread / math.sqrt(2)) if spread else 1.0


if __name__ == "__main__":
    main()

"""From runs to the figures that are printed: medians, ratios, and the share of the machine's peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from benchmarks.training.settings import LORA, OURS, SIDES

__all__ = ["side_summary", "summarise", "table", "useful_flops"]

_Run = Mapping[str, Any]


def summarise(runs: Sequence[_Run], *, errors: Mapping[str, str], names: Sequence[str]) -> dict[str, Any]:
    """Sides and ratios. A ratio is a peer's wall seconds by ours, medians over seeds; above 1 we are faster."""
    own = {name: [run for run in runs if run["side"] == name and run["allocator"] == "own"] for name in names}
    sides = {name: side_summary(own[name]) if own[name] else {} for name in names}
    for name, reason in errors.items():
        sides[name] = {**sides.get(name, {}), "error": reason}
    ours, peers = sides[OURS], {name: side for name, side in sides.items() if name != OURS}
    shared = _shared_allocators(runs)
    return {
        "ratio_best_tuned": _ratio(best := _best_tuned(peers), peers, ours),
        "best_tuned": best,
        "ratio_trl_default": _ratio("trl_default", peers, ours),
        "ratio_same_allocator": min((column["ratio"] for column in shared.values() if column["ratio"]), default=None),
        "same_allocator": shared,
        "ours": ours,
        "peers": peers,
        "held_out": ours.get("held_out"),
    }


def side_summary(runs: Sequence[_Run]) -> dict[str, Any]:
    """One side's runs with one allocator."""
    wall_seconds = median(run["wall_s"] for run in runs)
    return {
        "wall_seconds": wall_seconds,
        "supervised_tokens_per_s": median(run["supervised"] / run["wall_s"] for run in runs),
        "steady_supervised_tokens_per_s": median(_steady(run) for run in runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
        "held_out": mean(run["held_out"] for run in runs),
        "held_out_by_seed": [run["held_out"] for run in runs],
        "wall_seconds_by_seed": [run["wall_s"] for run in runs],
        "supervised_tokens": runs[0]["supervised"],
        "steps": runs[0]["num_steps"],
        "foreign_share": max(run["foreign_share"] for run in runs),
    }


def useful_flops(shape: Mapping[str, int], *, lengths: Sequence[int], supervised: int, method: str) -> float:
    """Floating-point operations that one training pass over rows cannot do without.

    Linear layers: 2 per weight and token forward, 2 for the gradient of the input, 2 for that of the weight where it is trained.
    Attention: the causal half only. The head: supervised positions only.
    """
    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    products = [(hidden, hidden)] * 2 + [(hidden, kv)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]
    per_weight = 4 if method == "lora" else 6
    per_token = per_weight * sum(m * n for m, n in products)
    if method == "lora":
        per_token += 6 * LORA["rank"] * sum(m + n for m, n in products)
    attention = sum(6 * length**2 * hidden for length in lengths)
    return float(layers * (per_token * sum(lengths) + attention) + per_weight * hidden * shape["vocab_size"] * supervised)


def peak_share(runs: Sequence[_Run], *, flops: float, peak_tflops: float) -> float | None:
    """Share of the measured peak that our side reaches after its first step."""
    own = [run for run in runs if run["side"] == OURS and run["allocator"] == "own" and run["steady_s"]]
    if not own:
        return None
    return median(flops * (run["num_steps"] - 1) / run["num_steps"] / run["steady_s"] for run in own) / (peak_tflops * 1e12)


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    lines = [
        f"{'':<24}{'wall s':>8}{'ratio':>7}{'sup. tok/s':>12}{'steady':>9}{'peak MB':>9}{'held-out':>10}{'steps':>7}{'others':>8}",
    ]
    columns = {"": {OURS: result["ours"], **result["peers"]}} | {
        f" + {name}": column["sides"] for name, column in result["same_allocator"].items()
    }
    for suffix, sides in columns.items():
        reference = sides.get(OURS, {}).get("wall_seconds")
        for name, side in sides.items():
            if "wall_seconds" not in side:
                lines.append(f"{name + suffix:<24}{side.get('error', 'no run')[:90]}")
                continue
            ratio = f"{side['wall_seconds'] / reference:.2f}" if reference else ""
            lines.append(
                f"{name + suffix:<24}{side['wall_seconds']:>8.1f}{ratio:>7}{side['supervised_tokens_per_s']:>12,.0f}"
                f"{side['steady_supervised_tokens_per_s']:>9,.0f}{side['peak_mb']:>9,.0f}{side['held_out']:>10.3f}{side['steps']:>7}"
                f"{side['foreign_share']:>8.0%}"
            )
    return "\n".join(lines)


def _steady(run: _Run) -> float:
    """After the first step, start-up and first allocations left aside."""
    return run["supervised"] * (run["num_steps"] - 1) / run["num_steps"] / run["steady_s"] if run["steady_s"] else 0.0


def _best_tuned(peers: Mapping[str, Mapping[str, Any]]) -> str | None:
    tuned = {name: side["wall_seconds"] for name, side in peers.items() if SIDES[name].is_tuned and "wall_seconds" in side}
    return min(tuned, key=lambda name: tuned[name], default=None)


def _ratio(peer: str | None, peers: Mapping[str, Mapping[str, Any]], ours: Mapping[str, Any]) -> float | None:
    theirs = peers.get(peer or "", {}).get("wall_seconds")
    return theirs / ours["wall_seconds"] if theirs and ours.get("wall_seconds") else None


def _shared_allocators(runs: Sequence[_Run]) -> dict[str, dict[str, Any]]:
    """For each allocator that all sides were given: its sides and the best tuned peer's ratio."""
    columns = {}
    for allocator in dict.fromkeys(run["allocator"] for run in runs if run["allocator"] != "own"):
        names = dict.fromkeys(run["side"] for run in runs if run["allocator"] == allocator)
        sides = {
            name: side_summary([run for run in runs if run["allocator"] == allocator and run["side"] == name]) for name in names
        }
        peers = {name: side for name, side in sides.items() if name != OURS}
        best = _best_tuned(peers)
        columns[allocator] = {"ratio": _ratio(best, peers, sides.get(OURS, {})), "best_tuned": best, "sides": sides}
    return columns

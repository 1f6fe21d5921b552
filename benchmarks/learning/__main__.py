"""Compare what is learned with a plain transformers loop: `python -m benchmarks.learning [--sets bitext] [--methods lora] [--json]`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.sets import SETS, read_set
from benchmarks.learning.task import STEP_TOKENS, Task, make_task
from benchmarks.options import names, positive, seed
from benchmarks.training.rows import DATA, ROOT
from benchmarks.training.running import (
    QUIET,
    RunFailed,
    environment,
    held_out_loss,
    machine,
    our_path,
    say,
    time_side,
    usable_cores,
)
from benchmarks.training.settings import LEARNING_RATES, LORA
from tunesmith.model import open_base
from tunesmith.model.base import EMBEDDED

METHODS = ("lora", "full")
_FOLDER = ROOT / "benchmarks" / "training" / "sides"
SIDES = {"ours": [str(_FOLDER / "side_tunesmith.py")], "plain": ["-m", "benchmarks.learning.plain"]}


def main() -> None:
    """Run the comparison; one JSON object or a table on stdout, everything else on stderr."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    runs: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="tunesmith-learning-") as place:
            for name in options.sets:
                for run in _compare_on(name, options=options, folder=Path(place) / name):
                    runs.append({"set": name, **run})
    except KeyboardInterrupt:
        say("\nInterrupted. These were finished:")
        say(table(runs))
        sys.exit(130)
    except RunFailed as error:
        sys.exit(str(error))
    if (worst := max(run[side]["foreign_share"] for run in runs for side in SIDES)) > QUIET:
        say(f"others used up to {worst:.0%} of this machine: do not trust these times; run again when it is quiet")
    result = {"runs": runs, "seed": options.seed, "machine": {**machine(), "threads": usable_cores()}}
    print(json.dumps(result, indent=2) if options.json else table(runs))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--sets", type=names(SETS), default=list(SETS), help=f"of {','.join(SETS)}")
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS), help=f"of {','.join(METHODS)}")
    parser.add_argument("--steps", type=positive, default=120, help=f"optimiser steps of about {STEP_TOKENS:,} tokens")
    parser.add_argument("--rows", type=positive, help="training rows, instead of as many as fill the steps")
    parser.add_argument("--seed", type=seed, default=0, help="of the order of rows and the adapter's first weights")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the development data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def _compare_on(name: str, *, options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Choose the set's rows, let both sides read their libraries from disk, and compare."""
    train, held_out = read_set(name, data=options.data)
    base = open_base(EMBEDDED, folder=Path(), cache=Path()).path
    num_tokens = options.steps * STEP_TOKENS
    task = make_task(train, held_out, base=base, folder=folder, num_tokens=num_tokens, num_rows=options.rows)
    say(
        f"{name}: {task.num_rows} rows · {task.num_tokens:,} tokens, {task.num_supervised:,} of them answers · "
        f"{task.num_too_long} of {len(train) + len(held_out)} rows are longer than {task.max_length} tokens and left out"
    )
    warm_up = make_task(train, held_out, base=base, folder=folder / "warm-up", num_rows=8)
    for side in SIDES:
        _train(side, warm_up, method="lora", seed=0, threads=usable_cores())
    yield from compare(task, methods=options.methods, seed=options.seed)


def compare(task: Task, *, methods: Sequence[str], seed: int, threads: int | None = None) -> Iterator[dict[str, Any]]:
    """Both sides with each method, each in a fresh process, and what the evaluator says of what they saved.

    Raises:
        SystemExit: the sides did not train the same targets.
    """
    before = _held_out(task, task.base)
    for number, method in enumerate(methods):
        order = list(SIDES) if (number + seed) % 2 == 0 else list(reversed(SIDES))
        sides = {side: _run(side, task, method=method, seed=seed, threads=threads or usable_cores()) for side in order}
        counts = {"the rows have": task.num_supervised, **{f"{side} trained": run["supervised"] for side, run in sides.items()}}
        if len(set(counts.values())) > 1:
            raise SystemExit(f"not the same supervised tokens: {', '.join(f'{what} {count}' for what, count in counts.items())}")
        facts = {
            "rows": task.num_rows,
            "tokens": task.num_tokens,
            "supervised": task.num_supervised,
            "too_long": task.num_too_long,
        }
        yield {"method": method, **facts, "before": before, **sides}


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """For people: nats per supervised token of the held-out rows, and seconds from the start of a process to what it saved."""
    lines = [f"{'':<20}{'before':>9}{'ours':>9}{'plain':>9}{'ours s':>10}{'plain s':>9}{'ratio':>7}{'steps':>12}{'targets':>10}"]
    for run in runs:
        ours, plain = run["ours"], run["plain"]
        lines.append(
            f"{run['set'] + ' ' + run['method']:<20}{run['before']:>9.3f}{ours['held_out']:>9.3f}{plain['held_out']:>9.3f}"
            f"{ours['wall_s']:>10.1f}{plain['wall_s']:>9.1f}{plain['wall_s'] / ours['wall_s']:>7.2f}"
            f"{ours['num_steps']:>6} {plain['num_steps']:>5}{run['supervised']:>10,}"
        )
    return "\n".join(lines)


def _run(side: str, task: Task, *, method: str, seed: int, threads: int) -> dict[str, Any]:
    run = _train(side, task, method=method, seed=seed, threads=threads)
    say(f"{method} · {side} {run['wall_s']:.1f} s · held-out {run['held_out']:.3f} · others used {run['foreign_share']:.0%}")
    return run


def _train(side: str, task: Task, *, method: str, seed: int, threads: int) -> dict[str, Any]:
    """Train in a fresh process, then judge what it saved."""
    with tempfile.TemporaryDirectory(dir=task.folder) as place:
        folder = Path(place)
        orders = {
            "model": str(task.base),
            "rows": str(task.rows),
            "out": str(folder / "out"),
            "scratch": str(folder),
            "report": str(folder / "report.json"),
            "lora": LORA if method == "lora" else None,
            "learn": "answers",
            "learning_rate": LEARNING_RATES[method],
            "max_length": task.max_length,
            "step_tokens": STEP_TOKENS,
            "seed": seed,
            "settings": {"batch_tokens": STEP_TOKENS, "compute": {"precision": "fp32"}},
        }
        env = environment(
            threads=threads, cache=folder / "hub", extra=our_path() if side == "ours" else {"PYTHONPATH": str(ROOT)}
        )
        run = time_side([sys.executable, *SIDES[side]], orders, env=env, log=folder / "log.txt")
        kept = ("wall_s", "steady_s", "cpu_s", "num_steps", "supervised", "foreign_share")
        return {**{key: run[key] for key in kept}, "held_out": _held_out(task, folder / "out")}


def _held_out(task: Task, saved: Path) -> float:
    return held_out_loss(saved, base=task.base, rows=task.held_out, learn="answers", scratch=task.folder)


if __name__ == "__main__":
    main()

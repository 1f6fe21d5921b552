"""Compare training with the peers: `python -m benchmarks.training --size S --method lora --seeds 1 [--json]`."""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.options import names, positive
from benchmarks.training.comparison import Comparison, clear, find_tcmalloc, plan
from benchmarks.training.running import QUIET, environment, machine, measure, say, usable_cores
from benchmarks.training.settings import ALLOCATORS, LEARNING_RATES, STEPS, sides_of
from benchmarks.training.summary import peak_share, summarise, table, useful_flops
from benchmarks.training.task import SHAPES, Task, make_task
from benchmarks.training.venvs import PEERS


def main() -> None:
    """Run the comparison; one JSON object or a table on stdout, everything else on stderr."""
    options = parse(sys.argv[1:])
    options.cache.mkdir(parents=True, exist_ok=True)
    lock = (options.cache / "lock").open("w")  # held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another comparison is running in {options.cache}; wait for it, or name another folder with --cache")
    clear(options.cache)
    results = options.cache / f"results-{options.size}-{options.method}.jsonl"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = compare(options, results=results)
    except KeyboardInterrupt:
        say(f"\nInterrupted. Finished runs are in {results}; the same command with --resume goes on from there.")
        sys.exit(130)
    finally:
        clear(options.cache)
    print(json.dumps(result, indent=2) if options.json else _page(result))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--size", choices=sorted(SHAPES), default="S", help="S: 8.4 M parameters. M: 135 M")
    parser.add_argument("--method", choices=sorted(LEARNING_RATES), default="lora", help="scratch learns every token")
    parser.add_argument("--seeds", type=positive, default=1, help="runs of each side")
    parser.add_argument("--steps", type=positive, help="optimiser steps of about 1,024 tokens (S: 96, M: 12)")
    parser.add_argument("--peers", type=names(PEERS), default=list(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--allocators", type=names(ALLOCATORS), default=["own", "glibc"], help=f"of {','.join(ALLOCATORS)}")
    parser.add_argument("--rows", type=Path, help="a JSONL file with `messages`; default: made from the project's own data")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "tunesmith-bench", help="environments, results")
    parser.add_argument("--resume", action="store_true", help="keep the finished runs of an interrupted comparison")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    options.cache = options.cache.expanduser().resolve()
    options.steps = options.steps or STEPS[options.size]
    return options


def compare(options: argparse.Namespace, *, results: Path) -> dict[str, Any]:
    """Everything, in order: the task, the machine's peak, the environments, the runs, the peak again."""
    task = make_task(options.size, steps=options.steps, rows=options.rows, cache=options.cache)
    say(f"{task.num_rows} rows · {task.num_tokens:,} tokens, {task.num_supervised:,} of them answers · {options.steps} steps")
    before = measure_peak(task, cache=options.cache)
    comparison = Comparison(
        task=task,
        method=options.method,
        number_format=faster_format(before),
        sides=sides_of(options.peers),
        cache=options.cache,
        results=results,
    )
    comparison.build_environments()
    allocators = [name for name in ALLOCATORS if name in {"own", *options.allocators}]
    if "tcmalloc" in allocators and find_tcmalloc() is None:
        say("tcmalloc is not installed here (Debian: libtcmalloc-minimal4); that column is left out")
        allocators.remove("tcmalloc")
    runs = comparison.run(plan(comparison.sides, allocators=allocators, seeds=options.seeds), resume=options.resume)
    after = measure_peak(task, cache=options.cache)
    if (worst := max((run["foreign_share"] for run in runs), default=0.0)) > QUIET:
        say(f"others used up to {worst:.0%} of this machine: do not trust these times; run again when it is quiet")
    peak = {name: {kind: max(value, after[name][kind]) for kind, value in kinds.items()} for name, kinds in before.items()}
    return {
        "size": options.size,
        "method": options.method,
        "seeds": options.seeds,
        **summarise(runs, errors=comparison.errors, names=list(comparison.sides)),
        "held_out_before_training": comparison.base_loss(),
        **_share(runs, task=task, method=options.method, peak=peak),
        "machine": {**machine(), "threads": comparison.threads, "matrix_peak_tflops": peak},
        "task": {
            "rows": task.num_rows,
            "tokens": task.num_tokens,
            "supervised_tokens": task.num_supervised,
            "steps": options.steps,
        },
        "load": {run["side"] + " " + run["allocator"] + f" {run['seed']}": round(run["foreign_share"], 3) for run in runs},
    }


def measure_peak(task: Task, *, cache: Path) -> dict[str, dict[str, float]]:
    """TFLOP/s by number format, in a process of its own."""
    say("measuring the machine's matrix peak ...")
    with tempfile.TemporaryDirectory(dir=cache, prefix="score-") as place:
        shape, out = Path(place) / "shape.json", Path(place) / "out.txt"
        shape.write_text(json.dumps(SHAPES[task.size]))
        command = [sys.executable, str(Path(__file__).with_name("peak.py")), str(shape)]
        measure(command, env=environment(threads=usable_cores(), cache=cache, extra={}), log=out)
        peak: dict[str, dict[str, float]] = json.loads(out.read_text().splitlines()[-1])
    return peak


def faster_format(peak: dict[str, dict[str, float]]) -> str:
    """The number format that every tuned side is told to compute in: bf16 only where the machine has units for it."""
    return "bfloat16" if peak["bfloat16"]["own_shapes"] > 1.5 * peak["float32"]["own_shapes"] else "float32"


def _share(runs: list[dict[str, Any]], *, task: Task, method: str, peak: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Our share of the peak at the model's own shapes, in the format that our side used."""
    used = next((run["number_format"] for run in runs if run["side"] == "tunesmith"), "float32")
    supervised = task.num_tokens if method == "scratch" else task.num_supervised
    flops = useful_flops(SHAPES[task.size], lengths=task.lengths, supervised=supervised, method=method)
    return {"peak_share": peak_share(runs, flops=flops, peak_tflops=peak[used]["own_shapes"]), "number_format": used}


def _page(result: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return "none" if value is None else f"{value:.2f}"

    share = result["peak_share"]
    return (
        f"{table(result)}\n\n"
        f"best tuned peer ({result['best_tuned']}) / ours {number(result['ratio_best_tuned'])} · "
        f"same allocator {number(result['ratio_same_allocator'])} · TRL's defaults {number(result['ratio_trl_default'])} · "
        f"{number(share)} of the matrix peak ({result['number_format']}, the model's own shapes)"
    )


if __name__ == "__main__":
    main()

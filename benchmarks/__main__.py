"""Run every benchmark: `python -m benchmarks [--json]`."""

from __future__ import annotations

import json
import sys

from benchmarks import check_rows, rouge, startup


def main() -> None:
    """Print one line for each benchmark, or one JSON object."""
    results = {}
    for benchmark in (startup, check_rows, rouge):
        name = benchmark.__name__.removeprefix("benchmarks.")
        results[name] = benchmark.measure()
        if "--json" not in sys.argv:
            print(f"{name:<12} " + " · ".join(f"{key} {value:.3g}" for key, value in results[name].items()), flush=True)
    if "--json" in sys.argv:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

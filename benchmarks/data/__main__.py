"""From files to a frozen snapshot, beside datatrove: `python -m benchmarks.data --rows N [--json]`.

Both sides read the same JSON lines, drop rows shorter than 20 characters, find near-duplicates by MinHash and write what is left, on all
cores. datatrove does no more; ours also recognises the format, checks each row, verifies every pair by its true Jaccard similarity,
splits without leakage, and publishes hashed files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tunesmith
from benchmarks.data.rows import NUM_FILES, write_rows
from benchmarks.training.running import environment, measure

_REQUIREMENTS = ("datatrove[processing]==0.10.1", "spacy==3.8.18", "orjson==3.13.0")
_HERE = Path(__file__).parent


def main() -> None:
    """One JSON object or a line on stdout, progress on stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--without-peer", action="store_true", help="our side alone")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "tunesmith-bench")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    result = compare(num_rows=options.rows, cache=options.cache, with_peer=not options.without_peer)
    print(json.dumps(result, indent=2) if options.json else " · ".join(f"{key} {value}" for key, value in result.items()))


def compare(*, num_rows: int, cache: Path, with_peer: bool = True) -> dict[str, Any]:
    """Run both sides once, ours first, on rows made anew."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="data-") as place:
        folder = Path(place)
        _say(f"writing {num_rows:,} rows ...")
        write_rows(folder / "rows", num_rows=num_rows)
        ours = _run(Path(sys.executable), "side_tunesmith.py", folder=folder, cache=cache)
        peer = _run(_build(cache), "side_datatrove.py", folder=folder, cache=cache) if with_peer else None
    result = {
        "rows": num_rows,
        "rows_per_s": round(num_rows / ours["seconds"], 1),
        "peak_mb": round(ours["peak_mb"]),
        "seconds": round(ours["seconds"], 1),
        "kept": ours["kept"],
        "foreign_share": round(ours["foreign_share"], 3),
    }
    if peer is not None:
        result |= {
            "ratio_datatrove": round(peer["seconds"] / ours["seconds"], 2),
            "datatrove_seconds": round(peer["seconds"], 1),
            "datatrove_kept": peer["kept"],
        }
    return result


def _run(python: Path, script: str, *, folder: Path, cache: Path) -> dict[str, Any]:
    _say(f"{script} ...")
    work = folder / script
    work.mkdir()
    orders = {
        "rows": str(folder / "rows"),
        "work": str(work),
        "out": str(work / "out"),
        "num_files": NUM_FILES,
        "cores": _cores(),
    }
    (work / "orders.json").write_text(json.dumps(orders))
    extra = {"PYTHONPATH": str(Path(tunesmith.__file__).parents[1])} if python == Path(sys.executable) else {}
    start = time.monotonic()
    measured = measure(
        [str(python), str(_HERE / script), str(work / "orders.json")],
        env=environment(threads=_cores(), cache=cache, extra=extra),
        log=work / "log.txt",
    )
    seconds = time.monotonic() - start
    kept = json.loads((work / "log.txt").read_text().splitlines()[-1])["kept"] if extra else _count_lines(work / "out")
    shutil.rmtree(work, ignore_errors=True)
    return {"seconds": seconds, "peak_mb": measured.peak_mb, "foreign_share": measured.foreign_share, "kept": kept}


def _build(cache: Path) -> Path:
    """The Python of an environment with datatrove, made once."""
    folder = cache / "datatrove"
    done = folder / "built.json"
    if not done.is_file() or json.loads(done.read_text()) != list(_REQUIREMENTS):
        _say(f"building {folder} (minutes, once)")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *_REQUIREMENTS], check=True)
        done.write_text(json.dumps(list(_REQUIREMENTS)))
    return folder / "bin" / "python"


def _count_lines(folder: Path) -> int:
    return sum(sum(1 for _ in path.open("rb")) for path in folder.rglob("*.jsonl"))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

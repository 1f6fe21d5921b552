"""Make the embedded base from nothing, with tunesmith's own commands; kill it anywhere and call it again, and it goes on.

    python recipes/base/make.py --workspace W                    # the one in the package
    python recipes/base/make.py --workspace W --size medium      # the same recipe, larger, for a GPU; goes nowhere but the workspace

The data sets lie beside the repository, in `shared/data`, for developers only.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DATA = ROOT.parent / "shared" / "data"
BUILD = ROOT / "build" / "base"

DIVIDED = (
    "translation/tatoeba_en_fr",
    "classification/banking77",
    "classification/sentence_polarity",
    "summarization/scitldr",
)
"""Sets that the base is judged on: only their training parts are read."""

SIZES = {
    "small": {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_layers": 5,
        "num_heads": 6,
        "num_kv_heads": 2,
        "vocab_size": 8192,
    },
    "medium": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_layers": 10,
        "num_heads": 8,
        "num_kv_heads": 2,
        "vocab_size": 12288,
    },
    "large": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_layers": 14,
        "num_heads": 12,
        "num_kv_heads": 4,
        "vocab_size": 16384,
    },
}
"""The one dial. `small` is what the recipe itself says."""

SITTINGS = 2
"""How often the first stage is run, each time from where it ended and in another order of rows; on two cores about 45 minutes each."""


def main() -> None:
    """Divide, pre-train in sittings, mid-train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--sittings", type=int, default=SITTINGS, help="how often the first stage goes on from where it ended")
    chosen = parser.parse_args()
    for name in DIVIDED:
        if not (BUILD / Path(name).name / "test.jsonl").is_file():
            shares = ("--validation", "0.05", "--test", "0.1")
            tunesmith("data", "split", str(DATA / f"{name}.jsonl.gz"), "--out", str(BUILD / Path(name).name), *shares)
    dial = settings(chosen.size)
    suffix = "" if chosen.size == "small" else f"-{chosen.size}"
    names = {stage: f"base-{stage}{suffix}" for stage in ("pretrain", "midtrain")}
    workspace = ("--workspace", str(chosen.workspace))
    rate = {"train.learning_rate": dial["train.learning_rate"]}
    tunesmith("run", str(HERE / "pretrain.yaml"), *workspace, *sets(name=names["pretrain"], **dial))
    for sitting in range(1, chosen.sittings):
        goes_on = sets(name=names["pretrain"], base=f"{names['pretrain']}@{sitting}", **{"train.seed": sitting}, **rate)
        tunesmith("run", str(HERE / "pretrain.yaml"), *workspace, *goes_on)
    midtrain = sets(name=names["midtrain"], base=f"{names['pretrain']}@{chosen.sittings}", **rate)
    tunesmith("run", str(HERE / "midtrain.yaml"), *workspace, *midtrain)


def settings(size: str) -> dict[str, object]:
    """What a size changes in the first recipe: the shape, and a rate that falls with the square root of the width."""
    rate = 3e-3 * math.sqrt(SIZES["small"]["hidden_size"] / SIZES[size]["hidden_size"])
    return {f"base.{key}": value for key, value in SIZES[size].items()} | {"train.learning_rate": round(rate, 6)}


def sets(**values: object) -> list[str]:
    """Options of the command line."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def tunesmith(*arguments: str) -> None:
    """One command, in a process of its own."""
    finished = subprocess.run([sys.executable, "-m", "tunesmith", *arguments], check=False)  # noqa: S603  our own command
    if finished.returncode:
        sys.exit(finished.returncode)


if __name__ == "__main__":
    main()

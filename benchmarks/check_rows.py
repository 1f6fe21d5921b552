"""How long `tunesmith check` takes on 100,000 rows, against its limit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 30.0
NUM_ROWS = 100_000
_WORDS = [
    "the",
    "shop",
    "is",
    "open",
    "until",
    "seven",
    "on",
    "monday",
    "and",
    "you",
    "can",
    "bring",
    "back",
    "a",
    "dress",
    "or",
    "shirt",
    "with",
    "its",
    "receipt",
    "within",
    "thirty",
    "days",
]


def measure() -> dict[str, float]:
    """One run of `check`, everything from process start to the printed screen."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        draw = random.Random(0)
        with rows.open("w") as out:
            for i in range(NUM_ROWS):
                turns = [f"{' '.join(draw.choices(_WORDS, k=12))} {i}?", " ".join(draw.choices(_WORDS, k=24))]
                messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), turns, strict=True)]
                out.write(json.dumps({"messages": messages}) + "\n")
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text("name: big\nbase: tunesmith/base\ndata: {sources: [{path: rows.jsonl}]}\n")
        start = time.perf_counter()
        command = [sys.executable, "-m", "tunesmith", "check", str(recipe), "--workspace", str(Path(folder) / "w"), "--json"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - start
    return {"rows": NUM_ROWS, "check_s": seconds, "share_of_limit": seconds / LIMIT_S}

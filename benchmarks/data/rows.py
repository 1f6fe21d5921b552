"""Rows for the data benchmark: real questions and answers, varied until there are enough, some of them planted near-duplicates."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NUM_FILES", "write_rows"]

NUM_FILES = 2
"""One for each core here: the peer works on whole files."""
_PLANTED = 0.05
"""Share of rows that are an earlier row with one word changed."""
_SHARED = Path(__file__).parents[3] / "shared" / "data"
_SETS = {
    "retail/bitext_customer_support": ("instruction", "response"),
    "instruct/gsm8k": ("question", "answer"),
    "instruct/t0_p3_permissive": ("prompt", "completion"),
}


def write_rows(folder: Path, *, num_rows: int, seed: int = 0) -> list[Path]:
    """Write rows as prompt/completion lines, the same for the same number and seed."""
    draw = random.Random(seed)
    real = list(_real_rows())
    words = sorted({word for question, answer in real for word in (question + " " + answer).split() if word.isalpha()})
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"rows-{number}.jsonl" for number in range(NUM_FILES)]
    per_file = -(-num_rows // NUM_FILES)
    for number, path in enumerate(paths):
        last: tuple[str, str] | None = None
        with path.open("w") as out:
            for _ in range(min(per_file, num_rows - number * per_file)):
                is_planted = last is not None and draw.random() < _PLANTED
                row = _changed(last, words, draw) if last is not None and is_planted else _varied(draw.choice(real), words, draw)
                last = row
                out.write(json.dumps({"prompt": row[0], "completion": row[1]}) + "\n")
    return paths


def _real_rows() -> Iterator[tuple[str, str]]:
    found = False
    for name, (asked, answered) in _SETS.items():
        path = _SHARED / f"{name}.jsonl.gz"
        if path.is_file():
            found = True
            with gzip.open(path, "rt") as lines:
                for line in lines:
                    row = json.loads(line)
                    yield row[asked], row[answered][:1500]
    if not found:
        path = Path(__file__).parents[2] / "examples" / "boutique" / "data"
        for file in sorted(path.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                messages = json.loads(line).get("messages", [])
                if len(messages) >= 2:
                    yield messages[-2]["content"], messages[-1]["content"]


def _varied(row: tuple[str, str], words: list[str], draw: random.Random) -> tuple[str, str]:
    """A third of the words become others, so that two rows made of one are no longer near-duplicates."""
    return _exchange(row[0], words, draw, share=1 / 3), _exchange(row[1], words, draw, share=1 / 3)


def _exchange(text: str, words: list[str], draw: random.Random, *, share: float) -> str:
    return " ".join(draw.choice(words) if draw.random() < share else word for word in text.split())


def _changed(row: tuple[str, str], words: list[str], draw: random.Random) -> tuple[str, str]:
    answer = row[1].split()
    answer[draw.randrange(len(answer))] = draw.choice(words)
    return row[0], " ".join(answer)

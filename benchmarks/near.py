"""Near-duplicates against brute force, and splits against leakage, on real rows: `python -m benchmarks.near [--json]`.

The data sets are those of the project's own shelf (`--data FOLDER`; left out, `../shared/data` beside the repository); a measurement
whose files are not there is left out. Brute force is sets of 5-grams in Python under the rule written in `tunesmith.data.shingles`,
joined through an inverted index of all grams, so every pair that shares one is compared.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tunesmith.data import SourceConfig, SplitConfig, read, split
from tunesmith.data.leakage import asked_of
from tunesmith.data.near import cluster, sketch
from tunesmith.records import Record

NUM_ROWS = 100_000
NUM_EDITED = 5_000
LIMIT_S = 20.0
THRESHOLD = 0.8
SPLIT_THRESHOLD = 0.7
_NUM_ASKED = 1_000
_SHELF = Path(__file__).resolve().parents[2] / "shared" / "data"


def measure(shelf: Path = _SHELF) -> dict[str, float]:
    """Recall, precision, seconds and leakage; empty where the data sets are not there."""
    measurements: tuple[Callable[[Path], dict[str, float]], ...] = (_small_sets, _planted_edits, _utterances, _splits)
    found: dict[str, float] = {}
    for measurement in measurements:
        found |= measurement(shelf)
    return found


def _small_sets(shelf: Path) -> dict[str, float]:
    """All pairs of two small sets: the demonstration of another tool, and the same articles at three reading levels."""
    found = {}
    for name in ("dirty/dedup_demo", "pretrain/onestop_english"):
        texts = _texts(shelf / f"{name}.jsonl.gz", "text")
        for threshold in (0.5, THRESHOLD) if texts else ():
            scores = _scores(texts, range(len(texts)), threshold=threshold)
            found |= {f"{name.split('/')[1]}_{threshold:g}_{key}": value for key, value in scores.items()}
    return found


def _planted_edits(shelf: Path) -> dict[str, float]:
    """Copies with one to three words changed, hidden among real rows; pairs of a sample are looked for by brute force."""
    texts: list[str] = []
    for path in sorted(shelf.glob("*/*.jsonl.gz")):
        if len(texts) >= NUM_ROWS or path.parent.name == "dirty":
            break
        texts = list(dict.fromkeys([*texts, *(text[:400] for text in _texts(path, "") if len(text.split()) >= 6)]))
    if not texts:
        return {}
    chance = random.Random(0)
    texts = texts[: NUM_ROWS - NUM_EDITED]
    words = [word for text in chance.sample(texts, 500) for word in text.split()]
    edited = []
    for text in chance.choices(texts, k=NUM_EDITED):
        parts = text.split()
        for _ in range(chance.randint(1, 3)):
            parts[chance.randrange(len(parts))] = chance.choice(words)
        edited.append(" ".join(parts))
    rows = [*texts, *edited]
    asked = [*chance.sample(range(len(texts)), _NUM_ASKED), *range(len(texts), len(texts) + _NUM_ASKED)]
    scores = _scores(rows, asked, threshold=THRESHOLD)
    return {"planted_rows": len(rows)} | {f"planted_{key}": value for key, value in scores.items()}


def _utterances(shelf: Path) -> dict[str, float]:
    texts = _texts(shelf / "classification/multidogo_intents.jsonl.gz", "utterance")
    if not texts:
        return {}
    texts = (texts * (NUM_ROWS // len(texts) + 1))[:NUM_ROWS]
    start = time.perf_counter()
    clusters = cluster(sketch(texts, threshold=THRESHOLD))
    seconds = time.perf_counter() - start
    kept = len(np.unique(clusters.first))
    return {"utterances": len(texts), "utterances_kept": kept, "utterances_s": seconds, "share_of_limit": seconds / LIMIT_S}


def _splits(shelf: Path) -> dict[str, float]:
    """Test rows with a near-duplicate among the training rows, by brute force over all of them."""
    found = {}
    for name in ("classification/banking77", "classification/sentence_polarity", "retail/bitext_customer_support"):
        path = shelf / f"{name}.jsonl.gz"
        if not path.exists():
            continue
        rows = [row for row in read(SourceConfig(path=path.name), folder=path.parent).rows if isinstance(row, Record)]
        shuffled = random.Random(0).sample(rows, len(rows))
        parts = split(rows, config=SplitConfig(), seed=0).parts
        tenth = len(rows) // 10
        short = name.split("/")[1]
        found[f"{short}_test_rows"] = len(parts["test"])
        found[f"{short}_leaked"] = _share_leaked(parts["test"], parts["train"])
        found[f"{short}_leaked_by_chance"] = _share_leaked(shuffled[:tenth], shuffled[2 * tenth :])
    return found


def _share_leaked(test: Sequence[Record], train: Sequence[Record]) -> float:
    texts = list(map(asked_of, [*test, *train]))
    near = _brute_force(texts, range(len(test)), threshold=SPLIT_THRESHOLD)
    return sum(any(other >= len(test) for other in others) for others in near.values()) / len(test)


def _scores(texts: Sequence[str], asked: Sequence[int], *, threshold: float) -> dict[str, float]:
    """How the clusters stand to brute force: of all true pairs those in one cluster, and of all ties those that are true."""
    start = time.perf_counter()
    clusters = cluster(sketch(texts, threshold=threshold))
    seconds = time.perf_counter() - start
    true = _brute_force(texts, asked, threshold=threshold)
    pairs = [(i, other) for i, others in true.items() for other in others]
    num_recalled = sum(bool(clusters.first[i] == clusters.first[other]) for i, other in pairs)
    ties = [(i, int(clusters.like[i])) for i in asked if clusters.like[i] != i]
    right = sum(other in true[i] for i, other in ties)
    # A row is told to be a duplicate, or not; the first of a cluster has its ties on the other side.
    sizes = Counter(clusters.first.tolist())
    told = [i for i in asked if sizes[int(clusters.first[i])] > 1]
    return {
        "pairs": len(pairs),
        "recall": num_recalled / max(len(pairs), 1),
        "precision": right / max(len(ties), 1),
        "rows_recall": sum(bool(true[i]) for i in told) / max(sum(map(bool, true.values())), 1),
        "rows_precision": sum(bool(true[i]) for i in told) / max(len(told), 1),
        "s": seconds,
    }


def _brute_force(texts: Sequence[str], asked: Sequence[int], *, threshold: float) -> dict[int, set[int]]:
    """For each text asked about all others of at least this Jaccard similarity."""
    sets = {i: _grams(texts[i]) for i in asked}
    holders: dict[str, list[int]] = {gram: [] for grams in sets.values() for gram in grams}
    sizes = np.zeros(len(texts), np.intp)
    for i, text in enumerate(texts):
        grams = _grams(text)
        sizes[i] = len(grams)
        for gram in grams & holders.keys():
            holders[gram].append(i)
    arrays = {gram: np.array(rows) for gram, rows in holders.items()}
    near = {}
    for i in asked:
        shared = np.bincount(np.concatenate([arrays[gram] for gram in sets[i]]), minlength=len(texts))
        alike = shared >= threshold * (sizes + sizes[i] - shared)
        near[i] = set(np.flatnonzero(alike).tolist()) - {i}
    return near


def _grams(text: str) -> set[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    signs = (" " if not sign.isalnum() and unicodedata.category(sign)[0] in "PZC" else sign for sign in folded)
    plain = " ".join("".join(signs).split())
    return {plain[i : i + 5] for i in range(max(len(plain) - 4, 1))} if plain else {"nothing but " + text.strip()}


def _texts(path: Path, key: str) -> list[str]:
    """A column of a file; every text of it where no key is given; none where there is no file."""

    def of(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            for part in value.values() if isinstance(value, dict) else value:
                yield from of(part)

    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = map(json.loads, file)
        return [
            text for row in rows for text in ([row[key]] if key and isinstance(row.get(key), str) else [] if key else of(row))
        ]


def main() -> None:
    """Print a line for each figure, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=_SHELF)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.data)
    print(json.dumps(found, indent=2) if given.json else "\n".join(f"{key:<40} {value:.6g}" for key, value in found.items()))


if __name__ == "__main__":
    main()

"""Our ROUGE-1/2/L against the reference implementation `rouge_score`, on the same pairs."""

from __future__ import annotations

import random
import time

from rouge_score.rouge_scorer import RougeScorer

from tunesmith.evaluate.rouge import rouge

_PAIRS = 1000
_REPEATS = 3


def measure() -> dict[str, float]:
    """Pairs per second of each side, best of interleaved repeats."""
    draw = random.Random(0)
    words = [f"word{i}" for i in range(500)]
    pairs = [(" ".join(draw.choices(words, k=25)), " ".join(draw.choices(words, k=25))) for _ in range(_PAIRS)]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    ours, theirs = [], []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        for answer, reference in pairs:
            rouge(answer, reference=reference)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        for answer, reference in pairs:
            scorer.score(reference, answer)
        theirs.append(time.perf_counter() - start)
    return {"pairs_per_s": _PAIRS / min(ours), "rouge_score_pairs_per_s": _PAIRS / min(theirs), "ratio": min(theirs) / min(ours)}

"""Our ROUGE-1/2/L/Lsum against the reference implementation `rouge_score`, on the same pairs, with stemming and without."""

from __future__ import annotations

import gzip
import json
import random
import time
from itertools import pairwise
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

from tunesmith.evaluate.rouge import Rouge, rouge, rouge_tokenizer

_PAIRS = 10_000
_PART = 500  # pairs between two turns, so that a busy moment slows both sides
_REAL = Path(__file__).parents[2] / "shared" / "data" / "retail" / "bitext_customer_support.jsonl.gz"


def measure() -> dict[str, float]:
    """Pairs per second of each side, in processor time, and the ratio."""
    pairs = _pairs()
    result: dict[str, float] = {}
    for stems, name in ((False, ""), (True, "_stemmed")):
        scorer, split = RougeScorer(list(Rouge._fields), use_stemmer=stems), rouge_tokenizer(stems=stems)
        ours = theirs = 0.0
        for start in range(0, len(pairs), _PART):
            part = pairs[start : start + _PART]
            begun = time.process_time()
            for answer, reference in part:
                rouge(answer, reference=reference, tokenise=split)
            ours += time.process_time() - begun
            part = part[:: 1 if start == 0 else 10]  # the reference is slow and steady: a tenth of the rest says enough
            begun = time.process_time()
            for answer, reference in part:
                scorer.score(reference, answer)
            theirs += (time.process_time() - begun) * (1 if start == 0 else 10)
        result |= {
            f"pairs_per_s{name}": len(pairs) / ours,
            f"rouge_score_pairs_per_s{name}": len(pairs) / theirs,
            f"ratio{name}": theirs / ours,
        }
    return result


def _pairs() -> list[tuple[str, str]]:
    """Answers of a shop's customer service, each beside the next one; made-up words where the set is not on this machine."""
    if _REAL.is_file():
        with gzip.open(_REAL, "rt") as lines:
            answers = [json.loads(line)["response"] for _, line in zip(range(_PAIRS + 1), lines, strict=False)]
        pairs = list(pairwise(answers))
        return (pairs * (_PAIRS // len(pairs) + 1))[:_PAIRS]
    draw = random.Random(0)
    words = [f"word{i}" for i in range(500)]
    return [(" ".join(draw.choices(words, k=25)), " ".join(draw.choices(words, k=25))) for _ in range(_PAIRS)]

"""Texts that repeat themselves, and answers caught in a loop, are dropped.

Texts by the shares of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), with its thresholds. Answers, which are shorter and
may well be lists, only where one phrase follows on itself again and again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.data.clean.step import Outcome, Step, each
from tunesmith.data.clean_config import Settings
from tunesmith.records import Dropped, Record, Role

__all__ = ["build", "loop_of", "repetition_of"]

_MIN_WORDS = 50
"""Gopher keeps no shorter documents; of these the shares say nothing."""
_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
_MIN_TURNS, _MAX_PERIOD, _MIN_LOOP_SHARE = 4, 40, 0.4
_SIGN_LOOP = re.compile(r"(\S{1,12}?)\1{19,}")


def build(_settings: Settings | None, *, folder: Path) -> Step:  # noqa: ARG001
    """Make the step; it has no settings."""

    def judge(record: Record) -> Outcome:
        if record.text is not None:
            found = repetition_of(record.text)
        else:
            answers = (turn.content for turn in (*record.messages, *record.rejected) if turn.role is Role.ASSISTANT)
            found = next(filter(None, map(loop_of, answers)), None)
        return Dropped(source=record.source, reason="repetition", detail=found) if found else record

    return each(judge)


def repetition_of(text: str) -> str | None:
    """Which of Gopher's shares a text exceeds, in words; None if none."""
    words = text.split()
    if len(words) < _MIN_WORDS:
        return None
    for what, share, most in _shares(text, words):
        if share > most:
            return f"{what}: {100 * share:.0f} %, the most is {100 * most:.0f} %"
    return None


def _shares(text: str, words: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Every share in turn, lazily: what it is, the share, and the most that it may be."""
    for unit, pieces in (("paragraphs", re.split(r"\n{2,}", text.strip())), ("lines", re.split(r"\n+", text.strip()))):
        repeated = _repeated(pieces)
        yield f"repeated {unit}", len(repeated) / len(pieces), 0.30
        yield f"characters in repeated {unit}", sum(map(len, repeated)) / len(text), 0.20
    num_characters = sum(map(len, words))
    for size, most in _TOP_NGRAM.items():
        ngram, count = Counter(zip(*(words[i:] for i in range(size)), strict=False)).most_common(1)[0]
        # What stands once is not repeated, however long its words.
        share = count * sum(map(len, ngram)) / num_characters if count > 1 else 0.0
        yield f"characters in the most common {size} words", share, most
    for size, most in _REPEATED_NGRAMS.items():
        share = _repeated_ngrams(words, size) / num_characters
        yield f"characters in repeated {size} words", share, most
        if not share:
            return  # what has no repeated five words has no repeated six


def _repeated(pieces: Sequence[str]) -> list[str]:
    """The pieces that stood before."""
    seen: set[str] = set()
    return [piece for piece in pieces if piece in seen or seen.add(piece)]  # type: ignore[func-returns-value]


def _repeated_ngrams(words: Sequence[str], size: int) -> int:
    """Characters of words in n-grams that stood before; none is counted twice."""
    seen: set[tuple[str, ...]] = set()
    counted, characters = 0, 0
    for i, ngram in enumerate(zip(*(words[i:] for i in range(size)), strict=False)):
        if ngram in seen:
            characters += sum(map(len, words[max(i, counted) : i + size]))
            counted = i + size
        else:
            seen.add(ngram)
    return characters


def loop_of(answer: str) -> str | None:
    """The phrase in which an answer is caught, in words; None if there is none."""
    signs = _SIGN_LOOP.search(answer) if len(answer) > 20 and len(set(answer)) < 0.5 * len(answer) else None
    if signs and len(signs[0]) > _MIN_LOOP_SHARE * len(answer) and any(sign.isalnum() for sign in signs[1]):
        return f"{signs[1]!r} follows on itself {len(signs[0]) // len(signs[1]):,} times"
    words = answer.split()
    if len(words) < 20 or len(set(words)) > 0.7 * len(words):
        return None
    for period in range(1, min(_MAX_PERIOD, len(words) // _MIN_TURNS) + 1):
        run = 0
        for i in range(period, len(words)):
            run = run + 1 if words[i] == words[i - period] else 0
            if run + period >= max(_MIN_TURNS * period, _MIN_LOOP_SHARE * len(words), 12):
                return f"{' '.join(words[i - period + 1 : i + 1])[:80]!r} follows on itself again and again"
    return None

"""Training text given back word for word, in answers to questions that were not trained on.

Looked for is the longest run of words that an answer shares with an answer in the training rows of other clusters. It counts from 12
words or 60 characters on (both can be set). Case, punctuation and white space do not matter. What the question itself
says is not counted; what the reference answer says too is counted apart, because there the data is worded like that.

Runs of 16 letters are hashed and looked up (`data.shingles.windows`), and only training answers that share one are read word by word, the
likeliest first, until none of the rest can have a longer run. A run of 12 words is therefore found unless it has fewer than 16 letters.
Of training answers that share nothing but what more than a hundred share, the first hundred are read: a set phrase stands in all alike.
In scripts without spaces each character is a word of its own, and only the characters count.

Reference: Carlini et al., "Extracting Training Data from Large Language Models", 2021.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.shingles import in_chunks, windows
from tunesmith.evaluate.questions import question_of
from tunesmith.evaluate.scripts import is_unspaced
from tunesmith.records import Record, Role, Sample

__all__ = ["Run", "find_runs", "longest_run", "memorisation"]

_SEED = 16  # letters of the runs that are looked up
_MAX_TEXTS = 100
_WORDS = re.compile(r"\w+")
_NUM_EXAMPLES = 10


class Run(NamedTuple):
    """A run of words that an answer has in common with a training row."""

    text: str
    """As the answer writes it."""
    num_words: int
    """Words in scripts with spaces between them."""
    record: Record | None
    """The training row; None where the run is of two plain texts."""


class _Word(NamedTuple):
    text: str
    start: int
    end: int


def longest_run(answer: str, text: str) -> Run:
    """The longest run of words, by its characters, that two texts share; empty if there is none.

    >>> longest_run("We open at ten, and close at six.", "Shops open at ten and close early.").text
    'open at ten, and close'
    """
    return _longest(answer, _words(answer), _words(text))


def find_runs(
    answers: Sequence[str],
    *,
    own: Sequence[str],
    train: Sequence[Record],
    min_words: int = 12,
    min_characters: int = 60,
) -> list[Run | None]:
    """For each answer the longest run that it shares with a training answer, where it is long enough.

    Args:
        answers: what a model said.
        own: for each answer the cluster of its question; training rows of it are left out.
        train: the training rows.
        min_words: a run of so many words counts.
        min_characters: one of so many characters counts too.
    """
    texts = list(_taught(train))
    reaches = _reaches(answers, [text for _, text in texts])
    return [
        _best(answer, texts=texts, reaches=reaches[at], own=own[at], min_words=min_words, min_characters=min_characters)
        for at, answer in enumerate(answers)
    ]


def memorisation(
    samples: Sequence[Sample],
    *,
    arm: str,
    test: Sequence[Record],
    train: Sequence[Record],
    min_words: int = 12,
    min_characters: int = 60,
) -> dict[str, Any]:
    """How many answers of one arm hold training text word for word.

    Args:
        samples: the answers.
        arm: whose.
        test: the rows that were asked.
        train: the rows that were learned.
        min_words: a run of so many words counts.
        min_characters: one of so many characters counts too.

    Returns:
        Plain values: `num_answers`, `num_verbatim` and `share` (0 to 1) of answers with such a run that is not in their reference,
        `num_expected` of those whose reference has it too, and `examples`, the longest first.
    """
    by_id = {record.id: record for record in test}
    asked = [sample for sample in samples if sample.record in by_id]
    rows = [by_id[sample.record] for sample in asked]
    found = find_runs(
        [sample.answers.get(arm, "") for sample in asked],
        own=[_cluster(record) for record in rows],
        train=train,
        min_words=min_words,
        min_characters=min_characters,
    )
    counted = [
        (run, sample)
        for run, sample, record in zip(found, asked, rows, strict=True)
        if run is not None and not _is_long(longest_run(run.text, _asked_in(record)), min_words, min_characters)
    ]
    expected = [_is_long(longest_run(run.text, sample.reference), min_words, min_characters) for run, sample in counted]
    verbatim = [pair for pair, is_expected in zip(counted, expected, strict=True) if not is_expected]
    verbatim.sort(key=lambda pair: -len(pair[0].text))
    return {
        "num_answers": len(asked),
        "num_verbatim": len(verbatim),
        "num_expected": sum(expected),
        "share": len(verbatim) / len(asked) if asked else 0.0,
        "min_words": min_words,
        "min_characters": min_characters,
        "examples": [
            {
                "record": sample.record,
                "question": sample.question,
                "run": run.text,
                "num_words": run.num_words,
                "training_record": run.record.id if run.record else "",
                "training_source": str(run.record.source) if run.record else "",
            }
            for run, sample in verbatim[:_NUM_EXAMPLES]
        ],
    }


def _taught(train: Sequence[Record]) -> Iterator[tuple[Record, str]]:
    """Every text that a training row teaches; of equal texts of one cluster the first."""
    seen: set[tuple[str, str]] = set()
    for record in train:
        said = [message.content for message in record.messages if message.role is Role.ASSISTANT and message.weight > 0]
        for text in [record.text] if record.text is not None else said:
            key = (_cluster(record), text)
            if key not in seen:
                seen.add(key)
                yield record, text


def _reaches(answers: Sequence[str], texts: Sequence[str]) -> list[dict[int, int]]:
    """For each answer, by the place of each text, the letters that a run of the two can have at most.

    A run of n letters is n - 15 neighbouring runs of 16, so it is no longer than the longest stretch of those that the text has too.
    """
    asked = windows(answers, length=_SEED) if answers else None
    found: list[dict[int, set[int]]] = [defaultdict(set) for _ in answers]
    if asked is None or not len(asked.hashes):
        return [{} for _ in answers]
    wanted, numbers = np.unique(asked.hashes, return_inverse=True)
    owners = np.repeat(np.arange(len(answers)), np.diff(asked.starts))
    holders: list[list[tuple[int, int]]] = [[] for _ in wanted]
    for at, (number, owner) in enumerate(zip(numbers.tolist(), owners.tolist(), strict=True)):
        holders[number].append((owner, at))
    pairs, common = _holding(texts, wanted=wanted)
    for number, place in pairs:
        for owner, at in holders[number]:
            found[owner][place].add(at)
    everywhere: list[set[int]] = [set() for _ in answers]
    for number in common:
        for owner, at in holders[number]:
            everywhere[owner].add(at)
    return [
        {place: _stretch(at | anywhere) + _SEED - 1 for place, at in places.items()}
        for places, anywhere in zip(found, everywhere, strict=True)
    ]


def _holding(texts: Sequence[str], *, wanted: NDArray[np.unsignedinteger[Any]]) -> tuple[list[tuple[int, int]], list[int]]:
    """Which texts have which of the wanted runs: its number, and the text's place; and the numbers of those that too many have.

    Of these only the first hundred texts are named, and any text may have them.
    """
    named: list[tuple[int, int]] = []
    num_seen = np.zeros(len(wanted), np.int64)
    for part in in_chunks(texts):
        grams = windows(texts[part], length=_SEED)
        hits = np.flatnonzero(np.isin(grams.hashes, wanted))
        places = np.searchsorted(grams.starts, hits, side="right") - 1 + part.start
        pairs = np.unique(np.stack([np.searchsorted(wanted, grams.hashes[hits]), places], axis=1), axis=0)
        numbers, firsts, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
        ranks = np.arange(len(pairs)) - np.repeat(firsts, counts) + np.repeat(num_seen[numbers], counts)
        num_seen[numbers] += counts
        named += [(number, place) for number, place in pairs[ranks < _MAX_TEXTS].tolist()]
    return named, np.flatnonzero(num_seen > _MAX_TEXTS).tolist()


def _stretch(numbers: set[int]) -> int:
    """The most numbers that follow each other without a gap."""
    longest = 0
    for first in numbers:
        if first - 1 not in numbers:
            end = first
            while end in numbers:
                end += 1
            longest = max(longest, end - first)
    return longest


def _best(
    answer: str,
    *,
    texts: Sequence[tuple[Record, str]],
    reaches: Mapping[int, int],
    own: str,
    min_words: int,
    min_characters: int,
) -> Run | None:
    words, best, letters = _words(answer), Run("", 0, None), 0
    for place, reach in sorted(reaches.items(), key=lambda pair: (-pair[1], pair[0])):
        if reach <= letters:  # no text further on can have a longer run
            break
        record, text = texts[place]
        if _cluster(record) == own:
            continue
        run = _longest(answer, words, _words(text))
        if len(run.text) > len(best.text):
            best, letters = run._replace(record=record), sum(character.isalnum() for character in run.text)
    return best if _is_long(best, min_words, min_characters) else None


def _longest(answer: str, words: Sequence[_Word], others: Sequence[_Word]) -> Run:
    """Runs that end at each pair of equal words, one answer word at a time: O(words x occurrences)."""
    places: dict[str, list[int]] = defaultdict(list)
    for at, word in enumerate(others):
        places[word.text].append(at)
    ending: dict[int, int] = {}
    best = (0, 0, 0)  # characters, first word, last word
    for at, word in enumerate(words):
        ending = {other: ending.get(other - 1, 0) + 1 for other in places.get(word.text, ())}
        if ending:
            first = at - max(ending.values()) + 1
            best = max(best, (word.end - words[first].start, first, at), key=lambda run: run[0])
    if not best[0]:
        return Run("", 0, None)
    _, first, last = best
    num_words = sum(not is_unspaced(word.text[0]) for word in words[first : last + 1])
    return Run(answer[words[first].start : words[last].end], num_words, None)


def _words(text: str) -> list[_Word]:
    found: list[_Word] = []
    for match in _WORDS.finditer(text):
        start, word = match.start(), match.group()
        if any(is_unspaced(character) for character in word):
            found += [_Word(character.casefold(), start + at, start + at + 1) for at, character in enumerate(word)]
        else:
            found.append(_Word(word.casefold(), start, match.end()))
    return found


def _is_long(run: Run, min_words: int, min_characters: int) -> bool:
    return run.num_words >= min_words or len(run.text) >= min_characters


def _asked_in(record: Record) -> str:
    question = question_of(record)
    return " ".join(message.content for message in question.prompt) if question else ""


def _cluster(record: Record) -> str:
    """As `questions.cluster_ids` has it."""
    return record.cluster or record.group or record.id

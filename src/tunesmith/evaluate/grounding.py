"""Grounding: the share of what an answer states that stands in the fact sheet, or in what the model was given to read.

A statement (`statements_of`) is grounded where one line of the source holds it and speaks of the same matter: the words that the
sentence and the line share weigh at least half of all the words of the sentence that the source knows (weights are inverse document
frequencies over lines). So the right hours of the wrong day are not grounded, nor is a figure in a clause that says no where the line
says yes; for names and contacts it is enough that a line holds them. A rule without figures is grounded where the line nearest to it
holds most of its words and says yes or no as it does. What the user said counts as a source.

It looks words up and understands nothing: a paraphrase that shares no word with the sheet is taken for invented. Not seen are two facts
joined wrongly within one line, a price of the sheet on a thing that the sheet does not know, and `open` where a line says `closed`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith.errors import DataError, NotFound
from tunesmith.evaluate.metric import Metric, Outcome, Statistics, mean_statistics, ratio_statistics
from tunesmith.evaluate.rouge import tokenise
from tunesmith.evaluate.statements import Statement, content_stems, is_denied, is_negated, sentences_of, statements_of
from tunesmith.evaluate.stem import stem

__all__ = ["Grounding", "Source", "ground", "grounding_metric", "read_sheet"]

_SAME_MATTER = 0.5
_RULE_SHARE = 0.6


class _Line(NamedTuple):
    statements: frozenset[tuple[str, str, str]]
    stems: frozenset[str]
    words: str
    is_negated: bool


class Grounding(NamedTuple):
    """What an answer states."""

    grounded: tuple[Statement, ...]
    invented: tuple[Statement, ...]


class Source:
    """Lines that may be relied on.

    Args:
        text: a fact sheet, a document, a conversation. Lines and sentences are facts of their own.
    """

    def __init__(self, text: str) -> None:
        self._lines = [_line(sentence) for sentence in sentences_of(text)]
        counts = Counter(stem for line in self._lines for stem in line.stems)
        self._weights = {stem: math.log(1 + len(self._lines) / count) for stem, count in counts.items()}

    def holds(self, statement: Statement, *, sentence: str) -> bool:
        """Whether one line holds a statement that stands in this sentence, and speaks of the same matter."""
        stems = content_stems(sentence) - content_stems(statement.text if statement.kind != "rule" else "")
        known = {stem: self._weights[stem] for stem in stems if stem in self._weights}
        total = sum(known.values())
        if statement.kind == "rule":
            shared = max((len(stems & line.stems) for line in self._lines), default=0)
            # The line that speaks most of the same must say yes or no as the sentence does: others only share its words.
            nearest = [line for line in self._lines if len(stems & line.stems) == shared]
            return shared >= _RULE_SHARE * len(stems) and any(line.is_negated == is_negated(sentence) for line in nearest)
        if statement.kind in {"name", "contact"}:
            return self.mentions(statement)
        denied = is_denied(sentence, text=statement.text)
        return any(
            _has(line, statement)
            and (line.is_negated or not denied)
            and sum(known[stem] for stem in known.keys() & line.stems) >= _SAME_MATTER * total
            for line in self._lines
        )

    def mentions(self, statement: Statement) -> bool:
        """Whether any line holds a statement, whatever it speaks of."""
        return any(_has(line, statement) for line in self._lines)


def ground(answer: str, *, sheet: Source, said: Source | None = None) -> Grounding:
    """Look up what an answer states.

    Args:
        answer: the text to judge.
        sheet: what may be relied on.
        said: what the user said, which the answer may repeat.
    """
    grounded: list[Statement] = []
    invented: list[Statement] = []
    for sentence in sentences_of(answer):
        for statement in statements_of(sentence):
            is_said = said is not None and statement.kind != "rule" and said.mentions(statement)
            (grounded if is_said or sheet.holds(statement, sentence=sentence) else invented).append(statement)
    return Grounding(tuple(grounded), tuple(invented))


def grounding_metric(sheet: str | None) -> Metric:
    """The share of statements that are grounded, and of answers without an invented one, in percent.

    Args:
        sheet: the fact sheet. None: each row's own system prompt and context is what may be relied on.
    """
    shared = Source(sheet) if sheet is not None else None

    def measure(outcomes: Sequence[Outcome]) -> Mapping[str, Statistics]:
        found = [None if row.answer is None else _of_row(row, shared) for row in outcomes]
        counts = [None if one is None else (len(one.grounded), len(one.grounded) + len(one.invented)) for one in found]
        counts = [count if count and count[1] else None for count in counts]
        if all(count is None for count in counts):
            return {}
        rule = "numbers, times, contacts, names and rules that one line of the source holds"
        return {
            "grounding": ratio_statistics(counts, signature=f"grounding|% of statements|{rule}"),
            "nothing_invented": mean_statistics(
                [None if one is None else float(not one.invented) for one in found],
                signature=f"nothing_invented|% of answers|{rule}",
            ),
        }

    return measure


def read_sheet(path: Path, *, named_by: str) -> str:
    """Read a fact sheet.

    Args:
        path: a file of UTF-8 text.
        named_by: the setting or option that names it, for errors.

    Raises:
        NotFound: there is no such file.
        DataError: it is empty, or no UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFound(f"{path} does not exist; `{named_by}` names it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not text.strip():
        raise DataError(f"{path} is empty; `{named_by}` names it")
    return text


def _of_row(row: Outcome, sheet: Source | None) -> Grounding:
    said = "\n".join(message.content for message in row.record.messages[:-1])
    return ground(row.answer or "", sheet=sheet or Source(said), said=Source(said))


def _line(sentence: str) -> _Line:
    found = frozenset((one.kind, one.value, one.unit) for one in statements_of(sentence, rules=False))
    return _Line(found, content_stems(sentence), f" {_stemmed(sentence)} ", is_negated(sentence))


def _stemmed(text: str) -> str:
    return " ".join(map(stem, tokenise(text)))


def _has(line: _Line, statement: Statement) -> bool:
    if statement.kind == "name":
        return f" {_stemmed(statement.value)} " in line.words
    if statement.kind != "number" or statement.unit:
        if (statement.kind, statement.value, statement.unit) in line.statements:
            return True
        # `30 days` is found in a line that leaves the unit out, but not in one with another unit.
        return statement.kind == "number" and ("number", statement.value, "") in line.statements
    return any(kind == "number" and value == statement.value for kind, value, _ in line.statements)

"""Grounding: the share of what an answer states that stands in the fact sheet, or in what the model was given to read.

A statement (`statements_of`) is grounded where one line of the source holds it and speaks of the same matter: the words that the
sentence and the line share weigh at least half of all the words of the sentence that the source knows (weights are inverse document
frequencies over lines). So the right hours of the wrong day are not grounded, nor is a figure in a clause that says no where the line
says yes; for names and contacts it is enough that a line holds them. A rule without figures, and a sentence that nearly repeats a line, is
grounded where the line nearest to it holds most of its words and says yes or no as it does. Equal amounts are one (`two weeks`, `14 days`).
What the user said counts as a source.

It looks words up and understands nothing: a paraphrase that shares no word with the sheet is taken for invented. Not seen are two facts
joined wrongly within one line or between lines of like wording, a price of the sheet on a thing that the sheet does not know, and `open`
where a line says `closed`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith.errors import DataError, NotFound
from tunesmith.evaluate.dates import Day, days_in, is_same_day, weekdays_in, weekdays_open
from tunesmith.evaluate.metric import Metric, Outcome, Statistics, mean_statistics, ratio_statistics
from tunesmith.evaluate.quantities import forms_of
from tunesmith.evaluate.rouge import tokenise
from tunesmith.evaluate.statements import Statement, content_stems, is_denied, is_negated, sentences_of, statements_of
from tunesmith.evaluate.stem import stem

__all__ = ["Grounding", "Source", "ground", "grounding_metric", "read_sheet"]

_SAME_MATTER = 0.5
_RULE_SHARE = 0.6
_CLAUSE = re.compile(r"[,;:]\s")
_ECHO_SHARE = 0.8
_LEAST_ECHO = 2
_LEAST_DIGITS = 7
_MOST_CODE = 3


class _Line(NamedTuple):
    statements: frozenset[tuple[str, str, str]]
    amounts: frozenset[tuple[str, str]]
    """Its numbers with units, in all their forms."""
    days: tuple[Day, ...]
    weekdays: frozenset[int]
    text: str
    """In lower case."""
    stems: frozenset[str]
    words: str
    is_negated: bool
    clauses: tuple[tuple[frozenset[str], bool], ...]
    """Of each clause its words, and whether it says no."""

    def may_say(self, is_no: bool, /, *, of: frozenset[str]) -> bool:
        """Whether the line, or the clause of it that speaks most of something, says no (or yes)."""
        shared = max(len(of & words) for words, _ in self.clauses)
        return is_no in {self.is_negated, *(clause for words, clause in self.clauses if len(of & words) == shared)}


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
            shared, nearest = self._nearest(stems)
            return shared >= _RULE_SHARE * len(stems) and any(line.may_say(is_negated(sentence), of=stems) for line in nearest)
        if statement.kind in {"name", "contact"}:
            return self.mentions(statement)
        # `Not open on Sundays` is what `closed on Sundays` says.
        denied = statement.kind != "weekday" and is_denied(sentence, text=statement.text)
        return any(
            _has(line, statement)
            and (line.is_negated or not denied)
            and sum(known[stem] for stem in known.keys() & line.stems) >= _SAME_MATTER * total
            for line in self._lines
        )

    def echoes(self, sentence: str) -> bool:
        """Whether a line holds nearly all words of a sentence, so that the sentence says what the line says, or its contrary."""
        stems = content_stems(sentence)
        return len(stems) >= _LEAST_ECHO and self._nearest(stems)[0] >= _ECHO_SHARE * len(stems)

    def _nearest(self, stems: frozenset[str]) -> tuple[int, list[_Line]]:
        """How many words the lines share that speak most of the same, and these: of others a yes or no says nothing."""
        counts = [len(stems & line.stems) for line in self._lines]
        shared = max(counts, default=0)
        return shared, [line for line, count in zip(self._lines, counts, strict=True) if count == shared]

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
        found = statements_of(sentence)
        if not found and not sentence.endswith(("?", "？")) and sheet.echoes(sentence):
            found = [Statement("rule", " ".join(sentence.split()), text=sentence)]
        for statement in found:
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
        rule = "numbers, times, dates, weekdays, contacts, names and rules that one line of the source holds"
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
    found = statements_of(sentence, rules=False)
    numbers = [forms_of(one.value, one.unit) for one in found if one.kind == "number"]
    return _Line(
        statements=frozenset((one.kind, one.value, one.unit) for one in found),
        amounts=frozenset().union(*numbers),
        days=tuple(day for _, day in days_in(sentence)),
        weekdays=weekdays_open(sentence),
        text=sentence.casefold(),
        stems=content_stems(sentence),
        words=f" {_stemmed(sentence)} ",
        is_negated=is_negated(sentence),
        clauses=tuple((content_stems(clause), is_negated(clause)) for clause in _CLAUSE.split(sentence)),
    )


def _stemmed(text: str) -> str:
    return " ".join(map(stem, tokenise(text)))


def _has(line: _Line, statement: Statement) -> bool:
    match statement.kind:
        case "name":
            return f" {_stemmed(statement.value)} " in line.words
        case "date":
            return any(is_same_day(one, other) for _, one in days_in(statement.text) for other in line.days)
        case "weekday":
            return any(day in line.weekdays for _, day in weekdays_in(statement.text))
        case "contact":
            return _has_contact(line, statement.value)
        case "time":
            return ("time", statement.value, "") in line.statements
        case _:
            return _has_number(line, statement)


def _has_number(line: _Line, statement: Statement) -> bool:
    if statement.unit:
        # `30 days` is found in a line that leaves the unit out, but not in one with another unit.
        return not forms_of(statement.value, statement.unit).isdisjoint(line.amounts) or (statement.value, "") in line.amounts
    return any(kind == "number" and value == statement.value for kind, value, _ in line.statements)


def _has_contact(line: _Line, value: str) -> bool:
    is_known = any(_is_same_contact(value, other) for kind, other, _ in line.statements if kind == "contact")
    return is_known or ("." in value and "@" not in value and _is_in(_bare(value), line.text))


def _is_same_contact(one: str, other: str) -> bool:
    """Addresses without what browsers add; telephone numbers with and without the country's code."""
    if one == other or not one.isdigit() or not other.isdigit():
        return _bare(one) == _bare(other)
    short, long = sorted((one.lstrip("0"), other.lstrip("0")), key=len)
    return long.endswith(short) and len(short) >= _LEAST_DIGITS and len(long) - len(short) <= _MOST_CODE


def _bare(address: str) -> str:
    return re.sub(r"^(?:https?://)?(?:www\.)?", "", address).rstrip("/")


def _is_in(address: str, text: str) -> bool:
    return re.search(rf"(?<![\w@-]){re.escape(address)}(?![\w/-])", text) is not None

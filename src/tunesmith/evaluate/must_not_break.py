"""Prompts of the user's own that a fine-tune must not break: what the base does well, the new version must still do.

Each row of the file has `messages`, and says what a good answer holds: an assistant turn at the end, or key phrases in `states` (one text
with " + " between phrases, as in the rows' tags, or a list). A row that says neither is only asked whether a refusal is kept.

An answer is right when it holds every key phrase, else when it holds the expected answer, as whole words and whatever its case. So long
expected answers are better given as key phrases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.files import BadRow, made_of_rows, shortened
from tunesmith.errors import DataError, NotFound
from tunesmith.evaluate.arms import Arm
from tunesmith.evaluate.facts import key_phrases, states
from tunesmith.evaluate.refusals import is_refusal
from tunesmith.records import Message, Role, Source

__all__ = ["Prompt", "ask_prompts", "read_prompts"]

_MAX_KEPT = 200
"""Rows in the report; those that broke go first."""
_FIRST = ("broken", "refusal lost", "mended", "wrong before and after", "kept", "refusal kept", "no expectation")


class Prompt(NamedTuple):
    """One row."""

    source: Source
    messages: tuple[Message, ...]
    """Up to the answer wanted."""
    phrases: tuple[str, ...]
    """What a right answer holds; empty where the row does not say."""


def read_prompts(path: Path) -> list[Prompt]:
    """Read a file of prompts.

    Raises:
        NotFound: there is no such file.
        DataError: a row is not as it should be; all such rows are named with their lines. Or there is none.
    """
    if not path.is_file():
        raise NotFound(f"evaluate.must_not_break: {path} does not exist. Give a file of rows with `messages`.")
    found = made_of_rows(path, lambda row, place: _prompt(row, source=place), what="of evaluate.must_not_break cannot be asked")
    if not found:
        raise DataError(f"{path} (evaluate.must_not_break) holds no row. Give rows with `messages`.")
    return found


def ask_prompts(prompts: Sequence[Prompt], *, tuned: Arm, base: Arm | None) -> dict[str, Any]:
    """Put every prompt to both, and say what broke, what was mended, and which refusals are lost.

    Args:
        prompts: what is asked.
        tuned: the fine-tuned model.
        base: what it began as; None: nothing can have broken, and only the wrong answers are counted.

    Returns:
        Plain values: `counts` by reading, and the `rows`, at most 200, what broke first.
    """
    after = tuned.generate([prompt.messages for prompt in prompts])
    before: Sequence[str | None] = base.generate([prompt.messages for prompt in prompts]) if base else [None] * len(prompts)
    rows = [
        {
            "source": str(prompt.source),
            "question": prompt.messages[-1].content,
            "expected": list(prompt.phrases),
            "base": was,
            "tuned": now,
            "reading": _reading(prompt, was=was, now=now),
        }
        for prompt, was, now in zip(prompts, before, after, strict=True)
    ]
    rows.sort(key=lambda row: _FIRST.index(str(row["reading"])))
    readings = [row["reading"] for row in rows]
    return {
        "num_rows": len(rows),
        "counts": {reading: readings.count(reading) for reading in _FIRST if reading in readings},
        "num_refused": {
            arm: sum(is_refusal(answer or "") for answer in answers) for arm, answers in (("base", before), ("tuned", after))
        },
        "rows": rows[:_MAX_KEPT],
    }


def _reading(prompt: Prompt, *, was: str | None, now: str) -> str:
    is_right = bool(prompt.phrases) and states(now, phrases=prompt.phrases)
    if was is not None and is_refusal(was) and not is_right:
        return "refusal kept" if is_refusal(now) else "refusal lost"
    if not prompt.phrases:
        return "no expectation"
    was_right = was is not None and states(was, phrases=prompt.phrases)
    if is_right:
        return "kept" if was_right or was is None else "mended"
    return "broken" if was_right else "wrong before and after"


def _prompt(row: Mapping[str, Any], *, source: Source) -> Prompt:
    turns = list(_turns(row))
    expected = turns.pop().content if turns[-1].role is Role.ASSISTANT else ""
    if not any(turn.role is Role.USER for turn in turns):
        raise BadRow("no_question", "no turn of the user comes before the answer, so nothing is asked")
    phrases = _phrases(row) or ([_bare(expected)] if _bare(expected) else [])
    return Prompt(source, tuple(turns), tuple(phrases))


def _turns(row: Mapping[str, Any]) -> Iterator[Message]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise BadRow("missing_field", f"`messages` is to be a list of turns; the row has {', '.join(sorted(row)) or 'no field'}")
    for at, turn in enumerate(turns):
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in set(Role):
            raise BadRow("unknown_role", f"messages[{at}].role is {shortened(role)}. Known: {', '.join(Role)}")
        if not isinstance(turn.get("content"), str) or not turn["content"].strip():
            raise BadRow("empty_turn", f"messages[{at}].content is to be a text that says something")
        yield Message(role=Role(role), content=turn["content"])


def _phrases(row: Mapping[str, Any]) -> list[str]:
    tags = row.get("tags")
    given = row.get("states", tags.get("states") if isinstance(tags, dict) else None)
    if given is None:
        return []
    if isinstance(given, list) and all(isinstance(phrase, str) for phrase in given):
        phrases = [phrase.strip() for phrase in given if phrase.strip()]
    elif isinstance(given, str):
        phrases = key_phrases(given)
    else:
        raise BadRow("wrong_type", f"`states` is to be a text or a list of texts, and is {shortened(given)}")
    if not phrases:
        raise BadRow("wrong_type", "`states` is empty: give a key phrase, or leave the key out")
    return phrases


def _bare(answer: str) -> str:
    """An expected answer without the full stop that another may leave out."""
    return answer.strip().rstrip(".!。！ ")

"""What a row can look like, and how it becomes a conversation, a pair of answers, or a text.

A converter gives content or raises `BadRow` with a reason that stays the same from version to version and a sentence for people.
Keys are matched without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.data.config import FormatName
from tunesmith.data.fields import PAIRS, Row, answer_of, filled, label_of, string_of, text_of, with_system
from tunesmith.data.files import BadRow, shortened
from tunesmith.data.nested import Item, has_instances, has_questions, instances_of, is_tree, questions_of, replies_of, whole
from tunesmith.data.tools import read_tools
from tunesmith.data.turns import (
    conversation_of,
    dialogue_of,
    has_both_sides,
    is_dialogue,
    is_turns,
    keys_of,
    kind_of_value,
    script_of,
    transcript_of,
    turns_of,
)
from tunesmith.errors import DataError
from tunesmith.records import Message, Role

__all__ = ["Content", "Converted", "Format", "Held", "detect", "is_own"]

Content = tuple[Message, ...] | str

_MESSAGE_KEYS = ("messages", "conversations", "conversation")
_TURN_KEYS = (*_MESSAGE_KEYS, "turns", "dialogue", "dialog", "utterances")
_CONTEXTS = ("context", "passage", "paragraph")
_TEXTS = ("text", "content", "body", "utterance", "sentence", "review", "article")
_LABELS = ("label", "intent", "category", "class", "sentiment", "rating")
_ASKED = ("prompt", "question", "query", "instruction")
_GOLD = ("gold", "answer", "label", "answer_index")


class Converted(NamedTuple):
    """What a row holds."""

    content: Content
    rejected: tuple[Message, ...] = ()
    label: str | None = None
    tools: str = ""


class Held(NamedTuple):
    """One flat row that a row holds: where it stands in it (empty: it is the row itself), and what it holds or what is wrong."""

    at: str
    row: Row
    found: Converted | BadRow


class Format(NamedTuple):
    """A detected or demanded format, and the evidence for it."""

    name: str
    evidence: str
    convert: Callable[[Row], Converted]
    """Of a flat row."""
    rows: Callable[[Row], Iterator[Item]] = whole
    """The flat rows that a row holds: itself, or the items of a tree, a task or a document."""

    def items(self, row: Row) -> Iterator[Held]:
        """Each flat row that a row holds, and what is in it or wrong with it."""
        for at, flat in self.rows(row):
            try:
                if isinstance(flat, BadRow):
                    raise flat
                yield Held(at, flat, self.convert(flat))
            except BadRow as bad:
                yield Held(at, {}, BadRow(bad.reason, f"{at}: {bad.detail}") if at else bad)

    def __str__(self) -> str:
        return f"{self.name} ({self.evidence})"


class _Candidate(NamedTuple):
    name: str
    label: str
    fits: Callable[[Row], bool]
    convert: Callable[[Row], Converted]
    varying: str = ""
    """A key whose value must not be the same in every row: a constant `context` is a label, not what a question is about."""
    rows: Callable[[Row], Iterator[Item]] = whole
    is_last_resort: bool = False
    """Whether it is tried only where no row fits any other."""


def detect(rows: Sequence[Row], *, wanted: FormatName, path: str, roles: Mapping[str, str] | None = None) -> Format:
    """Choose the format that most of these rows have; of equals the more particular.

    Args:
        rows: the first rows of a file, keys in lower case.
        wanted: a format demanded by the recipe, or `auto`.
        path: for messages.
        roles: names of speakers that the user maps to roles.

    Raises:
        DataError: no row fits the demanded format, or any known one.
    """
    candidates = [candidate for candidate in _candidates(roles or {}) if wanted in {"auto", candidate.name}]
    candidates = [
        one for one in candidates if not one.varying or len({str(row.get(one.varying)) for row in rows}) > min(1, len(rows) - 1)
    ]
    count, best = 0, candidates[0]
    for is_last_resort in (False, True):
        tried = [one for one in candidates if one.is_last_resort is is_last_resort]
        if tried and not count:
            count, best = max(((sum(map(one.fits, rows)), one) for one in tried), key=lambda entry: entry[0])
    if not count:
        keys = list(dict.fromkeys(key for row in rows for key in row))
        shown = ", ".join(keys[:20]) + (", …" if len(keys) > 20 else "") or "none"
        raise DataError(
            f"{path}: no row is in {'a known format' if wanted == 'auto' else f'the format `{wanted}`'}. Keys found: {shown}. "
            "Known formats: messages (a list of role/content under `messages` or `conversations`), sharegpt (from/value), "
            "dialogue (`turns` of speaker and text, or lines of `user: ` and `assistant: `), preference (chosen/rejected), choices "
            "(query/choices/gold), alpaca (instruction/input/output), prompt_completion (prompt/completion, question/answer, "
            "document/summary and the like), tree (role/text/replies), instances (instruction and a list of input/output), questions "
            f"(document and a list of question/answer), text_label (text/label), text ({', '.join(_TEXTS)})."
            f"{_suggested(keys)}"
        )
    return Format(best.name, f"{best.label} in {count:,} of {len(rows):,} rows", best.convert, best.rows)


def _suggested(keys: Sequence[str]) -> str:
    """How to name keys that nobody knows: of two the first is taken for the question, among more nothing is guessed."""
    if len(keys) < 2:
        return ""
    asked, answered = keys if len(keys) == 2 else ("KEY", "KEY")
    return f" Say which keys are which: data.sources[].map: {{question: {asked}, answer: {answered}}}, or --map."


def _candidates(roles: Mapping[str, str]) -> list[_Candidate]:
    """Every format in order of preference."""

    def turns(role: str, content: str) -> Callable[[Row], bool]:
        return lambda row: any(is_turns(row.get(key), role=role, content=content) for key in _MESSAGE_KEYS)

    def conversation(row: Row) -> Converted:
        return _conversation(row, roles=roles)

    return [
        _Candidate("tunesmith", "rows that tunesmith wrote", is_own, lambda row: _own(row, roles)),
        _Candidate(
            "preference", "chosen/rejected", lambda row: "chosen" in row and "rejected" in row, lambda row: _pair(row, roles)
        ),
        _Candidate("messages", "role/content", turns("role", "content"), conversation),
        _Candidate("sharegpt", "from/value", turns("from", "value"), conversation),
        _Candidate(
            "dialogue", "turns of speaker and text", lambda row: _dialogue_key(row) is not None, lambda row: _dialogue(row, roles)
        ),
        _Candidate("choices", "choices and the index of the right one", _has_choices, _choices),
        _Candidate("alpaca", "instruction/output", lambda row: "instruction" in row and "output" in row, _alpaca),
        *(_pair_candidate(asked, answered, context=context) for asked, answered in PAIRS for context in _contexts(asked)),
        *(_pair_candidate(asked, answered, roles=roles) for asked, answered in PAIRS),
        *_nested(roles),
        *(_text_candidate(text, label) for text in _TEXTS for label in _LABELS),
        *(_text_candidate(text, None) for text in _TEXTS),
        _Candidate(
            "dialogue",
            "known speakers and text, under a name of its own",
            lambda row: _spoken_under(row, roles) is not None,
            lambda row: _dialogue(row, roles),
            is_last_resort=True,
        ),
    ]


def _nested(roles: Mapping[str, str]) -> list[_Candidate]:
    """Formats of rows that hold several."""
    about, plain = _pair_candidate("question", "answer", context="context"), _pair_candidate("question", "answer")
    return [
        _Candidate(
            "tree",
            "messages with replies, of ranked answers the best,",
            is_tree,
            lambda row: _conversation(row, roles=roles),
            rows=lambda row: replies_of(row, roles=roles),
        ),
        _Candidate("instances", "instruction and instances", has_instances, _alpaca, rows=instances_of),
        _Candidate(
            "questions",
            "a document and its questions",
            lambda row: has_questions(row, has_document=True),
            about.convert,
            rows=lambda row: questions_of(row, has_document=True),
        ),
        _Candidate(
            "questions",
            "a list of questions",
            lambda row: has_questions(row, has_document=False),
            plain.convert,
            rows=lambda row: questions_of(row, has_document=False),
        ),
    ]


def is_own(row: Row) -> bool:
    """Whether a row is one that tunesmith wrote (`rows.plain_record`): it keeps its id and its place."""
    identity, place = row.get("id"), row.get("source")
    if not isinstance(identity, str) or not isinstance(place, str) or not ("messages" in row or "text" in row):
        return False
    return bool(re.fullmatch(r"[0-9a-f]{64}", identity) and re.fullmatch(r"(?s).+:[0-9]{1,18}", place))


def _own(row: Row, roles: Mapping[str, str]) -> Converted:
    if "messages" in row:
        return _conversation(row, roles=roles)
    return Converted(filled(row, "text"), label=label_of(row.get("label")), tools=read_tools(row))


def _contexts(asked: str) -> tuple[str, ...]:
    return _CONTEXTS if asked in {"question", "query", "instruction"} else ()


def _conversation(row: Row, *, roles: Mapping[str, str]) -> Converted:
    given = [key for key in _MESSAGE_KEYS if row.get(key) is not None]
    key = next((key for key in given if isinstance(row[key], list)), next(iter(given), None))
    if key is None:
        null = next((key for key in _MESSAGE_KEYS if key in row), None)
        raise BadRow("missing_field", f"`{null}` is null" if null else f"`messages` is missing; the row has {keys_of(row)}")
    messages = with_system(row, turns_of(row[key], name=key, roles=roles))
    rejected = turns_of(row["rejected"], name="rejected", roles=roles) if isinstance(row.get("rejected"), list) else ()
    return Converted(conversation_of(messages), rejected=rejected, label=label_of(row.get("label")), tools=read_tools(row))


def _dialogue_key(row: Row) -> str | None:
    return next((key for key in _TURN_KEYS if is_dialogue(row.get(key))), None)


def _spoken_under(row: Row, roles: Mapping[str, str]) -> tuple[str, list[Any]] | None:
    """Turns under any other name, as a list or as lines of a text, if their speakers are known."""
    for key, value in row.items():
        if has_both_sides(value, roles=roles):
            return key, value
        if isinstance(value, str) and (turns := script_of(value, roles=roles)) is not None:
            return key, turns
    return None


def _dialogue(row: Row, roles: Mapping[str, str]) -> Converted:
    key = _dialogue_key(row)
    found = (key, row[key]) if key is not None else _spoken_under(row, roles)
    if found is None:
        raise BadRow("missing_field", f"no list of turns is here; the row has {keys_of(row)}")
    name, turns = found
    return Converted(conversation_of(with_system(row, dialogue_of(turns, name=name, roles=roles))), tools=read_tools(row))


def _pair(row: Row, roles: Mapping[str, str]) -> Converted:
    """A pair of answers to one prompt, which may stand beside them or at the beginning of both."""
    chosen, rejected = (_answer(row, key, roles=roles) for key in ("chosen", "rejected"))
    prompt = _prompt(row, roles=roles)
    if prompt and chosen[: len(prompt)] == prompt and rejected[: len(prompt)] == prompt:
        prompt = ()
    if not prompt:
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    if not chosen or not rejected or chosen == rejected:
        raise BadRow("equal_answers", "`chosen` and `rejected` are equal, so there is nothing to prefer")
    if not prompt:
        raise BadRow("missing_field", f"no prompt stands before the two answers; the row has {keys_of(row)}")
    return Converted(
        conversation_of(with_system(row, (*prompt, *chosen))), rejected=conversation_of(rejected), tools=read_tools(row)
    )


def _prompt(row: Row, *, roles: Mapping[str, str]) -> tuple[Message, ...]:
    for key in ("messages", "conversations", *_ASKED):
        if isinstance(row.get(key), list) and row[key]:
            return turns_of(row[key], name=key, roles=roles)
    for key in _ASKED:
        if row.get(key) is not None:
            asked = _alpaca_question(row) if key == "instruction" else Message(role=Role.USER, content=filled(row, key))
            return transcript_of(asked.content) or (asked,)
    return ()


def _answer(row: Row, key: str, *, roles: Mapping[str, str]) -> tuple[Message, ...]:
    value = row.get(key)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return turns_of(value, name=key, roles=roles)
    return transcript_of(string_of(row, key)) or (Message(role=Role.ASSISTANT, content=filled(row, key)),)


def _has_choices(row: Row) -> bool:
    asked = any(isinstance(row.get(key), str) for key in ("query", "question"))
    return asked and isinstance(row.get("choices"), list) and any(row.get(key) is not None for key in _GOLD)


def _choices(row: Row) -> Converted:
    """A question of several choices: its answer is the text of the right one."""
    if not _has_choices(row):
        raise BadRow("missing_field", f"`choices` and the right one are missing; the row has {keys_of(row)}")
    key = next(key for key in _GOLD if row.get(key) is not None)
    gold, choices = row[key], row["choices"]
    if isinstance(gold, str) and gold not in choices:
        gold = int(gold) if gold.isdecimal() else (ord(gold.strip().upper()) - ord("A") if len(gold.strip()) == 1 else gold)
    if isinstance(gold, int) and not isinstance(gold, bool):
        if not 0 <= gold < len(choices):
            raise BadRow("out_of_range", f"`{key}` is {gold}, and there are {len(choices)} choices, counted from 0")
        gold = choices[gold]
    if not isinstance(gold, str):
        raise BadRow("wrong_type", f"`{key}` names none of the choices: {shortened(gold)}")
    asked = "query" if isinstance(row.get("query"), str) else "question"
    return _asked_and_answered(row, string_of(row, asked), gold, asked=asked, answered=key)


def _pair_candidate(asked: str, answered: str, *, context: str = "", roles: Mapping[str, str] | None = None) -> _Candidate:
    def fits(row: Row) -> bool:
        return asked in row and answered in row and (not context or isinstance(row.get(context), str))

    def convert(row: Row) -> Converted:
        if isinstance(row.get(asked), list) and is_turns(row[asked], role="role", content="content"):
            both = turns_of(row[asked], name=asked, roles=roles or {}), _answer(row, answered, roles=roles or {})
            return Converted(
                conversation_of(with_system(row, both[0] + both[1])), label=label_of(row.get("label")), tools=read_tools(row)
            )
        question = string_of(row, asked)
        if context:
            about = text_of(row, context)
            # An instruction comes first and its material after it; a question comes after what it is about.
            parts = (question, about) if asked == "instruction" else (about, question)
            question = "\n\n".join(part for part in parts if part.strip()) if question.strip() else question
        return _asked_and_answered(row, question, answer_of(row, answered), asked=asked, answered=answered)

    name = f"{context}+{asked}/{answered}" if context else f"{asked}/{answered}"
    return _Candidate("prompt_completion", name, fits, convert, varying=context)


def _alpaca(row: Row) -> Converted:
    question = _alpaca_question(row).content
    return _asked_and_answered(row, question, answer_of(row, "output"), asked="instruction", answered="output")


def _alpaca_question(row: Row) -> Message:
    asked = filled(row, "instruction")
    more = text_of(row, "input")
    return Message(role=Role.USER, content=f"{asked}\n\n{more}" if more.strip() else asked)


def _asked_and_answered(row: Row, question: str, answer: str, *, asked: str, answered: str) -> Converted:
    for key, text in ((asked, question), (answered, answer)):
        if not text.strip():
            raise BadRow("empty_content", f"`{key}` is empty")
    turns = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Converted(with_system(row, (*_history(row), *turns)), label=label_of(row.get("label")), tools=read_tools(row))


def _history(row: Row) -> tuple[Message, ...]:
    """Earlier turns, as Alpaca's successors have them: a list of pairs of question and answer."""
    history = row.get("history")
    if not isinstance(history, list):
        return ()
    turns = []
    for i, pair in enumerate(history):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadRow("wrong_type", f"history[{i}] is not a pair of question and answer: {shortened(pair)}")
        turns += [Message(role=Role.USER, content=pair[0]), Message(role=Role.ASSISTANT, content=pair[1])]
    return tuple(turns)


def _text_candidate(key: str, label: str | None) -> _Candidate:
    def fits(row: Row) -> bool:
        return key in row and (label is None or (label in row and not isinstance(row[label], list | dict)))

    def convert(row: Row) -> Converted:
        if label is not None and isinstance(row.get(label), list | dict):
            raise BadRow("wrong_type", f"`{label}` is {kind_of_value(row[label])}, not a label: {shortened(row[label])}")
        return Converted(filled(row, key), label=label_of(row.get(label or "label")), tools=read_tools(row))

    return _Candidate("text_label", f"{key}/{label}", fits, convert) if label else _Candidate("text", key, fits, convert)

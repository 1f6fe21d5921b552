"""The steps that drop whole rows: language, length, repetition, conflicting answers, label errors."""

import random
from dataclasses import replace

import pytest

from tunesmith.data.clean import clean
from tunesmith.data.clean.label_errors import doubts
from tunesmith.data.clean.repetition import loop_of, repetition_of
from tunesmith.data.clean_config import CleanStep
from tunesmith.data.read import content_digest
from tunesmith.records import Dropped, Message, Record, Role, Source


def text(content: str, *, line: int = 1, label: str | None = None) -> Record:
    return Record(id=content_digest(content, label=label), source=Source(path="a.txt", line=line), text=content, label=label)


def chat(*contents: str, line: int = 1) -> Record:
    messages = tuple(Message(role=Role.ASSISTANT if i % 2 else Role.USER, content=c) for i, c in enumerate(contents))
    return Record(id=content_digest(messages), source=Source(path="a.jsonl", line=line), messages=messages)


def step(name: str, **settings: object) -> CleanStep:
    return CleanStep.model_validate({name: settings})


def dropped(rows: list[Record], *steps: object) -> list[tuple[int, str]]:
    return [(row.source.line, row.reason) for row in clean(rows, steps=steps).dropped]  # type: ignore[arg-type]


ENGLISH = "I would like to return the blue jacket that I bought from you last Tuesday"
GERMAN = "Ich möchte die blaue Jacke zurückgeben, die ich letzten Dienstag bei Ihnen gekauft habe"


def test_other_languages_go_and_short_or_wordless_texts_stay() -> None:
    rows = [
        text(ENGLISH, line=1),
        text(GERMAN, line=2),
        text("Ja, danke", line=3),
        text("print(x[0] + 12) == 0x1234567 // 99", line=4),
        chat("Hallo!", ENGLISH, line=5),  # judged as a whole
        text("我想退回上周二从你们店里买的那件蓝色夹克", line=6),
    ]
    cleaned = clean(rows, steps=[step("language", keep=["en"])])
    assert [(row.source.line, row.reason, row.detail) for row in cleaned.dropped] == [
        (2, "language", "the language is de, not en"),
        (6, "language", "the language is zh, not en"),
    ]
    assert cleaned.accounts[0].found == {"en": 2, "unknown": 2}


def test_without_settings_languages_are_only_counted() -> None:
    cleaned = clean([text(ENGLISH), text(GERMAN)], steps=["language"])
    assert len(cleaned.kept) == 2
    assert cleaned.accounts[0].found == {"en": 1, "de": 1}


def test_lengths_are_bounded() -> None:
    rows = [text("x", line=1), text("long enough", line=2), text("x" * 100, line=3), chat("Why?", "No", line=4)]
    bounds = step("length", min_characters=5, max_characters=50, min_answer_characters=3)
    assert dropped(rows, bounds) == [(1, "too_short"), (3, "too_long"), (4, "answer_too_short")]
    assert dropped(rows, "length") == [(1, "too_short")]


WORDS = [f"word{i}" for i in range(400)]


def prose(num_words: int, *, seed: int = 0) -> str:
    return " ".join(random.Random(seed).sample(WORDS, num_words))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (prose(200), None),
        ("\n".join([prose(20, seed=i) for i in range(6)] + [prose(20, seed=9)] * 4), "repeated lines: 30 %"),
        ("\n".join([prose(20, seed=i) for i in range(6)] + [prose(20, seed=9)] * 5), "repeated lines: 36 %"),
        ("\n\n".join([prose(50, seed=i) for i in range(4)] + [prose(90, seed=9)] * 2), "characters in repeated paragraphs"),
        (" ".join(f"the cat {word}" for word in WORDS[:100]), "characters in the most common 2 words"),
        (prose(60) + " " + prose(60), "characters in repeated 5 words"),
    ],
)
def test_a_text_repeats_itself_by_gophers_shares(content: str, found: str | None) -> None:
    said = repetition_of(content)
    if found == "repeated lines: 30 %":  # exactly the most that it may be
        assert said is None or not said.startswith("repeated lines:")
    else:
        assert said == found if found is None else said is not None and said.startswith(found)


@pytest.mark.parametrize(
    ("answer", "is_loop"),
    [
        ("I am sorry. " * 12, True),
        (prose(15) + " and so on" * 12, True),
        ("ha" * 60, True),
        ("- apples\n- pears\n- plums\n- figs\n- nuts\n- dates\n- limes\n- kiwis\n- mangos\n- grapes\n- lemons", False),
        (prose(100), False),
        ("very very very good", False),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |", False),
        ("=" * 80, False),
    ],
)
def test_an_answer_caught_in_a_loop_is_known(answer: str, is_loop: bool) -> None:
    assert (loop_of(answer) is not None) == is_loop


def test_only_answers_are_judged_for_loops() -> None:
    assert dropped([chat("no " * 30, "I see"), chat("Hi", "no " * 30, line=2)], "repetition") == [(2, "repetition")]


CONFLICTS = [
    chat("When do you open?", "At nine.", line=1),
    chat("when do you open", "at nine", line=2),
    chat("When do you open?!", "At ten.", line=3),
    chat("Where are you?", "In Bath.", line=4),
]


@pytest.mark.parametrize(
    ("drop", "lines"),
    [("none", []), ("later", [3]), ("all", [1, 2, 3])],
)
def test_conflicting_answers_are_counted_and_dropped_on_demand(drop: str, lines: list[int]) -> None:
    cleaned = clean(CONFLICTS, steps=[step("conflicting_answers", drop=drop)])
    assert [row.source.line for row in cleaned.dropped] == lines
    (account,) = cleaned.accounts
    assert account.found["conflicting_answer"] == 3 - len(lines)
    details = {e.source.line: e.detail for e in account.examples}
    assert details[3] == "asked at a.jsonl:1 too, with another answer"


def test_a_label_is_an_answer_too_and_a_verdict_is_not() -> None:
    assert dropped(
        [text("great", label="good"), text("Great!", label="bad", line=2)], step("conflicting_answers", drop="later")
    ) == [(2, "conflicting_answer")]
    pairs = [(chat("q", "x", line=1), "good"), (chat("q", "y", line=2), "bad")]
    verdicts = [replace(record, label=verdict) for record, verdict in pairs]
    assert dropped(verdicts, step("conflicting_answers", drop="all")) == []


def test_planted_label_errors_are_found() -> None:
    chance = random.Random(3)
    subjects = {
        "food": "soup bread apple cheese dinner lunch",
        "sport": "goal match ball team race medal",
        "law": "court judge act appeal jury case",
    }
    rows = [
        (" ".join([*chance.choices(words.split(), k=6), *chance.choices(WORDS, k=2)]), label)
        for label, words in subjects.items()
        for _ in range(60)
    ]
    wrong = set(chance.sample(range(len(rows)), 9))
    others = {"food": "sport", "sport": "law", "law": "food"}
    labels = [others[label] if i in wrong else label for i, (_, label) in enumerate(rows)]
    found = {i for i, doubt in enumerate(doubts([content for content, _ in rows], labels)) if doubt}
    assert len(found & wrong) >= 8
    assert len(found) <= 11
    records = [text(content, line=i, label=label) for i, ((content, _), label) in enumerate(zip(rows, labels, strict=True))]
    reported = clean(records, steps=["label_errors"])
    assert len(reported.kept) == len(records)
    assert reported.accounts[0].found["label_error"] == len(found)
    gone = clean(records, steps=[step("label_errors", likely_wrong="drop")]).dropped
    assert {row.source.line for row in gone if isinstance(row, Dropped)} == found
    i = min(found & wrong)
    assert f"labelled {labels[i]!r}, likely {rows[i][1]!r}" in gone[0].detail


def test_too_few_labels_are_not_judged() -> None:
    assert doubts(["a", "b"], ["x", "y"]) == [None, None]
    assert doubts([], []) == []
    assert doubts(["one"] * 20, ["x"] * 20) == [None] * 20

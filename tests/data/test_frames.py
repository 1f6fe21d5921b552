"""What many rows share word for word tells no two of them apart: a long system prompt or instruction makes no near-duplicates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from tunesmith.data import SplitConfig
from tunesmith.data.clean import clean
from tunesmith.data.contamination import contaminations
from tunesmith.data.frames import frames_of
from tunesmith.data.leakage import asked_of, said_in
from tunesmith.data.profile import count_leaks, find_repeats
from tunesmith.data.read import content_digest
from tunesmith.data.split import split
from tunesmith.records import Message, Record, Role, Source

PROMPT = "You are the assistant of a boutique. " + " ".join(
    f"Rule {n}: be kind, and never promise number {n}." for n in range(40)
)
WORDS = ("dress", "coat", "hat", "scarf", "shirt", "belt", "shoe", "sock", "glove", "bag", "skirt", "tie")
COLOURS = ("red", "green", "blue", "black", "white")
DRAWN = random.Random(4)
PAIRS = [
    (f"Is there a {word} in {colour}?", f"{DRAWN.choice(('Yes', 'No'))}, {word} number {DRAWN.randint(100, 999)}.")
    for word in WORDS
    for colour in COLOURS
]


def row(question: str, answer: str, *, line: int = 1, system: str = "", origin: int = 0) -> Record:
    turns = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    messages = (Message(role=Role.SYSTEM, content=system), *turns) if system else turns
    return Record(id=content_digest(messages), source=Source(path="a.jsonl", line=line), messages=messages, origin=origin)


def rows_of(kind: str, pairs: Sequence[tuple[str, str]] = PAIRS) -> list[Record]:
    if kind == "bare":
        return [row(question, answer, line=line) for line, (question, answer) in enumerate(pairs, 1)]
    if kind == "under a system prompt":
        return [row(question, answer, line=line, system=PROMPT) for line, (question, answer) in enumerate(pairs, 1)]
    if kind == "under an instruction":
        return [row(f"{PROMPT}\n\n{question}", answer, line=line) for line, (question, answer) in enumerate(pairs, 1)]
    if kind == "within a line":
        asked = "Below is what somebody asks in our shop: {} What do we say in the fewest words? Answer:"
        return [row(asked.format(question), answer, line=line) for line, (question, answer) in enumerate(pairs, 1)]
    return [row(f"{question}\n\n{PROMPT}\n\nAnswer:", answer, line=line) for line, (question, answer) in enumerate(pairs, 1)]


KINDS = ("under a system prompt", "under an instruction", "before an instruction", "within a line")


@pytest.mark.parametrize("kind", KINDS)
def test_cleaning_and_splitting_decide_as_for_bare_rows(kind: str) -> None:
    bare, framed = rows_of("bare"), rows_of(kind)
    for step in ("near_duplicates", "semantic_duplicates"):
        kept = [[each.source.line for each in clean(rows, steps=(step,)).kept] for rows in (bare, framed)]
        assert kept[0] == kept[1]
        assert len(kept[0]) > len(bare) / 2
    for compare in ("questions", "rows"):
        config = SplitConfig(validation=0.1, test=0.2, compare=compare)  # type: ignore[arg-type]
        found = [split(rows, config=config, seed=0) for rows in (bare, framed)]
        groups = []
        for division in found:
            together: dict[str, set[int]] = {}
            for part in division.parts.values():
                for each in part:
                    together.setdefault(each.cluster, set()).add(each.source.line)
            groups.append(sorted(map(sorted, together.values())))
        assert groups[0] == groups[1]
        assert found[0].leakage.num_left == found[1].leakage.num_left == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_tests_are_found_by_what_they_ask_and_not_by_their_frame(kind: str) -> None:
    planted = [("Is there a scarf in green ?", "Yes."), ("When does the shop in the old harbour open on Sundays?", "At ten.")]
    rows, tests = rows_of(kind), rows_of(kind, [*planted, *(("What is a waistcoat?", f"{n}.") for n in range(3))])
    found = contaminations(rows, tests, share=0.5, likeness=0.7)
    bare = contaminations(rows_of("bare"), rows_of("bare", planted), share=0.5, likeness=0.7)
    assert [each is not None for each in found] == [each is not None for each in bare]
    assert sum(each is not None for each in found) >= 1


def test_what_a_row_alone_is_told_counts() -> None:
    """A document in the system prompt is what a row is about: with another one the same question and answer are another row."""
    documents = [" ".join(random.Random(n).choices(WORDS + COLOURS, k=60)) for n in range(40)]
    rows = [row("Is that in favour?", "Yes.", line=line, system=document) for line, document in enumerate(documents, 1)]
    assert len(clean(rows, steps=("near_duplicates",)).kept) == 40
    again = replace(rows[0], source=Source(path="a.jsonl", line=99), id="another")
    assert [str(each.source) for each in clean([*rows, again], steps=("near_duplicates",)).dropped] == ["a.jsonl:99"]


def test_few_documents_with_the_same_questions_and_answers_lose_no_row() -> None:
    documents = [" ".join(random.Random(n).choices(WORDS + COLOURS, k=60)) for n in range(8)]
    asked = ("Is it in favour?", "Is it about a coat?", "Does it name a price?", "Is it long?", "Is it short?")
    rows = [row(question, "Yes.", system=document) for document in documents for question in asked]
    assert frames_of(rows)
    assert len(clean(rows, steps=("near_duplicates",)).kept) == 40


def test_a_body_that_some_rows_repeat_is_no_frame() -> None:
    body = "I have ordered a coat three weeks ago and it has not come yet. " * 4
    rows = rows_of("bare") + [
        row(f"{body}\n\nYours, {name}", "We are sorry.", line=100 + at)
        for at, name in enumerate(("Ann", "Ben", "Cay", "Dan", "Eve", "Fay"))
    ]
    dropped = clean(rows, steps=("near_duplicates",)).dropped
    assert {each.source.line for each in dropped} >= {101, 102, 103, 104, 105}


def test_where_all_of_a_question_is_shared_all_of_it_is_compared() -> None:
    texts, asked = ["The dog barks at the cat."] * 8, ["Who barks?"] * 8
    rows = [row(f"{text}\n\n{question}", str(n), line=n) for n, (text, question) in enumerate(zip(texts, asked, strict=True))]
    frames = frames_of(rows)
    assert len(frames) == 2
    assert asked_of(rows[0], frames=frames) == "The dog barks at the cat.\n\nWho barks?"


@pytest.mark.parametrize(
    ("asked", "compared"),
    [
        ("Translate: {}", "{}"),
        ("Translate into French: {}", "{}"),
        ("Is this good? {} Sentiment:", "{} Sentiment:"),
        ("翻译：{}", "{}"),
        ("Text: {}\n\nSummary:", "{}"),
        ("Read the text.\nText: a {}\n\nSummary:", "Text: a {}"),
        ("Text: {}\nQuestion: why?", "{}"),
        ("Read: " + "one. " * 30 + "{}", "one. " * 20 + "{}"),
        ("{}", "{}"),
        ("no mark {}", "no mark {}"),
    ],
)
def test_a_template_within_a_line_is_left_out(asked: str, compared: str) -> None:
    words = random.Random(2)
    bodies = [" ".join(words.choices(WORDS, k=6)) for _ in range(20)]
    rows = [row(asked.format(body), str(n), line=n) for n, body in enumerate(bodies)]
    assert [asked_of(each, frames=frames_of(rows)) for each in rows] == [compared.format(body) for body in bodies]


def test_a_question_without_a_template_is_compared_as_it_is_written() -> None:
    rows = [row(f"{n} hats.\n\n  And {n} coats?  Yes, {n}.", str(n), line=n) for n in range(20)]
    frames = frames_of([*rows, *rows_of("within a line")])
    assert not frames_of(rows)
    assert frames
    assert [asked_of(each, frames=frames) for each in rows] == [each.messages[0].content for each in rows]


def test_shares_are_of_the_rows_of_one_source() -> None:
    few = [row(question, answer, line=n, system=PROMPT, origin=1) for n, (question, answer) in enumerate(PAIRS[:6])]
    many = [row(f"{n}?", str(n), line=n) for n in range(1000)]
    frames = frames_of([*many, *few])
    assert said_in(few[0], frames=frames) == "\n".join(PAIRS[0])
    assert said_in(few[0]) == "\n".join((PROMPT, *PAIRS[0]))
    assert not frames_of([*many, *(replace(each, origin=0) for each in few)])
    assert not frames_of(few[:4])
    shouted = [
        replace(each, messages=(Message(role=Role.SYSTEM, content=f" {PROMPT.upper()} "), *each.messages[1:])) for each in few
    ]
    assert frames_of([*few[:3], *shouted[3:]]) == frames_of(few)
    text = replace(many[0], messages=(), text="plain")
    assert list(map(partial(said_in, frames=frames), [text])) == ["plain"]


def test_chats_that_begin_with_a_greeting_are_divided_by_what_comes_after_it() -> None:
    draw = random.Random(1)

    def chat(number: int, *, greeting: str) -> Record:
        turns = (greeting, "Hello, how can I help?", f"{' '.join(draw.choices(WORDS + COLOURS, k=8))}?", f"Answer {number}.")
        messages = tuple(Message(role=(Role.USER, Role.ASSISTANT)[at % 2], content=turn) for at, turn in enumerate(turns))
        return Record(id=content_digest(messages), source=Source(path="a.jsonl", line=number), messages=messages)

    rows = [chat(number, greeting=draw.choice(("Hi", "hi ", "Hello"))) for number in range(100)]
    rows.append(replace(rows[3], id="again", messages=(*rows[3].messages[:3], Message(role=Role.ASSISTANT, content="Other."))))
    division = split(rows, config=SplitConfig(validation=0.1, test=0.2), seed=0)
    assert sum(division.clusters.values()) == 100
    homes = {each.id: name for name, part in division.parts.items() for each in part}
    assert homes["again"] == homes[rows[3].id]
    assert count_leaks(division.parts["train"], division.parts["test"]) == 0
    assert count_leaks(division.parts["train"], [rows[3], rows[50]]) == sum(homes[rows[at].id] == "train" for at in (3, 50))


@pytest.mark.parametrize("told", ["{}", "Answer from this text.\n{}", "Today is 2026-11-{:02}. Use what follows.\n{}"])
def test_questions_about_documents_in_the_system_prompt_are_divided_by_document(told: str) -> None:
    documents = [" ".join(random.Random(n).choices(WORDS + COLOURS, k=60)) for n in range(60)]
    rows = []
    for at, document in enumerate(documents):
        system = told.format(at % 28 + 1, document) if "{:02}" in told else told.format(document)
        rows += [row(asks, f"{asks[:3]} {at}", line=at, system=system) for asks in ("Summarise the text.", "Who is named?")]
    division = split(rows, config=SplitConfig(validation=0.1, test=0.2), seed=0)
    assert sum(division.clusters.values()) == 60
    for part in division.parts.values():
        lines = [each.source.line for each in part]
        assert all(lines.count(line) == 2 for line in lines)
    assert find_repeats(rows).num_conflicts == 0
    assert not any(contaminations(rows[:100], rows[100:], share=0.5, likeness=0.7))


def test_prompts_that_differ_in_a_date_alone_tie_nothing() -> None:
    rows = [
        row(question, answer, line=line, system=f"{PROMPT} Today is day {line} of the year.")
        for line, (question, answer) in enumerate(PAIRS, 1)
    ]
    config = SplitConfig(validation=0.1, test=0.2)
    divisions = [split(each, config=config, seed=0) for each in (rows_of("bare"), rows)]
    assert sum(divisions[0].clusters.values()) == sum(divisions[1].clusters.values())

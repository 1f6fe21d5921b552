import json
import random
import textwrap
from pathlib import Path

import pytest

from tunesmith.data import DataConfig, SourceConfig, SplitConfig, freeze, load_split
from tunesmith.data.clean import clean
from tunesmith.data.clean_config import CleanStep
from tunesmith.data.read import content_digest
from tunesmith.errors import DataError
from tunesmith.records import Message, Record, Role, Source
from tunesmith.store import Store

STORY = (
    "The miller had three sons, a mill, a donkey and a cat. When he died the eldest took the mill, the second the donkey, "
    "and the youngest was left with nothing but the cat, who asked for a pair of boots and a bag."
)
OTHER = (
    "In a far country a king let it be known that whoever could make his daughter laugh should have her for his wife, and "
    "many came with jokes and juggling, but she only looked out of the window at the rain."
)


def text(content: str, line: int, *, label: str | None = None) -> Record:
    return Record(id=content_digest(content), source=Source(path="a.txt", line=line), text=content, label=label)


def asked(question: str, answer: str, line: int) -> Record:
    messages = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Record(id=content_digest(messages), source=Source(path="a.jsonl", line=line), messages=messages)


def test_first_of_a_cluster_is_kept_and_the_reason_names_it_and_the_similarity() -> None:
    rows = [text(OTHER, 1), text(STORY, 2), text(STORY.replace("boots", "shoes"), 3), text(OTHER.upper(), 4)]
    cleaned = clean(rows, steps=("near_duplicates",))
    assert cleaned.kept == rows[:2]
    assert [(str(row.source), row.reason) for row in cleaned.dropped] == [
        ("a.txt:3", "near_duplicate"),
        ("a.txt:4", "near_duplicate"),
    ]
    sets = []
    for row in rows[1:3]:
        plain = " ".join("".join(sign if sign.isalpha() else " " for sign in row.text.lower()).split())
        sets.append({plain[i : i + 5] for i in range(len(plain) - 4)})
    jaccard = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert cleaned.dropped[0].detail == f"nearly the same as a.txt:2 (Jaccard {jaccard:.2f}), which is kept"
    assert cleaned.dropped[1].detail == "nearly the same as a.txt:1 (Jaccard 1.00), which is kept"


def test_rows_tied_through_another_say_through_which() -> None:
    words = STORY.split()
    steps = [" ".join([*[w.upper() + "X" for w in words[:i]], *words[i:]]) for i in (0, 2, 4)]
    rows = [text(step, line) for line, step in enumerate(steps, 1)]
    cleaned = clean(rows, steps=(CleanStep(near_duplicates={"threshold": 0.88}),))
    assert len(cleaned.kept) == 1
    assert "and through it as a.txt:1, which is kept" in cleaned.dropped[1].detail


def test_same_text_with_another_label_stays() -> None:
    rows = [text(STORY, 1, label="tale"), text(STORY, 2, label="news"), text(STORY.lower(), 3, label="news")]
    cleaned = clean(rows, steps=("near_duplicates", "semantic_duplicates"))
    assert cleaned.kept == rows[:2]
    assert cleaned.dropped[0].detail.startswith("nearly the same as a.txt:")


def test_another_answer_to_the_same_question_stays() -> None:
    rows = [asked("What is it?", STORY, 1), asked("What is it?", OTHER, 2)]
    assert clean(rows, steps=("near_duplicates",)).kept == rows


def test_words_in_another_order_are_semantic_duplicates_and_other_rows_are_not() -> None:
    sentences = [part.strip() for part in (STORY + " " + OTHER).replace(",", ".").split(".") if len(part.split()) > 4]
    turned = " ".join(reversed(STORY.replace(".", "").replace(",", "").split()))
    rows = [text(content, line) for line, content in enumerate([STORY, OTHER, *sentences, turned], 1)]
    cleaned = clean(rows, steps=(CleanStep(semantic_duplicates={"threshold": 0.8}),))
    assert [str(row.source) for row in cleaned.dropped] == [f"a.txt:{len(rows)}"]
    assert cleaned.dropped[0].detail.startswith("in other words the same as a.txt:1 (cosine 1.00)")
    assert clean(rows[:-1], steps=("semantic_duplicates",)).dropped == []


def file_of_tests(folder: Path, *questions: str) -> CleanStep:
    (folder / "tests.jsonl").write_text("".join(json.dumps({"prompt": q, "completion": "a"}) + "\n" for q in questions))
    return CleanStep(decontaminate={"against": ["tests.jsonl"]})


@pytest.mark.parametrize(
    "written",
    [
        STORY,
        textwrap.fill(STORY, 30),
        "\n> ".join(textwrap.wrap(STORY, 25)),
        STORY.upper().replace(" ", "  "),
        STORY.replace("donkey", "don-\nkey"),
        OTHER * 40 + STORY + OTHER * 40,
        STORY.replace("miller", "baker"),
    ],
)
def test_test_row_is_found_however_it_is_wrapped_and_wherever_it_stands(tmp_path: Path, written: str) -> None:
    rows = [text(OTHER, 1), text(written, 2)]
    step = file_of_tests(tmp_path, "Which of two brothers is the elder?", STORY)
    cleaned = clean(rows, steps=(step,), folder=tmp_path)
    assert cleaned.kept == rows[:1]
    assert cleaned.dropped[0].reason == "contaminated"
    assert cleaned.dropped[0].detail.endswith("of test row tests.jsonl:2")


def test_short_question_is_found_as_a_whole_or_nearly(tmp_path: Path) -> None:
    step = file_of_tests(tmp_path, "Do you open on Sundays?", "Why?")
    rows = [
        asked("Hello! Do you open on Sundays? Thanks", "Yes", 1),
        asked("do you open on sunday", "No", 2),
        asked("Do you open early?", "Yes", 3),
        asked("Why? Because I said so, and that is all", "Yes", 4),
        asked("why", "Yes", 5),
    ]
    cleaned = clean(rows, steps=(step,), folder=tmp_path)
    assert [row.source.line for row in cleaned.kept] == [3, 4]
    assert cleaned.dropped[-1].detail == "asks nearly the same as test row tests.jsonl:2"


def test_copy_of_a_test_among_many_of_one_template_is_found(tmp_path: Path) -> None:
    chance = random.Random(0)
    template = (
        "Dear customer, your order {} left our house today and will be with you within two working days, weather permitting."
    )
    step = file_of_tests(tmp_path, *(template.format(chance.randrange(10**6)) for _ in range(300)))
    rows = [text("Note: " + template.format(f"number {i}"), i) for i in range(1, 9)] + [text(OTHER, 9)]
    assert [row.source.line for row in clean(rows, steps=(step,), folder=tmp_path).kept] == [9]


def test_tests_that_cannot_be_read_are_not_passed_over(tmp_path: Path) -> None:
    step = file_of_tests(tmp_path, "Fine?")
    with (tmp_path / "tests.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match=r"tests\.jsonl:2: a row of tests cannot be read"):
        clean([text(STORY, 1)], steps=(step,), folder=tmp_path)


def test_own_tests_are_taken_out_of_the_training_rows_after_the_split(tmp_path: Path) -> None:
    chance = random.Random(0)
    words = [a + b + c for a in "bdfgklm" for b in "aeiou" for c in "nrstxz"]
    questions = [" ".join(chance.choices(words, k=10)) for _ in range(60)]
    rows = [{"prompt": q, "completion": "a"} for q in questions] + [{"text": "\n".join(questions)}]
    for name, part in (("a.jsonl", rows[:-1]), ("b.jsonl", rows[-1:])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    sources = (SourceConfig(path="a.jsonl"), SourceConfig(path="b.jsonl", group_by=None))
    store = Store(tmp_path / "work")
    config = DataConfig(sources=sources, clean=("decontaminate",), split=SplitConfig(validation=0, test=0.1), seed=3)
    snapshot = freeze(config, folder=tmp_path, store=store)
    assert snapshot.dropped == {"contaminated": 1}
    assert "decontaminate against the recipe's own tests: 1 dropped" in snapshot.steps
    train = load_split(store, snapshot, split="train")
    assert not any(row.text for row in train)
    assert snapshot.splits["train"] == len(train)


def test_an_instruction_makes_no_rows_alike_and_no_split_another(tmp_path: Path) -> None:
    """Short questions under `Translate into French:` share most of their characters; they are compared by what they ask."""
    words = ("Run", "Wow", "Stop", "Sit", "Eat", "Come", "Look", "Wait", "Think", "Drink", "Read", "Sing", "Walk", "Jump", "Swim")
    rows = [{"question": f"{word}!", "answer": word[::-1]} for word in words]
    answers = ("Straight on and then to the left", "There are two: one in the east and one in the west")
    rows.append({"question": "Could you tell me where the station is near here?", "answer": answers[0]})
    rows.append({"question": "Could you tell me where the station is near there?", "answer": answers[1]})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    together = []
    for instruction in ("", "Translate the following sentence into French, please:"):
        config = DataConfig(
            sources=(SourceConfig(path="a.jsonl", instruction=instruction),),
            clean=("near_duplicates", "decontaminate"),
            split=SplitConfig(validation=0.2, test=0.2),
        )
        store = Store(tmp_path / f"work{len(instruction)}")
        snapshot = freeze(config, folder=tmp_path, store=store)
        assert snapshot.dropped == {}
        assert snapshot.leakage is not None
        assert (snapshot.leakage.num_left, snapshot.leakage.reason) == (0, "")
        kept = [record for name in snapshot.splits for record in load_split(store, snapshot, split=name)]
        asked = {f"{instruction}\n\n{row['question']}".strip() for row in rows}
        assert {record.messages[0].content for record in kept} == asked
        clusters: dict[str, set[str]] = {}
        for record in kept:
            clusters.setdefault(record.cluster, set()).add(record.messages[1].content)
        together.append(sorted(sorted(answers) for answers in clusters.values()))
    assert together[0] == together[1]
    assert sorted(answers) in together[0], "what asks nearly the same stays together"
    assert len(together[0]) == len(words) + 1

"""Which test rows may be judged on: those that no arm has seen."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.pipeline.evaluation_rows import Learned, contamination_of, labels_of, near_rows, tied, unseen
from tunesmith.records import Message, Record, Role, Snapshot, Source

SNAPSHOT = Snapshot(id="s", splits={}, num_read=0, dropped={}, formats={}, steps=())


def row(number: int, asks: str, answer: str = "Yes.", *, cluster: str = "", group: str | None = None) -> Record:
    turns = (Message(role=Role.USER, content=asks), Message(role=Role.ASSISTANT, content=answer))
    return Record(id=f"r{number}", source=Source(path="x.jsonl", line=number), messages=turns, cluster=cluster, group=group)


def learned(*numbers: int) -> Learned:
    return Learned(snapshot=SNAPSHOT, train=(), ids=frozenset(f"r{number}" for number in numbers))


def test_rows_that_any_arm_has_seen_are_left_out_once_and_counted() -> None:
    rows = [row(i, f"Question {i}?") for i in range(6)]
    kept, left_out = unseen(rows, by={"a@1": learned(0, 1, 9), "a@2": learned(1, 2), "a@3": learned()})
    assert [record.id for record in kept] == ["r3", "r4", "r5"]
    assert left_out == {"seen by a@1 in training": 2, "seen by a@2 in training": 1}


def test_test_rows_that_ask_nearly_what_a_training_row_asks_are_named() -> None:
    train = [row(10, "Where is the old harbour?"), row(11, "At what time do you open on Sundays in winter?")]
    test = [row(0, "At what time do you open on Sundays in winter ?"), row(1, "Do you sell umbrellas?")]
    near = near_rows(test, train=train)
    assert [(one.test.id, one.train.id) for one in near] == [("r0", "r11")]
    told = contamination_of(near, num_rows=2, snapshot=SNAPSHOT, are_left_out=True)
    assert (told["near"], told["rows"]) == (1, 2)
    assert told["summary"].startswith("1 of 2 test rows ask nearly what a training row asks")
    assert told["examples"][0]["train"] == "x.jsonl:11"
    assert near_rows([], train=train) == near_rows(test, train=[]) == []


def test_an_instruction_makes_no_test_row_near_a_training_row() -> None:
    """Also beside training rows of an older snapshot, which do not tell theirs."""
    asks = "Translate the following sentence into French, please:"
    plain = [row(10, f"{asks}\n\nWow!"), row(11, f"{asks}\n\nI would like a cup of coffee.")]
    plain += [row(12 + at, f"{asks}\n\n{word}!") for at, word in enumerate(("Stop", "Sit", "Eat", "Look"))]
    test = [row(0, f"{asks}\n\nRun!"), row(1, f"{asks}\n\nI would like a cup of coffee!")]
    told, untold = ([replace(each, instruction=asks) for each in rows] for rows in (plain, test))
    for train in (plain, told):
        assert [(one.test.id, one.train.id) for one in near_rows(untold, train=train)] == [("r1", "r11")]


def test_rows_are_labelled_by_likeness_to_training_rows_and_by_language() -> None:
    english = "Can I bring back a dress that I bought three weeks ago in your shop?"
    german = "Kann ich ein Kleid zurückgeben, das ich vor drei Wochen in Ihrem Laden gekauft habe?"
    train = [row(i, f"Do you repair the shoes of brand {i} in your workshop?") for i in range(20)]
    train.append(row(30, "Could I bring back a dress which I bought three weeks ago in your shop?"))
    found = labels_of([row(40, english), row(41, german), row(42, "ok?", "ok")], train=train)
    assert found["likeness"] == ["near a training row", "new", "new"]
    assert found["language"] == ["en", "de", ""]
    answered = row(50, "And what about gloves?", "Alterations are free of charge for everything that you buy from us.")
    alike = row(51, "Who shortens trousers?", "Alterations are free of charge for everything that you buy from us.")
    assert labels_of([answered], train=[*train, alike])["likeness"] == ["new"]  # one answer serves many questions
    assert labels_of([row(40, english)], train=[])["likeness"] == ["new"]


def test_rows_of_one_cluster_or_group_or_that_ask_the_same_are_tied() -> None:
    rows = [
        row(0, "Where are you?", cluster="k"),
        row(1, "How much is the hat?", cluster="k"),
        row(2, "Who made this coat?", group="g"),
        row(3, "Is there a sale?", group="g"),
        row(4, "At what time do you open on Sundays?"),
        row(5, "At what time do you open on Sundays??"),
        row(6, "Do you deliver abroad?"),
    ]
    clusters = [record.cluster for record in tied(rows)]
    assert clusters[0] == clusters[1]
    assert clusters[2] == clusters[3]
    assert clusters[4] == clusters[5]
    assert len(set(clusters)) == 4
    assert [replace(record, cluster="") for record in tied(rows)] == [replace(record, cluster="") for record in rows]

"""The coverage verdict on data whose answer is known: the boutique's own rows, general chat, and the boutique without a topic."""

import gzip
import json
import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.data import SourceConfig, read
from tunesmith.data.coverage import Coverage, measure_coverage
from tunesmith.data.targets import read_targets
from tunesmith.errors import DataError, NotFound
from tunesmith.records import Message, Record, Role, Source

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def boutique() -> tuple[list[Record], list[Record]]:
    """Training rows, and 50 targets in wordings that no training row has."""
    rows = list(read(SourceConfig(path="conversations.jsonl"), folder=ROOT / "examples" / "boutique").rows)
    records = [row for row in rows if isinstance(row, Record)]
    groups = sorted({str(row.group) for row in records})
    draw = random.Random(0)
    draw.shuffle(groups)
    held = set(groups[: len(groups) // 10])
    targets = [row for row in records if row.group in held]
    draw.shuffle(targets)
    return [row for row in records if row.group not in held], targets[:50]


def chat(name: str, *, asked: str, answered: str | None, limit: int = 3000) -> list[Record]:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{name} of the shared data is not on this machine")
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for _, line in zip(range(limit), file, strict=False)]
    return [conversation(i, row[asked], row[answered] if answered else None) for i, row in enumerate(rows)]


def conversation(number: int, question: str, answer: str | None, *, domain: str = "") -> Record:
    turns = [Message(role=Role.USER, content=question)]
    if answer is not None:
        turns.append(Message(role=Role.ASSISTANT, content=answer))
    return Record(id=str(number), source=Source(path="x.jsonl", line=number + 1), messages=tuple(turns), domain=domain)


def check_account(found: Coverage) -> None:
    assert sum(found.histogram) == found.num_targets
    assert sum(gap.num_targets for gap in found.gaps) == found.num_targets - found.num_well - found.num_thin
    assert 0 <= found.effective_rows <= found.num_near_rows <= found.num_rows


def test_the_boutiques_own_rows_are_enough_for_its_questions(boutique: tuple[list[Record], list[Record]]) -> None:
    rows, targets = boutique
    found = measure_coverage(rows, targets=targets)
    check_account(found)
    assert (found.verdict, found.gaps) == ("enough", ())
    assert found.effective_rows > 200


@pytest.mark.parametrize(
    ("name", "asked", "answered"),
    [
        ("instruct/dolly_hhrlhf_small.jsonl.gz", "prompt", "response"),
        ("retail/bitext_customer_support.jsonl.gz", "instruction", "response"),
        ("classification/clinc150.jsonl.gz", "text", None),
    ],
)
def test_general_chat_is_not_enough_for_the_boutique(
    boutique: tuple[list[Record], list[Record]], name: str, asked: str, answered: str | None
) -> None:
    rows = chat(name, asked=asked, answered=answered)
    found = measure_coverage(rows, targets=boutique[1])
    check_account(found)
    assert found.verdict == "not enough"
    assert found.num_well <= 2
    assert found.effective_rows < 20
    with_some = measure_coverage([*rows, *boutique[0][::90]], targets=boutique[1])
    assert with_some.verdict == "not enough"
    assert with_some.effective_rows > found.effective_rows


def test_few_rows_of_the_right_kind_are_not_enough_and_many_cover_more() -> None:
    rows = chat("classification/banking77.jsonl.gz", asked="text", answered=None, limit=9000)
    random.Random(0).shuffle(rows)
    few, many = (measure_coverage(rows[50:end], targets=rows[:50]) for end in (150, 9000))
    assert few.verdict == "not enough"
    assert many.verdict != "not enough"
    assert many.num_well > 30 > few.num_well
    assert many.effective_rows > 500


@pytest.mark.parametrize(("topic", "word"), [("returns", "return"), ("hours", "monday"), ("loyalty", "loyalty")])
def test_a_topic_that_was_taken_out_is_named(boutique: tuple[list[Record], list[Record]], topic: str, word: str) -> None:
    rows, targets = boutique
    every = [row for row in rows if row.domain == topic][:8] + [row for row in targets if row.domain != topic][:30]
    left = [row for row in rows if row.domain != topic]
    found = measure_coverage(left, targets=every)
    check_account(found)
    assert found.verdict != "enough"
    assert found.gaps[0].topic == topic
    assert any(topic in sentence and found.gaps[0].examples[0].source in sentence for sentence in found.advice)
    nameless = measure_coverage(left, targets=[replace(row, domain="") for row in every])
    assert nameless.num_well == found.num_well
    assert any(word in gap.topic for gap in nameless.gaps)


def test_a_target_without_words_is_told_as_such() -> None:
    rows = [conversation(i, f"what does hat {i} cost", None) for i in range(5)]
    found = measure_coverage(rows, targets=[conversation(0, "👍", None), conversation(1, "what does hat 3 cost", None)])
    assert [(gap.topic, gap.num_targets) for gap in found.gaps] == [("(no words)", 1)]
    assert found.num_well == 1


def test_questions_alone_are_compared_with_questions() -> None:
    rows = [
        conversation(i, f"what does a {item} cost", "long words about nothing " * 30)
        for i, item in enumerate(["hat", "tie"] * 20)
    ]
    found = measure_coverage(rows, targets=[conversation(0, "what does a hat cost", None)])
    assert found.num_well == 1


def test_nearness_is_the_cosine_of_tfidf_vectors() -> None:
    """One word each, no pairs: the formula written out over words and their four-letter pieces."""
    texts = ["hat", "hats", "tie"]
    rows = [conversation(i, text, None) for i, text in enumerate(texts)]
    found = measure_coverage(rows[1:], targets=rows[:1])
    pieces = [[text] + ["#" + f"_{text}_"[i : i + 4] for i in range(len(text) - 1)] for text in texts]
    frequency = Counter(piece for each in pieces for piece in set(each))
    vectors = [{piece: math.log(4 / (1 + frequency[piece])) for piece in each} for each in pieces]
    lengths = [math.sqrt(sum(value**2 for value in vector.values())) for vector in vectors]
    expected = sum(vectors[0][piece] * vectors[1].get(piece, 0) for piece in vectors[0]) / lengths[0] / lengths[1]
    gap = found.gaps[0].examples[0] if found.gaps else None
    assert gap is not None
    assert gap.nearness == pytest.approx(expected, abs=1e-3)


def test_scripts_without_blanks_are_read_letter_by_letter() -> None:
    rows = [conversation(i, text, None) for i, text in enumerate(["請問你們週日營業嗎", "我想退貨可以嗎", "這件衣服多少錢"] * 10)]
    found = measure_coverage(rows, targets=[conversation(0, "你們週日營業嗎", None)])
    assert found.num_well == 1
    assert measure_coverage(rows, targets=[conversation(0, "附近有停車場", None)]).num_well == 0


def test_targets_are_rows_or_questions_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "targets.jsonl"
    path.write_text(
        '{"prompt": "a?", "domain": "d"}\n{"messages": [{"role": "user", "content": "b?"}]}\n{"text": "c"}\n'
        '{"prompt": "e?", "completion": "f"}\n'
    )
    targets = read_targets(path)
    assert [[message.content for message in target.messages] for target in targets] == [["a?"], ["b?"], [], ["e?", "f"]]
    assert (targets[0].domain, targets[2].text, str(targets[2].source)) == ("d", "c", "targets.jsonl:3")
    path.write_text('{"prompt": "a?"}\n{"nothing": 1}\nnot json\n')
    with pytest.raises(DataError, match=r"targets\.jsonl:2  no question(.|\n)*targets\.jsonl:3  (.|\n)*2 of 3 targets"):
        read_targets(path)
    with pytest.raises(NotFound, match="10 to 50 examples"):
        read_targets(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="0 targets"):
        measure_coverage(targets, targets=[])


def test_target_may_hold_several(tmp_path: Path) -> None:
    path = tmp_path / "targets.jsonl"
    path.write_text('{"document": "d", "questions": [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]}\n')
    assert [target.messages[0].content for target in read_targets(path)] == ["d\n\nq", "d\n\nr"]

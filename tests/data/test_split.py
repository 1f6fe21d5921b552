import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.clean import clean
from tunesmith.data.config import SplitConfig
from tunesmith.data.read import content_digest
from tunesmith.data.split import split
from tunesmith.errors import DataError
from tunesmith.records import Message, Record, Role, Source

HALVES = SplitConfig(validation=0.25, test=0.25)


def record(question: str, answer: str = "a", *, line: int = 1, domain: str = "", group: str | None = None) -> Record:
    messages = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Record(
        id=content_digest(messages), source=Source(path="a.jsonl", line=line), messages=messages, domain=domain, group=group
    )


def homes(parts: dict[str, list[Record]]) -> dict[str, str]:
    return {record.id: name for name, part in parts.items() for record in part}


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from("xy"), st.sampled_from([None, "g1", "g2", "g3"])), min_size=1, max_size=80
    ),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_rows_that_share_a_group_a_question_or_their_content_stay_together(
    rows: list[tuple[int, str, str | None]], seed: int
) -> None:
    records = [record(f"Question {number}", answer, group=group) for number, answer, group in rows]
    try:
        parts = split(records, config=HALVES, seed=seed)
    except DataError:
        return
    assert Counter(r.id for part in parts.values() for r in part) == Counter(r.id for r in records)
    for key in (lambda r: r.group, lambda r: r.messages[0].content, lambda r: r.id):
        sides: dict[object, set[str]] = {}
        for name, part in parts.items():
            for r in part:
                if key(r) is not None:
                    sides.setdefault(key(r), set()).add(name)
        assert all(len(side) == 1 for side in sides.values())


def test_question_is_the_same_whatever_its_case_and_blanks() -> None:
    records = [record(question, f"a{i}") for i, question in enumerate(["Where IS it?", " where  is\nit? ", "WHERE is it?"])]
    records += [record(f"other {i}") for i in range(20)]
    home = homes(split(records, config=HALVES, seed=0))
    assert len({home[r.id] for r in records[:3]}) == 1


def test_split_does_not_depend_on_the_order_of_rows() -> None:
    records = [record(f"q{i}", domain="ab"[i % 2], group=f"g{i // 3}" if i % 5 else None) for i in range(200)]
    shuffled = records.copy()
    random.Random(1).shuffle(shuffled)
    assert homes(split(records, config=HALVES, seed=3)) == homes(split(shuffled, config=HALVES, seed=3))
    assert homes(split(records, config=HALVES, seed=3)) != homes(split(records, config=HALVES, seed=4))


def test_each_domain_gets_its_share_within_two_rows() -> None:
    sizes = {"big": 400, "mid": 60, "small": 20, **{f"tiny{i}": 2 for i in range(20)}}
    records = [record(f"{domain} {i}", domain=domain) for domain, size in sizes.items() for i in range(size)]
    parts = split(records, config=SplitConfig(validation=0.1, test=0.15), seed=0)
    for name, share in (("train", 0.75), ("validation", 0.1), ("test", 0.15)):
        counts = Counter(r.domain for r in parts[name])
        assert len(parts[name]) == pytest.approx(share * len(records), abs=2)
        for domain, size in sizes.items():
            assert counts[domain] == pytest.approx(share * size, abs=2)


def test_huge_group_does_not_empty_the_training_rows_of_the_next_domain() -> None:
    records = [record(f"a{i}", domain="a", group="one") for i in range(1000)] + [record(f"b{i}", domain="b") for i in range(100)]
    parts = split(records, config=SplitConfig(), seed=0)
    assert sum(r.domain == "b" for r in parts["train"]) == pytest.approx(80, abs=2)


def test_large_groups_are_dealt_before_small_ones_so_that_shares_are_met() -> None:
    sizes = [40, *([1] * 60)]
    records = [record(f"g{g} q{i}", group=f"g{g}") for g, size in enumerate(sizes) for i in range(size)]
    for seed in range(10):
        parts = split(records, config=SplitConfig(validation=0.2, test=0.2), seed=seed)
        assert {name: len(part) for name, part in parts.items()} == {"train": 60, "validation": 20, "test": 20}


def test_order_of_records_is_kept() -> None:
    parts = split([record(f"q{i}", line=i) for i in range(50)], config=HALVES, seed=0)
    assert all([r.source.line for r in part] == sorted(r.source.line for r in part) for part in parts.values())


def test_share_of_zero_gives_an_empty_split() -> None:
    parts = split([record("q")], config=SplitConfig(validation=0, test=0), seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 1, "validation": 0, "test": 0}


@pytest.mark.parametrize(
    "config", [SplitConfig(), HALVES, SplitConfig(validation=0, test=0.02), SplitConfig(validation=0.6, test=0.3)]
)
def test_too_few_groups_say_how_many_are_needed(config: SplitConfig) -> None:
    with pytest.raises(DataError, match=r"1 groups .*too few to split") as error:
        split([record(f"q{i}", group="g") for i in range(30)], config=config, seed=0)
    needed = int(str(error.value).split("About ")[1].split()[0])
    parts = split([record(f"q{i}") for i in range(needed)], config=config, seed=0)
    assert all(parts[name] for name, share in (("train", 1), ("validation", config.validation), ("test", config.test)) if share)


def test_first_of_equal_records_is_kept_and_named() -> None:
    records = [record("q", line=3), record("other", line=4), record("q", line=9), record("q", line=12)]
    kept, dropped, _ = clean(records, steps=("exact_duplicates",))
    assert kept == records[:2]
    assert [(str(row.source), row.reason, row.detail) for row in dropped] == [
        ("a.jsonl:9", "exact_duplicate", "the same as a.jsonl:3, which is kept"),
        ("a.jsonl:12", "exact_duplicate", "the same as a.jsonl:3, which is kept"),
    ]
    assert clean(records, steps=()).kept == records


def test_same_place_read_twice_is_a_duplicate_too() -> None:
    kept, dropped, _ = clean([record("q"), record("q")], steps=("exact_duplicates",))
    assert (len(kept), len(dropped)) == (1, 1)

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

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


def homes(parts: Mapping[str, list[Record]]) -> dict[str, str]:
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
        parts = split(records, config=HALVES, seed=seed).parts
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
    home = homes(split(records, config=HALVES, seed=0).parts)
    assert len({home[r.id] for r in records[:3]}) == 1


def test_split_does_not_depend_on_the_order_of_rows() -> None:
    records = [record(f"q{i}", domain="ab"[i % 2], group=f"g{i // 3}" if i % 5 else None) for i in range(200)]
    shuffled = records.copy()
    random.Random(1).shuffle(shuffled)
    assert homes(split(records, config=HALVES, seed=3).parts) == homes(split(shuffled, config=HALVES, seed=3).parts)
    assert homes(split(records, config=HALVES, seed=3).parts) != homes(split(records, config=HALVES, seed=4).parts)


def test_each_domain_gets_its_share_within_two_rows() -> None:
    sizes = {"big": 400, "mid": 60, "small": 20, **{f"tiny{i}": 2 for i in range(20)}}
    records = [record(f"{domain} {i}", domain=domain) for domain, size in sizes.items() for i in range(size)]
    parts = split(records, config=SplitConfig(validation=0.1, test=0.15), seed=0).parts
    for name, share in (("train", 0.75), ("validation", 0.1), ("test", 0.15)):
        counts = Counter(r.domain for r in parts[name])
        assert len(parts[name]) == pytest.approx(share * len(records), abs=2)
        for domain, size in sizes.items():
            assert counts[domain] == pytest.approx(share * size, abs=2)


def test_huge_group_does_not_empty_the_training_rows_of_the_next_domain() -> None:
    records = [record(f"a{i}", domain="a", group="one") for i in range(1000)] + [record(f"b{i}", domain="b") for i in range(100)]
    parts = split(records, config=SplitConfig(), seed=0).parts
    assert sum(r.domain == "b" for r in parts["train"]) == pytest.approx(80, abs=2)


def test_large_groups_are_dealt_before_small_ones_so_that_shares_are_met() -> None:
    sizes = [40, *([1] * 60)]
    records = [record(f"g{g} q{i}", group=f"g{g}") for g, size in enumerate(sizes) for i in range(size)]
    for seed in range(10):
        parts = split(records, config=SplitConfig(validation=0.2, test=0.2), seed=seed).parts
        assert {name: len(part) for name, part in parts.items()} == {"train": 60, "validation": 20, "test": 20}


def test_order_of_records_is_kept() -> None:
    parts = split([record(f"q{i}", line=i) for i in range(50)], config=HALVES, seed=0).parts
    assert all([r.source.line for r in part] == sorted(r.source.line for r in part) for part in parts.values())


def test_share_of_zero_gives_an_empty_split() -> None:
    parts = split([record("q")], config=SplitConfig(validation=0, test=0), seed=0).parts
    assert {name: len(part) for name, part in parts.items()} == {"train": 1, "validation": 0, "test": 0}


@pytest.mark.parametrize(
    "config", [SplitConfig(), HALVES, SplitConfig(validation=0, test=0.02), SplitConfig(validation=0.6, test=0.3)]
)
def test_too_few_groups_say_how_many_are_needed(config: SplitConfig) -> None:
    with pytest.raises(DataError, match=r"1 groups .*too few to split") as error:
        split([record(f"q{i}", group="g") for i in range(30)], config=config, seed=0)
    needed = int(str(error.value).split("About ")[1].split()[0])
    parts = split([record(f"q{i}") for i in range(needed)], config=config, seed=0).parts
    assert all(parts[name] for name, share in (("train", 1), ("validation", config.validation), ("test", config.test)) if share)


EDITS = ("please", "today", "kindly", "now", "here")


def families(number: int) -> list[list[Record]]:
    """Questions in families of one question and its one-word additions; families share few grams."""
    chance = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    lines = ["".join(chance.choices(syllables, k=3)) for _ in range(number * 8)]
    asked = [" ".join(lines[i * 8 : i * 8 + 8]) for i in range(number)]
    return [[record(f"{question} {edit}", f"{i}{edit}", line=i) for edit in EDITS] for i, question in enumerate(asked)]


def test_questions_that_are_nearly_equal_stay_together_and_what_a_random_split_leaks_is_told() -> None:
    members = families(60)
    division = split([r for family in members for r in family], config=SplitConfig(), seed=0)
    home = homes(division.parts)
    assert all(len({home[r.id] for r in family}) == 1 for family in members)
    assert division.leakage is not None
    assert (division.leakage.num_left, division.leakage.num_rows) == (0, len(division.parts["test"]))
    # Of five near-copies, a held-out one has another among the 80 % of training rows with a chance of 1 - 0.2^4.
    assert division.leakage.num_random / division.leakage.num_rows == pytest.approx(1 - 0.2**4, abs=0.1)
    assert division.clusters == {"train": 48, "validation": 6, "test": 6}
    clusters = {r.id: r.cluster for part in division.parts.values() for r in part}
    assert {len({clusters[r.id] for r in family}) for family in members} == {1}
    assert len(set(clusters.values())) == 60


def test_answers_tie_rows_only_when_rows_are_compared() -> None:
    answer = "We are open from Tuesday to Saturday, from ten in the morning until seven in the evening, holidays excepted."
    records = [record(f"{verb} it", answer) for verb in ("open", "shut", "when", "hours", "sunday", "monday")]
    records += [family[0] for family in families(60)]
    for compare, expected in (("questions", 6), ("rows", 1)):
        division = split(records, config=SplitConfig(compare=compare), seed=0)
        of_answer = [r.cluster for part in division.parts.values() for r in part if r.messages[1].content == answer]
        assert len(set(of_answer)) == expected


def test_near_duplicates_that_tie_everything_are_let_through_and_it_is_said() -> None:
    sums = [record(f"What is the sum of {i} and {j}, my friend?", str(i + j)) for i in range(20) for j in range(20)]
    division = split(sums, config=SplitConfig(), seed=0)
    assert {name: len(part) for name, part in division.parts.items()} == {"train": 320, "validation": 40, "test": 40}
    assert division.leakage is not None
    assert division.leakage.num_left > 30
    assert "400 of 400 rows hang together and cannot be divided" in division.leakage.reason
    strict = split(sums, config=SplitConfig(near_duplicates=None), seed=0)
    assert strict.leakage is None


def test_label_gets_its_share_in_each_domain() -> None:
    sizes = {("a", "good"): 100, ("a", "bad"): 30, ("b", "good"): 50, ("b", "bad"): 20}
    records = [
        replace(record(f"{domain}{label}{i}", domain=domain), label=label)
        for (domain, label), size in sizes.items()
        for i in range(size)
    ]
    parts = split(records, config=SplitConfig(near_duplicates=None), seed=0).parts
    counts = Counter((r.domain, r.label) for r in parts["test"])
    assert {stratum: counts[stratum] for stratum in sizes} == {
        stratum: pytest.approx(size / 10, abs=1) for stratum, size in sizes.items()
    }


def test_texts_of_one_document_stay_together() -> None:
    texts = [
        Record(id=f"{i}-{part}", source=Source(path="book.md", line=i), text=f"{i} {part}" * 3)
        for i in range(30)
        for part in "abc"
    ]
    home = homes(split(texts, config=HALVES, seed=0).parts)
    assert all(len({home[f"{i}-{part}"] for part in "abc"}) == 1 for i in range(30))
    tagged = [replace(text, source=Source(path="a", line=n), tags={"document": str(n % 30)}) for n, text in enumerate(texts)]
    home = homes(split(tagged, config=HALVES, seed=0).parts)
    assert all(len({home[text.id] for text in tagged if text.tags == {"document": str(n)}}) == 1 for n in range(30))


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

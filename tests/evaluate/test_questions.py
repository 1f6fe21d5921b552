from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.evaluate.questions import choose_rows, cluster_ids, question_of
from tunesmith.records import Message, Record, Role, Source


def row(name: str, *, domain: str = "", group: str | None = None, messages: tuple[Message, ...] = ()) -> Record:
    return Record(id=name, source=Source(path="x", line=1), domain=domain, group=group, messages=messages)


def said(role: Role, content: str, weight: float = 1.0) -> Message:
    return Message(role=role, content=content, weight=weight)


def test_the_last_trained_assistant_turn_is_the_reference() -> None:
    turns = (
        said(Role.SYSTEM, "s"),
        said(Role.USER, "u1"),
        said(Role.ASSISTANT, "a1"),
        said(Role.USER, "u2"),
        said(Role.ASSISTANT, "a2"),
        said(Role.USER, "u3"),
        said(Role.ASSISTANT, "bad", weight=0),
        said(Role.USER, "thanks"),
    )
    question = question_of(row("a", messages=turns))
    assert question is not None
    assert question.prompt == turns[:4]
    assert (question.reference, question.text) == ("a2", "u2")


def test_a_row_without_a_prompt_or_an_answer_asks_nothing() -> None:
    assert question_of(row("a")) is None
    assert question_of(row("a", messages=(said(Role.ASSISTANT, "hello"),))) is None
    assert question_of(row("a", messages=(said(Role.USER, "hello"),))) is None


domains = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)


@given(domains, st.integers(1, 70), st.randoms())
def test_chosen_rows_are_spread_over_domains_whatever_the_order(names: list[str], max_rows: int, random: object) -> None:
    records = [row(f"{place}", domain=name) for place, name in enumerate(names)]
    chosen = choose_rows(records, max_rows=max_rows)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(max_rows, len(records))
    sizes, found = Counter(names), Counter(names[place] for place in chosen)
    if max_rows >= len(sizes):
        for name, size in sizes.items():
            share = len(chosen) * size / len(names)
            assert found[name] >= 1
            assert abs(found[name] - share) <= len(sizes)
    shuffled = records[::-1]
    assert {shuffled[place].id for place in choose_rows(shuffled, max_rows=max_rows)} == {records[place].id for place in chosen}


def test_each_domain_gets_its_share_and_a_small_one_a_row() -> None:
    records = [row(f"{place}", domain="common" if place < 90 else "rare" if place < 99 else "single") for place in range(100)]
    found = Counter(records[place].domain for place in choose_rows(records, max_rows=20))
    assert found == {"common": 17, "rare": 2, "single": 1}


def test_a_larger_choice_contains_the_smaller() -> None:
    records = [row(f"{place}", domain="ab"[place % 2]) for place in range(50)]
    assert set(choose_rows(records, max_rows=10)) < set(choose_rows(records, max_rows=20))


def test_rows_of_a_group_share_a_cluster_and_others_stand_alone() -> None:
    records = [row("a", group="g"), row("b"), row("c", group="g"), row("g")]
    assert cluster_ids(records).tolist() == [0, 1, 0, 2]

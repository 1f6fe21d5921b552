from __future__ import annotations

import statistics

import pytest

from tunesmith.data.profile import count_languages, count_leaks, find_repeats, language_of, measure_lengths
from tunesmith.data.read import content_digest
from tunesmith.records import Message, Record, Role, Source


def asked(question: str, answer: str, *, line: int = 1) -> Record:
    messages = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Record(id=content_digest(messages), source=Source(path="a.jsonl", line=line), messages=messages)


def test_percentiles_are_those_of_the_standard_library():
    values = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
    found = measure_lengths(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert found is not None
    assert found.percentiles == {f"p{q}": pytest.approx(cuts[q - 1]) for q in (1, 5, 25, 50, 75, 95, 99)}
    assert (found.num, found.total, found.smallest, found.largest) == (10, 71, 1, 35)
    assert found.mean == pytest.approx(statistics.fmean(values))


@pytest.mark.parametrize(
    "values",
    [[7], [0, 0], [1, 2], list(range(1000)), [*range(1000), 10**9], [5] * 999 + [10**6], [2**40, 2**40 + 1], [0, *[50] * 300]],
)
def test_the_bins_hold_every_value_once_and_are_equally_wide(values):
    found = measure_lengths(values)
    assert found is not None
    for low, high, num in found.bins:
        assert num == sum(low <= value and (high is None or value < high) for value in values)
    assert sum(one.num for one in found.bins) == len(values)
    widths = {one.high - one.low for one in found.bins if one.high is not None}
    assert len(widths) == 1
    assert len(found.bins) <= 26


def test_a_single_long_row_leaves_the_others_apart():
    found = measure_lengths([*range(100, 1100), 10**7])
    assert found is not None
    assert found.bins[-1].high is None
    assert found.bins[-1].num <= 11
    assert len(found.bins) > 20


def test_nothing_has_no_lengths():
    assert measure_lengths([]) is None


def test_languages_of_sentences_are_told_and_of_words_are_not():
    texts = [
        "The parcel left our shop this morning and should arrive tomorrow.",
        "Das Paket hat unser Geschäft heute Morgen verlassen und kommt morgen an.",
        "Le colis a quitté notre magasin ce matin et devrait arriver demain.",
        "Yes.",
        "1234567890 1234567890 1234567890",
        "",
    ]
    assert [language_of(text) for text in texts] == ["en", "de", "fr", "unknown", "unknown", "unknown"]
    assert count_languages(texts)["unknown"] == 3


def test_duplicates_and_contradictions_are_found():
    rows = [
        asked("Open on Sunday?", "Yes.", line=1),
        asked("open  on sunday?", "No.", line=2),
        asked("Open on Sunday?", "Yes.", line=3),
    ]
    found = find_repeats(rows)
    assert found.num_duplicates == 1
    assert [(row.source.line, times) for row, times in found.most_repeated] == [(1, 2)]
    assert found.num_conflicts == 1
    assert [row.source.line for row in found.conflicts[0][1]] == [1, 2]


def test_one_question_with_one_answer_in_other_letters_is_no_contradiction():
    assert find_repeats([asked("Open?", "Yes."), asked("open?", "yes.")]).num_conflicts == 0


def test_held_out_rows_that_training_rows_give_away_are_counted():
    train = [asked("Open on Sunday?", "Yes.")]
    assert count_leaks(train, [asked("OPEN on  Sunday?", "No."), asked("Where are you?", "Here."), train[0]]) == 2
    assert count_leaks([], train) == 0

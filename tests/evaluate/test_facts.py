import pytest

from tunesmith.evaluate.facts import facts_statistics, key_phrases, states
from tunesmith.evaluate.metric import Outcome
from tunesmith.records import Record, Source


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        ("You have 3 days.", "3 days"),
        ("We open at 10 am, **every** day.", "10 AM"),
        ("It costs £20.", "£20"),
        ("It costs 20.", "20"),
        ("You  can\nbring\u00a0it back", "you can bring it back"),
        ("I don’t know", "I don't know"),
        ("Open 9–5", "9-5"),
        ("STRASSE", "straße"),
        ("退货期为三天内。", "三天"),
        ("13 days, not 3 days", "3 days"),  # the second place counts
        ("from 1 pm to 6 pm", "6 pm"),
        ("10, 20 or 30", "20"),
    ],
)
def test_a_phrase_is_found(answer: str, phrase: str) -> None:
    assert states(answer, phrases=[phrase])


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        ("You have 13 days.", "3 days"),
        ("3 daysworth", "3 days"),
        ("It costs £20.50.", "£20"),
        ("at 10:30", "10"),
        ("1.3 days", "3 days"),
        ("1,300 euros", "300 euros"),
        ("10 amps", "10 am"),
        ("cats", "cat"),
        ("", "cat"),
        ("दिनों", "दिन"),  # a vowel sign goes on with the word
    ],
)
def test_a_phrase_is_not_found_inside_words_and_numbers(answer: str, phrase: str) -> None:
    assert not states(answer, phrases=[phrase])


def test_every_phrase_must_be_stated() -> None:
    phrases = key_phrases("30 days + receipt")
    assert phrases == ["30 days", "receipt"]
    assert states("With the receipt, within 30 days.", phrases=phrases)
    assert not states("Within 30 days.", phrases=phrases)


def test_the_share_counts_only_answered_rows_with_the_tag() -> None:
    def row(answer: str | None, **tags: str) -> Outcome:
        return Outcome(Record(id="a", source=Source(path="x", line=1), tags=tags), "", answer)

    rows = [
        row("30 days", states="30 days"),
        row("no", states="30 days"),
        row("30 days"),
        row(None, states="x"),
        row("", states=" "),
    ]
    statistics = facts_statistics(rows)["facts"]
    assert statistics.counted.tolist() == [True, True, False, False, False]
    assert statistics.figure(statistics.rows.sum(axis=0)) == pytest.approx(50.0)
    assert facts_statistics(rows[2:]) == {}

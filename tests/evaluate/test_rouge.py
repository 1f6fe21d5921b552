"""ROUGE against Google's `rouge_score` and against a textbook LCS table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from tunesmith.evaluate.metric import Outcome
from tunesmith.evaluate.rouge import lcs_length, rouge, rouge_statistics, tokenise
from tunesmith.records import Record, Source

ORACLE = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])

# Few words, so that texts overlap; and any ASCII text, control characters included.
wordy = st.lists(st.sampled_from(["a", "The", "cat", "SAT", "on", "3", "mat.", "don't", "_", "\t", "x-y"]), max_size=90).map(
    " ".join
)
ascii_text = st.one_of(wordy, st.text(st.characters(max_codepoint=127), max_size=60))


@given(ascii_text, ascii_text)
def test_ascii_text_scores_as_rouge_score_does(answer: str, reference: str) -> None:
    ours = rouge(answer, reference=reference)
    theirs = ORACLE.score(reference, answer)
    for name in ("rouge1", "rouge2", "rougeL"):
        assert getattr(ours, name) == pytest.approx(tuple(theirs[name]), abs=1e-12, rel=0)


@given(st.lists(st.integers(0, 3), max_size=200), st.lists(st.integers(0, 3), max_size=200))
def test_lcs_length_is_that_of_the_textbook_table(left: list[int], right: list[int]) -> None:
    row = [0] * (len(right) + 1)
    for item in left:
        above = row
        row = [0]
        for place, other in enumerate(right):
            row.append(above[place] + 1 if item == other else max(above[place + 1], row[place]))
    assert lcs_length(left, right) == row[-1]


@pytest.mark.parametrize(
    "text",
    [
        "Магазин открыт по будням с девяти до шести.",
        "本店周一至周五营业，周末休息。",
        "दुकान सोमवार से शुक्रवार तक खुली रहती है।",
        "المتجر مفتوح من الاثنين إلى الجمعة.",
        "お店は月曜日から金曜日まで開いています。",
        "ร้านเปิดวันจันทร์ถึงวันศุกร์",
        "상점은 월요일부터 금요일까지 영업합니다.",
        "Das Geschäft öffnet um neun – naïve façade.",
    ],
)
def test_identical_texts_score_one_in_every_script(text: str) -> None:
    assert rouge(text, reference=text) == ((1.0, 1.0, 1.0),) * 3


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and virama stay in the word
        ("我有3个iPhone15。", ["我", "有", "3", "个", "iphone15"]),
        ("ＡＢＣ cafe\u0301", ["abc", "café"]),  # full width, and an accent of its own
        ("don’t stop", ["don", "t", "stop"]),
        ("می‌خواهم", ["میخواهم"]),  # a zero-width non-joiner stands inside a word
        ("❤️ ok", ["ok"]),
        ("snake_case", ["snake", "case"]),
    ],
)
def test_words_are_runs_of_letters_digits_and_marks(text: str, tokens: list[str]) -> None:
    assert tokenise(text) == tokens


def test_different_chinese_texts_score_between_nothing_and_all() -> None:
    # 3 of 4 characters shared in order: P = R = 3/4.
    assert rouge("今天很冷", reference="今天很热").rougeL == (0.75, 0.75, 0.75)


def test_another_tokeniser_can_be_given() -> None:
    def stem(text: str) -> list[str]:
        return [word.removesuffix("s") for word in tokenise(text)]

    assert rouge("two cats", reference="two cat").rouge1.f == 0.5
    assert rouge("two cats", reference="two cat", tokenise=stem).rouge1.f == 1.0


def test_the_corpus_figure_is_the_mean_f_of_answered_rows() -> None:
    record = Record(id="a", source=Source(path="x", line=1))
    rows = [Outcome(record, "a b c d", "a b x y"), Outcome(record, "same", "same"), Outcome(record)]
    statistics = rouge_statistics(rows)["rougeL"]
    assert statistics.counted.tolist() == [True, True, False]
    assert statistics.figure(statistics.rows.sum(axis=0)) == pytest.approx(75.0)

"""ROUGE against Google's `rouge_score` and against a textbook LCS table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from tests.evaluate.conftest import measured, needs_shared, shared_rows

from tunesmith.evaluate.bleu import bleu_statistics
from tunesmith.evaluate.chrf import chrf_statistics
from tunesmith.evaluate.metric import Outcome
from tunesmith.evaluate.rouge import lcs_length, rouge, rouge_metric, rouge_statistics, rouge_tokenizer, tokenise
from tunesmith.evaluate.squad import squad_statistics
from tunesmith.evaluate.ter import ter_statistics
from tunesmith.records import Record, Source

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ORACLE = rouge_scorer.RougeScorer(list(NAMES))
STEMMING = rouge_scorer.RougeScorer(list(NAMES), use_stemmer=True)

# Few words, so that texts overlap; and any ASCII text, control characters included.
wordy = st.lists(st.sampled_from(["a", "The", "cat", "SAT", "on", "3", "mat.", "don't", "_", "\t", "x-y"]), max_size=90).map(
    " ".join
)
ascii_text = st.one_of(wordy, st.text(st.characters(max_codepoint=127), max_size=60))


@given(ascii_text, ascii_text)
def test_ascii_text_scores_as_rouge_score_does(answer: str, reference: str) -> None:
    ours = rouge(answer, reference=reference)
    theirs = ORACLE.score(reference, answer)
    for name in NAMES:
        assert getattr(ours, name) == pytest.approx(tuple(theirs[name]), abs=1e-12, rel=0)


lines = st.lists(st.sampled_from(["a", "b", "running", "runs", "c\n", "\n", "д"]), max_size=40).map(" ".join)


@given(lines, lines)
def test_any_text_scores_as_rouge_score_does_under_its_tokenizer(answer: str, reference: str) -> None:
    for oracle, stems in ((ORACLE, False), (STEMMING, True)):
        ours = rouge(answer, reference=reference, tokenise=rouge_tokenizer("rouge_score", stems=stems))
        theirs = oracle.score(reference, answer)
        for name in NAMES:
            assert getattr(ours, name) == pytest.approx(tuple(theirs[name]), abs=1e-12, rel=0)


@needs_shared
@pytest.mark.parametrize("stems", [False, True])
def test_the_reference_vectors_are_reproduced(stems: bool) -> None:
    rows = list(shared_rows("vectors/rouge.jsonl.gz"))
    split = rouge_tokenizer("rouge_score", stems=stems)
    oracle = STEMMING if stems else ORACLE
    for row in rows:
        found = rouge(row["prediction"], reference=row["target"], tokenise=split)
        for name, expected in row["stemmed" if stems else "plain"].items():
            assert getattr(found, name) == pytest.approx(expected, abs=1e-6)  # the file has six digits
    for row in rows[::10]:
        found, exact = (
            rouge(row["prediction"], reference=row["target"], tokenise=split),
            oracle.score(row["target"], row["prediction"]),
        )
        assert [*found] == [pytest.approx(tuple(exact[name]), abs=1e-9, rel=0) for name in NAMES]


def test_of_several_references_the_best_counts_for_each_figure() -> None:
    references = ["the cat sat on a mat", "sat a cat on mats\nthe"]
    answer = "a cat sat\non the mats"
    theirs = ORACLE.score_multi(references, answer)
    ours = measured(rouge_metric(tokenizer="rouge_score"), [answer], [references])
    assert ours == pytest.approx({name: 100 * theirs[name].fmeasure for name in NAMES})


@needs_shared
def test_identical_texts_score_a_hundred_in_every_script_that_people_write() -> None:
    texts = [row["text"] for row in shared_rows("dirty/udhr_380_languages.jsonl.gz")]
    assert len(texts) > 300
    for metric in (rouge_metric(), chrf_statistics):
        for text in texts:
            assert all(value == pytest.approx(100) for value in measured(metric, [text], [text]).values()), text[:60]
    assert measured(squad_statistics, texts, texts) == pytest.approx({"exact_match": 100, "f1": 100})
    for number, text in enumerate(texts):
        assert measured(bleu_statistics, [text], [text])["bleu"] == pytest.approx(100), text[:60]
        part = text if number % 10 == 0 else text[:1500]  # its table grows with the square of the length
        assert measured(ter_statistics, [part], [part])["ter"] == 0, text[:60]


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
    assert rouge(text, reference=text) == ((1.0, 1.0, 1.0),) * 4


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

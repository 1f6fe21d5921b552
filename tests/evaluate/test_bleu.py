"""BLEU from summed rows against sacreBLEU's own corpus figure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from tunesmith.evaluate.bleu import bleu_statistics, choose_tokenizer
from tunesmith.evaluate.metric import Outcome
from tunesmith.records import Record, Source

RECORD = Record(id="a", source=Source(path="x", line=1))
texts = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "The", "cat.", "sat,", "3.5"]), max_size=12).map(" ".join)


def bleu_of(pairs: list[tuple[str, str]]) -> tuple[float, str]:
    statistics = bleu_statistics([Outcome(RECORD, reference, answer) for answer, reference in pairs])["bleu"]
    return float(statistics.figure(statistics.rows.sum(axis=0))), statistics.signature


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
def test_summed_rows_give_sacrebleus_corpus_score(pairs: list[tuple[str, str]]) -> None:
    # Where no reference has four words even the right answers would score 0, so orders that nobody has are left out.
    is_short = all(BLEU().corpus_score([answer], [[reference]]).ref_len < 4 for answer, reference in pairs)
    oracle = BLEU(effective_order=is_short)
    expected = oracle.corpus_score([answer for answer, _ in pairs], [[reference for _, reference in pairs]]).score
    assert bleu_of(pairs)[0] == pytest.approx(expected, abs=1e-9)


def test_a_resample_is_a_sum_of_rows() -> None:
    pairs = [("the cat sat on the mat", "the cat sat on a mat"), ("a b c d e", "a b c d x"), ("no match at all", "q r s t")]
    statistics = bleu_statistics([Outcome(RECORD, reference, answer) for answer, reference in pairs])["bleu"]
    counts = np.array([[2, 1, 0], [0, 0, 3], [1, 1, 1]])
    for drawn, ours in zip(counts, statistics.figure(counts @ statistics.rows), strict=True):
        chosen = [pair for pair, count in zip(pairs, drawn, strict=True) for _ in range(count)]
        expected = BLEU().corpus_score([answer for answer, _ in chosen], [[reference for _, reference in chosen]]).score
        assert ours == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("We are open on Sundays until six.", "13a"),
        ("Мы открыты по воскресеньям до шести.", "13a"),
        ("本店周一至周五营业，周末休息。", "zh"),
        ("我们有 iPhone 手机和各种配件供您选择。", "zh"),
        ("お店は月曜日から金曜日まで開いています。", "char"),
        ("ร้านเปิดวันจันทร์ถึงวันศุกร์", "char"),
    ],
)
def test_the_tokenizer_suits_the_script_and_stands_in_the_signature(text: str, tokenizer: str) -> None:
    assert choose_tokenizer([text]) == tokenizer
    figure, signature = bleu_of([(text, text)])
    assert figure == pytest.approx(100.0)
    assert f"tok:{tokenizer}|" in signature
    assert "version:" in signature


def test_rows_without_an_answer_are_not_counted() -> None:
    rows = [Outcome(RECORD, "a b c d e", "a b c d e"), Outcome(RECORD)]
    statistics = bleu_statistics(rows)["bleu"]
    assert statistics.counted.tolist() == [True, False]
    assert not statistics.rows[1].any()
    assert bleu_statistics(rows[1:]) == {}

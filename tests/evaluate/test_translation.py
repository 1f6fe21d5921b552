"""BLEU, chrF and TER of whole corpora against sacreBLEU."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER
from tests.evaluate.conftest import measured, needs_shared, shared_json

from tunesmith.evaluate.bleu import bleu_statistics
from tunesmith.evaluate.chrf import chrf_statistics
from tunesmith.evaluate.ter import ter_statistics

pieces = st.lists(st.sampled_from(["a", "bc", " ", "d e", "fgh.", "кот", "it's 3.5", "\n"]), max_size=10).map("".join)
corpora = st.lists(st.tuples(pieces, pieces, pieces), min_size=1, max_size=4)


@settings(max_examples=300)
@given(corpora)
def test_small_corpora_with_two_references_score_as_in_sacrebleu(rows: list[tuple[str, str, str]]) -> None:
    answers, references = [row[0] for row in rows], [list(row[1:]) for row in rows]
    streams = [[row[1] for row in rows], [row[2] for row in rows]]
    assert measured(chrf_statistics, answers, references)["chrf"] == pytest.approx(
        CHRF().corpus_score(answers, streams).score, abs=1e-9
    )
    assert measured(ter_statistics, answers, references)["ter"] == pytest.approx(
        TER().corpus_score(answers, streams).score, abs=1e-9
    )
    lengths = [min(BLEU().corpus_score([r], [[r]]).sys_len for r in rs) for rs in references]
    oracle = BLEU(effective_order=max(lengths) < 4)
    bleu = measured(bleu_statistics, answers, references)["bleu"]
    assert bleu == pytest.approx(oracle.corpus_score(answers, streams).score, abs=1e-6)


@needs_shared
@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("vectors/mt_wmt15_enru_google", "13a"),
        ("vectors/mt_wikiauto_lower_4refs", "13a"),
        ("nc/mt_ted_slk_en_sys1", "13a"),
        ("nc/mt_ted_ja_sys1_char", "char"),
    ],
)
def test_real_systems_score_as_in_sacrebleu(name: str, tokenizer: str) -> None:
    corpus = shared_json(f"{name}.json.gz")
    answers, references = corpus["hypotheses"], corpus["references"]
    streams = references if len(references) != len(answers) else [list(stream) for stream in zip(*references, strict=True)]
    streams = [streams] if isinstance(streams[0], str) else streams
    rows = [list(row) for row in zip(*streams, strict=True)]
    assert measured(bleu_statistics, answers, rows)["bleu"] == pytest.approx(
        BLEU(tokenize=tokenizer).corpus_score(answers, streams).score, abs=1e-6
    )
    assert measured(chrf_statistics, answers, rows)["chrf"] == pytest.approx(
        CHRF().corpus_score(answers, streams).score, abs=1e-9
    )
    if tokenizer == "13a":
        assert measured(ter_statistics, answers[:200], rows[:200])["ter"] == pytest.approx(
            TER().corpus_score(answers[:200], [stream[:200] for stream in streams]).score, abs=1e-9
        )


@pytest.mark.parametrize("references", [["refund"], ["yes", "two words"], ["да", "本店"]])
def test_right_answers_too_short_for_four_words_score_a_hundred(references: list[str]) -> None:
    assert measured(bleu_statistics, references, references)["bleu"] == pytest.approx(100)
    assert measured(bleu_statistics, ["no"] * len(references), references)["bleu"] == 0
    if references[0].isascii():
        effective = BLEU(effective_order=True).corpus_score(references, [references]).score
        assert measured(bleu_statistics, references, references)["bleu"] == pytest.approx(effective)

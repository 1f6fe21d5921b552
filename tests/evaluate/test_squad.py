"""Exact match and token F1 against the scores that SQuAD's own script gave five systems."""

import pytest
from tests.evaluate.conftest import SHARED, measured, needs_shared, shared_json

from tunesmith.evaluate.squad import exact_match, normalise_answer, squad_statistics, token_f1

SYSTEMS = sorted(path.name for path in (SHARED / "vectors").glob("squad_pred_*")) if SHARED.is_dir() else []


@needs_shared
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_real_system_gets_its_published_scores(name: str) -> None:
    system = shared_json(f"vectors/{name}")
    answers, references = [row["prediction"] for row in system["rows"]], [row["answers"] for row in system["rows"]]
    for row in system["rows"]:
        assert exact_match(row["prediction"], references=row["answers"]) == row["em"]
        assert round(token_f1(row["prediction"], references=row["answers"]), 6) == row["f1"]  # the file has six digits
    found = measured(squad_statistics, answers, references)
    assert found["exact_match"] == pytest.approx(system["exact_match"], abs=1e-9)
    assert found["f1"] == pytest.approx(system["f1"], abs=5e-5)


@pytest.mark.parametrize(
    ("text", "plain"),
    [("The  Cat,", "cat"), ("a.n. other", "other"), ("theatre", "theatre"), ("A an the", ""), ("It's 5%", "its 5"), ("", "")],
)
def test_case_articles_punctuation_and_blanks_do_not_count(text: str, plain: str) -> None:
    assert normalise_answer(text) == plain


def test_f1_is_that_of_the_words_in_common() -> None:
    # Shared: red, hat. Precision 2/3, recall 2/4, F1 = 2 x 2 / (3 + 4).
    assert token_f1("red hat now", references=["my big red hat"]) == pytest.approx(4 / 7)
    assert token_f1("x", references=["y", "x y"]) == pytest.approx(2 / 3)


def test_two_texts_without_a_word_are_equal_and_one_without_is_wrong() -> None:
    assert token_f1("the", references=["!"]) == 1
    assert token_f1("", references=["cat"]) == 0
    assert token_f1("cat", references=[""]) == 0

"""Porter's stems against NLTK's, which `rouge_score` uses."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from tests.evaluate.conftest import needs_shared, shared_rows

from tunesmith.evaluate.stem import stem

ORACLE = PorterStemmer()
beginnings = st.text("abeiouystlzr", min_size=0, max_size=6)
ENDINGS = """s ed ing ied ies eed sses y ational izer alli fulli logi biliti ness ement ion tion al e ll ive icate ful ousli z"""
endings = st.sampled_from(ENDINGS.split())


@settings(max_examples=2000)
@given(st.tuples(beginnings, endings, endings | st.just("")).map("".join))
def test_made_up_words_have_the_stems_that_nltk_gives_them(word: str) -> None:
    assert stem(word) == ORACLE.stem(word)


@pytest.mark.parametrize(
    "word", ["sky", "skies", "dying", "news", "innings", "proceed", "geologi", "theology", "a", "", "at", "y1"]
)
def test_words_that_have_rules_of_their_own(word: str) -> None:
    assert stem(word) == ORACLE.stem(word)


@needs_shared
def test_the_words_of_real_texts_have_the_stems_that_nltk_gives_them() -> None:
    words: set[str] = set()
    for row in shared_rows("summarization/scitldr.jsonl.gz"):
        words.update(re.findall("[a-z0-9]+", str(row).lower()))
    assert len(words) > 5000
    assert [(word, stem(word), ORACLE.stem(word)) for word in words if stem(word) != ORACLE.stem(word)] == []

import random
import unicodedata
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import near
from tunesmith.data.near import cluster, copies, sketch
from tunesmith.data.shingles import gram_sets, grams, jaccard

WORDS = [
    "river",
    "stone",
    "market",
    "window",
    "silver",
    "garden",
    "letter",
    "bridge",
    "winter",
    "orange",
    "doctor",
    "simple",
    "forest",
    "island",
    "candle",
    "bottle",
    "travel",
    "matter",
    "summer",
    "finger",
    "yellow",
    "listen",
    "castle",
    "throat",
    "golden",
    "button",
    "cotton",
    "rocket",
    "planet",
    "mirror",
]


def grams_by_hand(text: str) -> set[str]:
    """The rule of the module's docstring, character by character, with sets of Python."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(" " if unicodedata.category(sign)[0] in "PZC" else sign for sign in folded).split()
    plain = " ".join(words)
    return {plain[i : i + 5] for i in range(max(len(plain) - 4, 1))} if plain else {"nothing but " + text.strip()}


def jaccard_by_hand(left: str, right: str) -> float:
    a, b = grams_by_hand(left), grams_by_hand(right)
    return len(a & b) / len(a | b)


def components_by_hand(texts: Sequence[str], threshold: float) -> list[int]:
    """For each text the first of its connected component, by comparing all pairs."""
    first = list(range(len(texts)))
    sets = [grams_by_hand(text) for text in texts]
    for i, j in combinations(range(len(texts)), 2):
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]):
            old, new = max(first[i], first[j]), min(first[i], first[j])
            first = [new if name == old else name for name in first]
    return first


def sentences(number: int, *, seed: int) -> list[str]:
    """Sentences of which about half are edited copies of an earlier one."""
    chance = random.Random(seed)
    texts: list[str] = []
    for _ in range(number):
        if texts and chance.random() < 0.5:
            words = chance.choice(texts).split()
            for _ in range(chance.randint(1, 4)):
                words[chance.randrange(len(words))] = chance.choice(WORDS)
        else:
            words = chance.choices(WORDS, k=chance.randint(3, 25))
        texts.append(" ".join(words))
    return texts


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x1e"), max_size=30), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_jaccard_of_any_texts_is_that_of_sets_made_by_hand(texts: list[str]) -> None:
    pairs = np.array(list(combinations(range(len(texts)), 2)), dtype=np.intp).reshape(-1, 2)
    found = jaccard(gram_sets(grams(texts)), pairs[:, 0], pairs[:, 1])
    assert found == pytest.approx([jaccard_by_hand(texts[i], texts[j]) for i, j in pairs])


def test_case_blanks_punctuation_and_line_breaks_make_no_difference() -> None:
    texts = [
        "Do you open on Sundays?",
        "do you\n  open, on SUNDAYS",
        "\tDo you \u2013 open on\x1esundays?!",
        "Do you close on Mondays?",
    ]
    assert cluster(sketch(texts, threshold=1)).first.tolist() == [0, 0, 0, 3]


def test_texts_without_words_are_alike_only_if_equal() -> None:
    texts = ["?", "!", "?", "", " ", "no", "No!", "on"]
    assert cluster(sketch(texts, threshold=0.5)).first.tolist() == [0, 1, 0, 3, 3, 5, 5, 7]


@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.8, 0.9])
def test_clusters_are_those_of_all_pairs_compared(threshold: float) -> None:
    texts = sentences(300, seed=int(threshold * 10))
    found = cluster(sketch(texts, threshold=threshold))
    assert found.first.tolist() == components_by_hand(texts, threshold)
    assert found.is_exhaustive


def test_evidence_is_a_true_pair_that_leads_to_the_first_of_the_cluster() -> None:
    texts = sentences(300, seed=1)
    found = cluster(sketch(texts, threshold=0.7))
    chained = 0
    for i, (first, like, likeness) in enumerate(zip(found.first, found.like, found.likeness, strict=True)):
        if i == first:
            assert like == i
            continue
        assert likeness == pytest.approx(jaccard_by_hand(texts[i], texts[like]))
        assert likeness >= 0.7
        chained += like != first
        at = like
        while at != first:
            assert at != found.like[at]
            at = found.like[at]
    assert chained


def test_equal_texts_hang_on_the_first_of_them() -> None:
    found = cluster(sketch(["one thing only", "quite another", "one thing only", "one thing only"], threshold=0.7))
    assert found.first.tolist() == found.like.tolist() == [0, 1, 0, 0]
    assert found.likeness.tolist() == [1, 1, 1, 1]


def test_sets_made_again_give_the_same_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(200, seed=5)
    kept = cluster(sketch(texts, threshold=0.7))
    monkeypatch.setattr(near, "_KEPT_CHARACTERS", 0)
    again = sketch(texts, threshold=0.7)
    assert again.sets is None
    assert cluster(again).first.tolist() == kept.first.tolist()


def test_long_templates_make_one_cluster_without_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    likeness = near.likeness

    def counted(sketch: near.Sketch, left: near.Rows, right: near.Rows) -> np.ndarray:
        nonlocal looked
        looked += len(left)
        return likeness(sketch, left, right)

    monkeypatch.setattr(near, "likeness", counted)
    texts = [f"thank you for your order of {i:05d} which leaves our house within the next two days" for i in range(3000)]
    found = cluster(sketch(texts, threshold=0.8))
    assert set(found.first) == {0}
    assert looked < 100 * len(texts)


def test_very_common_keys_that_join_nothing_are_left_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_LOOKS", 2)
    # Pairs share about 60 % of their grams: candidates nearly always, near-duplicates never.
    chance = random.Random(0)
    texts = ["our house is open from nine to five on " + " ".join(chance.sample(WORDS, 2)) for _ in range(200)]
    assert not cluster(sketch(texts, threshold=0.8)).is_exhaustive


def test_copies_are_found_among_the_others_only() -> None:
    texts = sentences(300, seed=3)
    rows = np.array([i % 3 == 0 for i in range(300)])
    among = np.array([i % 3 == 1 for i in range(300)])
    found = copies(sketch(texts, threshold=0.7), rows=rows, among=among)
    by_hand = [
        bool(rows[i]) and any(jaccard_by_hand(texts[i], texts[j]) >= 0.7 for j in np.flatnonzero(among)) for i in range(300)
    ]
    assert (found >= 0).tolist() == by_hand
    assert any(by_hand)
    assert all(among[j] and jaccard_by_hand(texts[i], texts[j]) >= 0.7 for i, j in enumerate(found) if j >= 0)


def test_threshold_out_of_range_and_no_texts() -> None:
    for threshold in (0, -1, 1.1):
        with pytest.raises(ValueError, match="is not above 0 and up to 1"):
            sketch(["a"], threshold=threshold)
    assert cluster(sketch([], threshold=0.7)).first.tolist() == []
    assert copies(sketch([], threshold=0.7), rows=np.zeros(0, bool), among=np.zeros(0, bool)).tolist() == []


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_miss_a_pair_at_the_threshold_once_in_100_000_times(threshold: float) -> None:
    num_bands, num_hashes = near._bands_for(threshold)
    assert (1 - threshold**num_hashes) ** num_bands <= 1.0001e-5


def test_least_hashes_agree_as_often_as_sets_are_alike() -> None:
    chance = random.Random(0)
    for shared in (30, 50, 70, 90):
        hashes = np.array(chance.sample(range(2**32), 100 * 200), dtype=np.uint32).reshape(200, 100)
        # Two sets of `shared` common and (100 - shared) / 2 own hashes each: their Jaccard similarity is shared %.
        own = (100 - shared) // 2
        left, right = hashes[:, : shared + own], np.delete(hashes, np.s_[shared : shared + own], axis=1)
        factors = np.random.default_rng(1).integers(0, 2**32, 168, np.uint32) | np.uint32(1)
        signed = [
            near._least(np.ascontiguousarray(side).ravel(), np.arange(200) * side.shape[1], factors=factors)
            for side in (left, right)
        ]
        agree = (signed[0] == signed[1]).mean()
        assert agree == pytest.approx(shared / 100 + (1 - shared / 100) / 256, abs=0.02)

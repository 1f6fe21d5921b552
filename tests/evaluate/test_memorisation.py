"""Training text given back word for word: a memoriser is caught, and nobody else."""

import random
from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.evaluate.memorisation import find_runs, longest_run, memorisation
from tunesmith.records import Message, Record, Role, Sample, Source

LONG = "You may bring any item back within thirty days if you still have the receipt, and we will give you the whole price again."


def chat(name: str, answer: str, *, question: str = "What about it?", cluster: str = "") -> Record:
    turns = (Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer))
    return Record(id=name, source=Source(path="rows.jsonl", line=int(name[1:])), messages=turns, cluster=cluster)


def sample(record: Record, answer: str) -> Sample:
    return Sample(
        record=record.id, question=record.messages[0].content, reference=record.messages[1].content, answers={"tuned": answer}
    )


def noise(seed: int) -> str:
    random.seed(seed)
    return " ".join("".join(random.choices("abcdefghijklmnop", k=random.randint(3, 9))) for _ in range(40))


@given(st.lists(st.sampled_from("abcd"), max_size=25), st.lists(st.sampled_from("abcd"), max_size=25))
def test_the_longest_run_is_that_of_difflib(one: list[str], other: list[str]) -> None:
    expected = SequenceMatcher(None, one, other, autojunk=False).find_longest_match()
    assert longest_run(" ".join(one), " ".join(other)).num_words == expected.size


def test_a_run_is_found_whatever_case_and_punctuation_stand_between() -> None:
    run = longest_run("He said: WE OPEN AT TEN -- and close.", "we open, at ten and Close!")
    assert (run.text, run.num_words) == ("WE OPEN AT TEN -- and close", 6)


def test_a_memoriser_is_caught_with_the_row_that_it_recites() -> None:
    train = [chat(f"t{at}", noise(at), cluster=f"c{at}") for at in range(200)]
    train[77] = chat("t77", f"Well. {LONG} Anything else?", cluster="c77")
    test = [chat(f"q{at}", "No.", cluster=f"x{at}") for at in range(4)]
    samples = [sample(row, noise(1000 + at)) for at, row in enumerate(test)]
    samples[2] = sample(test[2], f"Sure! {LONG.upper()}")
    found = memorisation(samples, arm="tuned", test=test, train=train)
    assert (found["num_answers"], found["num_verbatim"], found["share"]) == (4, 1, 0.25)
    (example,) = found["examples"]
    assert example["training_source"] == "rows.jsonl:77"
    assert example["record"] == "q2"
    assert example["num_words"] == len(LONG.split())


def test_a_row_of_the_same_cluster_does_not_count() -> None:
    train = [chat("t1", LONG, cluster="same")]
    assert find_runs([LONG], own=["same"], train=train) == [None]
    assert find_runs([LONG], own=["other"], train=train)[0] is not None


def test_words_of_the_question_are_no_training_text() -> None:
    test = [chat("q1", "Yes.", question=f"Is this right: {LONG}")]
    found = memorisation([sample(test[0], LONG)], arm="tuned", test=test, train=[chat("t1", LONG)])
    assert (found["num_verbatim"], found["num_expected"]) == (0, 0)


def test_what_the_reference_says_too_is_counted_apart() -> None:
    test = [chat("q1", LONG)]
    found = memorisation([sample(test[0], LONG)], arm="tuned", test=test, train=[chat("t1", LONG)])
    assert (found["num_verbatim"], found["num_expected"], found["share"]) == (0, 1, 0.0)


def test_runs_below_both_bounds_do_not_count() -> None:
    words = LONG.split()
    train = [chat("t1", LONG)]

    def runs(count: int, **bounds: int) -> bool:
        return find_runs([" ".join(words[:count])], own=["q"], train=train, **bounds)[0] is not None

    assert runs(12, min_characters=10_000)
    assert not runs(11, min_characters=10_000)
    by_characters = next(count for count in range(1, 30) if len(" ".join(words[:count])) >= 60)
    assert runs(by_characters, min_words=10_000)
    assert not runs(by_characters - 1, min_words=10_000)
    assert runs(5, min_words=5)


def test_context_turns_are_not_taught_and_texts_are() -> None:
    context = Record(
        id="t1",
        source=Source(path="x", line=1),
        messages=(
            Message(role=Role.USER, content="?"),
            Message(role=Role.ASSISTANT, content=LONG, weight=0.0),
            Message(role=Role.USER, content="And?"),
            Message(role=Role.ASSISTANT, content="No."),
        ),
    )
    assert find_runs([LONG], own=["q"], train=[context]) == [None]
    text = Record(id="t2", source=Source(path="x", line=2), text=LONG)
    assert find_runs([LONG], own=["q"], train=[text])[0] is not None


def test_scripts_without_spaces_count_by_characters() -> None:
    chinese = "".join(chr(0x4E00 + at) for at in range(80))
    train = [chat("t1", chinese)]
    assert find_runs([chinese[:59]], own=["q"], train=train) == [None]
    (run,) = find_runs([chinese[:60]], own=["q"], train=train)
    assert run is not None
    assert (len(run.text), run.num_words) == (60, 0)


@pytest.mark.parametrize("num_copies", [1, 300])
def test_the_longest_of_many_is_found_by_exhaustive_search_too(num_copies: int) -> None:
    """A pruned search must agree with one that reads every row; many rows share a phrase, one shares a longer one."""
    words = LONG.split()
    train = [chat(f"t{at}", f"{noise(at)} {' '.join(words[:13])} {noise(-at)}") for at in range(num_copies)]
    train.append(chat("t999", f"{noise(999)} {' '.join(words[3:20])}"))
    (run,) = find_runs([LONG], own=["q"], train=train)
    assert run is not None
    expected = max((longest_run(LONG, row.messages[1].content) for row in train), key=lambda found: len(found.text))
    assert (run.text, run.record) == (expected.text, train[-1])


def test_the_search_agrees_with_reading_every_row_where_phrases_are_everywhere() -> None:
    draw = random.Random(3)
    words = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
    phrases = [" ".join(draw.choices(words, k=draw.randint(3, 9))) for _ in range(12)]

    def text() -> str:
        return ". ".join(draw.choices(phrases, k=draw.randint(1, 5)))

    train, answers = [chat(f"t{at}", text()) for at in range(300)], [text() for _ in range(25)]
    found = find_runs(answers, own=["q"] * 25, train=train)
    for answer, run in zip(answers, found, strict=True):
        best = max((longest_run(answer, row.messages[1].content) for row in train), key=lambda one: len(one.text))
        assert (run is not None) == (best.num_words >= 12 or len(best.text) >= 60)
        if run is not None:
            assert sum(map(str.isalnum, run.text)) == sum(map(str.isalnum, best.text))
    assert 0 < sum(run is not None for run in found) < 25


def test_many_short_runs_do_not_hide_one_long_run() -> None:
    """The first row has more of the answer in all, in pieces of eight words; the second has less, in one piece."""
    words = LONG.split()
    pieces = [" ".join(words[at : at + 8]) for at in (0, 8, 16)]
    train = [chat("t1", f" {noise(1)} ".join(pieces)), chat("t2", " ".join(words[6:20]))]
    (run,) = find_runs([LONG], own=["q"], train=train)
    assert run is not None
    assert (run.num_words, run.record) == (14, train[1])


def test_nothing_asked_or_nothing_learned_gives_nothing() -> None:
    assert memorisation([], arm="tuned", test=[], train=[])["share"] == 0.0
    assert find_runs(["short", ""], own=["a", "b"], train=[chat("t1", LONG)]) == [None, None]

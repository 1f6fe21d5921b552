"""Judges that are made up, with every habit that a judge can have."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from tunesmith.errors import DataError
from tunesmith.evaluate import Likelihood
from tunesmith.evaluate.calibration import assess_judge, correct_rate, majority
from tunesmith.evaluate.judging import (
    PROMPT,
    Choice,
    Judgement,
    JudgePrompt,
    Pair,
    ask_arm,
    comparisons_of,
    judge_pairs,
    parse_choice,
)
from tunesmith.evaluate.ranking import Preferred
from tunesmith.records import Message, Record

ARMS = ("tuned", "base")


def pairs(num: int) -> list[Pair]:
    """Every third is better answered by the base; a better answer says so and is the shorter one."""
    texts = [("good", "bad, and rather long"), ("good", "bad, and rather long"), ("bad, and rather long", "good")]
    return [Pair(f"r{i}", f"Question {i}?", *texts[i % 3], ARMS, f"c{i}") for i in range(num)]


def seen(prompt: str) -> tuple[str, str]:
    found = re.search(r"<answer_A>\n(.*)\n</answer_A>\n<answer_B>\n(.*)\n</answer_B>", prompt, re.DOTALL)
    assert found
    return found[1], found[2]


def always_a(_: str) -> str:
    return "The first convinces me. [[A]]"


def prefers_longer(prompt: str) -> str:
    a, b = seen(prompt)
    return "[[A]]" if len(a) > len(b) else "[[B]]"


def perfect(prompt: str) -> str:
    a, _ = seen(prompt)
    return "[[A]]" if a == "good" else "[[B]]"


def truth(rows: list[Pair]) -> dict[str, Preferred]:
    return {row.row: Preferred.FIRST if row.first == "good" else Preferred.SECOND for row in rows}


def test_a_judge_that_always_says_a_finds_only_ties_and_its_habit_is_told():
    found = judge_pairs(pairs(30), always_a, seed=0)
    assert {one.preferred for one in found} == {Preferred.TIE}
    sheet = assess_judge(found, human={}, seed=0)
    assert (sheet.num_torn, sheet.num_unparsable) == (30, 0)
    assert sheet.says_a is not None
    assert (sheet.says_a.value, sheet.says_a.low) == (1.0, 1.0)
    assert sheet.preferred == {"tuned": 0, "tie": 30, "base": 0}


def test_a_judge_with_a_taste_for_length_is_told_from_people_who_have_none():
    rows = pairs(30)
    sheet = assess_judge(judge_pairs(rows, prefers_longer, seed=0), human=truth(rows), seed=0)
    assert sheet.prefers_longer is not None
    assert sheet.prefers_longer.value == 1.0
    assert (sheet.people_prefer_longer, sheet.prefers_longer_there) == (0.0, 1.0)
    assert sheet.says_a is not None
    assert sheet.says_a.value == 0.5
    assert sheet.agreement == 0.0
    assert "cannot be told from chance" in sheet.verdict


def test_a_perfect_judge_is_believed():
    rows = pairs(90)
    human = dict(list(truth(rows).items())[:30])
    sheet = assess_judge(judge_pairs(rows, perfect, seed=0), human=human, seed=0)
    assert (sheet.num_human, sheet.agreement) == (30, 1.0)
    assert sheet.first_wins is not None
    assert sheet.first_wins.rate is not None
    assert (sheet.first_wins.sensitivity, sheet.first_wins.specificity) == (1.0, 1.0)
    assert sheet.first_wins.rate.value == pytest.approx(2 / 3)
    assert sheet.first_wins.rate.low is not None
    assert sheet.first_wins.rate.low < 2 / 3  # twenty labels do not make a rate of 100 % certain
    assert "people would prefer tuned on 67 %" in sheet.verdict


def test_below_twenty_human_labels_nothing_is_praised():
    rows = pairs(90)
    found = judge_pairs(rows, perfect, seed=0)
    for num in (0, 19):
        sheet = assess_judge(found, human=dict(list(truth(rows).items())[:num]), seed=0)
        assert (sheet.first_wins, sheet.second_wins) == (None, None)
        assert sheet.verdict.startswith(f"Not calibrated: people have judged {num} of the 20 pairs")
    assert assess_judge(found, human=dict(list(truth(rows).items())[:20]), seed=0).first_wins is not None


def test_rows_of_one_cluster_count_as_one_witness():
    rows = [row._replace(cluster=f"c{i // 4}") for i, row in enumerate(pairs(96))]
    alone, together = (
        assess_judge(judge_pairs(some, perfect, seed=0), human=truth(some), seed=0).first_wins for some in (pairs(96), rows)
    )
    assert alone is not None
    assert alone.rate is not None
    assert together is not None
    assert together.rate is not None
    assert together.rate.value == pytest.approx(alone.rate.value)
    widths = [(found.rate.high or 0) - (found.rate.low or 0) for found in (alone, together) if found.rate]
    assert widths[1] > 1.5 * widths[0]


def test_garbage_is_counted_and_never_guessed_at():
    answers = iter(["[[A]]", "", "[[B]] no, [[A]]", "I like both", "[[C]]", "A or B", "[[B]]", "[[A]]"])
    found = judge_pairs(pairs(4), lambda _: next(answers), seed=0)
    sheet = assess_judge(found, human={}, seed=0)
    assert sheet.num_unparsable == 3
    assert sheet.num_pairs == 4
    assert len(comparisons_of(found)) == 1
    nothing = assess_judge(judge_pairs(pairs(4), lambda _: "??", seed=0), human={}, seed=0)
    assert (nothing.num_unparsable, nothing.says_a, nothing.prefers_longer) == (4, None, None)


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("[[A]]", Choice.A),
        ("Both are right.\n[[tie]]", Choice.TIE),
        ("[[ B ]] as I said: [[B]]", Choice.B),
        ("**B**", Choice.B),
        ("Tie.", Choice.TIE),
        ("A", Choice.A),
        ("Answer A", None),
        ("[[A]] [[B]]", None),
        ("[A]", Choice.A),
        ("B is better", None),
        ("", None),
        ("[[A or B]]", None),
    ],
)
def test_a_choice_is_read_where_it_is_plain(answer: str, choice: Choice | None):
    assert parse_choice(answer) is choice


def test_every_pair_is_asked_in_both_orders_and_a_seed_fixes_the_sequence():
    def sequence(seed: int) -> list[str]:
        asked: list[str] = []
        judge_pairs(pairs(12), lambda prompt: asked.append(prompt) or "[[TIE]]", seed=seed)
        return asked

    assert sequence(1) == sequence(1)
    assert sequence(1) != sequence(2)
    assert sorted(sequence(1)) == sorted(sequence(2))
    assert len(set(sequence(1))) == 24
    tuned_first = [seen(prompt)[0] == "good" for prompt in sequence(1)[::2]]
    assert len(set(tuned_first)) == 2


def test_judgements_come_back_in_the_order_of_the_pairs():
    rows = pairs(9)
    kept: list[Judgement] = []
    found = judge_pairs(rows, perfect, seed=5, on_judged=kept.append)
    assert [one.pair for one in found] == rows
    assert [one.pair for one in kept] != rows
    assert {one.pair.row: one.preferred for one in kept} == truth(rows)


def test_several_pairs_at_once_give_the_same_and_are_kept_in_the_same_order():
    rows = pairs(30)
    kept: dict[int, list[Judgement]] = {1: [], 5: []}
    found = {num: judge_pairs(rows, perfect, seed=5, num_at_once=num, on_judged=into.append) for num, into in kept.items()}
    assert found[1] == found[5]
    assert kept[1] == kept[5]


def test_a_judge_that_fails_stops_the_rest_and_what_was_judged_before_is_kept():
    kept: list[Judgement] = []

    def failing(prompt: str) -> str:
        if len(kept) == 5:
            raise OSError("gone")
        return perfect(prompt)

    with pytest.raises(OSError, match="gone"):
        judge_pairs(pairs(30), failing, seed=0, on_judged=kept.append)
    assert len(kept) == 5


def test_an_arm_can_be_the_judge():
    class Echo:
        def generate(self, conversations: Sequence[Sequence[Message]], /, **_: object) -> list[str]:
            return [conversation[-1].content.upper() for conversation in conversations]

        def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
            return [Likelihood(0.0, 1, 1) for _ in records]

    assert ask_arm(Echo())("which?") == "WHICH?"


def test_braces_in_an_answer_are_left_alone_and_another_wording_is_another_version():
    filled = PROMPT.fill(question="{a}", a="{b}", b="{question}")
    assert "<answer_A>\n{b}\n" in filled
    assert "<question>\n{a}\n" in filled
    assert PROMPT.version != JudgePrompt(text=PROMPT.text + " ").version
    with pytest.raises(DataError, match=r"lacks \{b\}"):
        JudgePrompt(text="{question} {a}").fill(question="", a="", b="")


def test_the_corrected_rate_is_rogan_and_gladens():
    found = correct_rate(55, 100, true_yes=36, num_yes_human=40, true_no=28, num_no_human=40)
    assert found is not None
    assert found.rate is not None
    assert found.rate.value == pytest.approx((0.55 + 0.7 - 1) / (0.9 + 0.7 - 1))


def test_where_people_always_said_the_same_nothing_can_be_corrected():
    assert correct_rate(55, 100, true_yes=36, num_yes_human=40, true_no=0, num_no_human=0) is None


NOISY = [(0.4, 0.8, 0.7), (0.75, 0.9, 0.6), (0.25, 0.8, 0.9)]


def coverage(rate: float, sensitivity: float, specificity: float, *, are_among: bool) -> tuple[float, float, float]:
    """How often the interval holds the truth, and the means of raw and corrected rate, over 1,000 sets of 400 pairs and 100 labels."""
    rng = np.random.default_rng(3)
    num_covered, middles = 0, []
    for _ in range(1000):
        is_yes = rng.random(500) < rate
        says = np.where(is_yes, rng.random(500) < sensitivity, rng.random(500) >= specificity)
        judged = says[:400]
        by_people, said = (is_yes[:100], says[:100]) if are_among else (is_yes[400:], says[400:])
        found = correct_rate(
            int(judged.sum()),
            400,
            true_yes=int((said & by_people).sum()),
            num_yes_human=int(by_people.sum()),
            true_no=int((~said & ~by_people).sum()),
            num_no_human=int((~by_people).sum()),
        )
        assert found is not None
        assert found.rate is not None
        assert found.rate.low is not None
        assert found.rate.high is not None
        num_covered += found.rate.low <= rate <= found.rate.high
        middles.append((found.raw, found.rate.value))
    raw, corrected = np.mean(middles, axis=0)
    return num_covered / 1000, float(raw), float(corrected)


@pytest.mark.parametrize(("rate", "sensitivity", "specificity"), NOISY)
def test_the_corrected_rate_of_a_noisy_judge_covers_the_truth_and_the_raw_one_is_off(rate, sensitivity, specificity):
    share, raw, corrected = coverage(rate, sensitivity, specificity, are_among=False)
    assert 0.93 <= share <= 0.975
    assert abs(corrected - rate) < 0.02 < abs(raw - rate)


@pytest.mark.parametrize(("rate", "sensitivity", "specificity"), NOISY)
def test_it_covers_the_truth_more_often_still_where_people_judged_some_of_the_same_pairs(rate, sensitivity, specificity):
    share, _, _ = coverage(rate, sensitivity, specificity, are_among=True)
    assert 0.94 <= share < 1


def test_most_people_decide_and_as_many_against_as_for_is_a_tie():
    first, second, tie = Preferred.FIRST, Preferred.SECOND, Preferred.TIE
    assert majority([first, first, second]) is first
    assert majority([first, second]) is tie
    assert majority([second, tie]) is tie
    assert majority([second]) is second

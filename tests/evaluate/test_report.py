"""`evaluate` from rows and arms to report and verdict."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tunesmith.errors import DataError, TunesmithError
from tunesmith.evaluate import EvaluateConfig, Likelihood, evaluate, is_better, table
from tunesmith.records import Message, Record, Report, Role, Score, Source


def chat(place: int, *, group: str | None = None) -> Record:
    turns = (
        Message(role=Role.USER, content=f"Question {place}?"),
        Message(role=Role.ASSISTANT, content=f"we open at {place} am on day {place}"),
    )
    return Record(
        id=f"r{place}", source=Source(path="x", line=place), messages=turns, group=group, tags={"states": f"{place} am"}
    )


CHATS = [chat(place) for place in range(20)]


def always(answer: Any) -> Callable[[int], Any]:
    return lambda _: answer


NO_IDEA, EIGHT_NATS = always("no idea"), always(8.0)


@dataclass
class FakeArm:
    """Answers by a function of the row's number; every row has 4 tokens and 16 bytes unless told otherwise."""

    answer: Callable[[int], str] = NO_IDEA
    nll: Callable[[int], float] = EIGHT_NATS
    num_tokens: int = 4
    asked: list[str] = field(default_factory=list)

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        self.asked += [conversation[-1].content for conversation in conversations]
        return [self.answer(int(conversation[-1].content[9:-1])) for conversation in conversations]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        return [Likelihood(self.nll(record.source.line), self.num_tokens, 16) for record in records]


def bounds(score: Score) -> tuple[float, float]:
    assert score.low is not None
    assert score.high is not None
    return score.low, score.high


def right(place: int) -> str:
    return f"we open at {place} am on day {place}"


def run(base: FakeArm, tuned: FakeArm, *, records: Sequence[Record] = CHATS, config: EvaluateConfig | None = None) -> Report:
    return evaluate(records, arms={"base": base, "tuned": tuned}, config=config or EvaluateConfig())


def test_a_better_model_is_called_better_with_figures_and_intervals() -> None:
    report = run(FakeArm(nll=lambda place: 8 + place / 10), FakeArm(answer=right, nll=lambda place: 4 + place / 20))
    assert is_better(report)
    # Means over rows 0..19 by hand: 8.95 and 4.475 nats per 4 tokens.
    assert report.scores["base"]["perplexity"].value == pytest.approx(math.exp(8.95 / 4))
    assert report.scores["tuned"]["perplexity"].value == pytest.approx(math.exp(4.475 / 4))
    assert report.scores["tuned"]["bits_per_byte"].value == pytest.approx(4.475 / 16 / math.log(2))
    assert report.scores["tuned"]["rougeL"].value == pytest.approx(100)
    assert report.differences["tuned"]["facts"].value == pytest.approx(100)
    difference = report.differences["tuned"]["perplexity"]
    assert difference.value == pytest.approx(math.exp(4.475 / 4) - math.exp(8.95 / 4))
    low, high = bounds(difference)
    assert low < difference.value < high < 0
    assert report.verdict == (
        "Better than the base: ROUGE-L +100.0 [100.0, 100.0], facts right (%) +100.0 [100.0, 100.0], "
        "perplexity 9.37 -> 3.06 (p < .001), on 20 test rows in 20 clusters."
    )
    assert report.num_rows == 20
    assert "rows:20|clusters:20" in report.signatures["rougeL"]


def test_equal_models_are_not_better() -> None:
    def noisy(place: int) -> float:
        return 8 + (place * 7919 % 13 - 6) / 6

    report = run(FakeArm(nll=noisy), FakeArm(nll=lambda place: noisy(19 - place)))
    assert not is_better(report)
    assert report.verdict.startswith("Not better than the base as far as these rows can tell: ")


def test_a_worse_model_is_called_worse() -> None:
    report = run(FakeArm(), FakeArm(nll=lambda place: 9 + place / 10))
    assert not is_better(report)
    assert report.verdict.startswith("Not better than the base, worse in perplexity and bits per byte: ")


def test_better_perplexity_does_not_excuse_worse_answers() -> None:
    report = run(FakeArm(answer=right), FakeArm(nll=always(2.0)))
    assert not is_better(report)
    assert "worse in ROUGE-1 and ROUGE-2 and ROUGE-L and BLEU and facts right (%): " in report.verdict
    assert "perplexity 7.39 -> 1.65" in report.verdict


def test_too_few_clusters_give_no_interval_and_no_verdict() -> None:
    grouped = [chat(place, group=f"g{place % 5}") for place in range(20)]
    report = run(FakeArm(), FakeArm(answer=right, nll=always(1.0)), records=grouped)
    assert report.differences["tuned"]["perplexity"].low is None
    assert not is_better(report)
    assert report.verdict.startswith("Too few rows to tell: ")
    assert report.verdict.endswith("on 20 test rows in 5 clusters; intervals need 8 clusters.")


def test_clusters_widen_the_interval() -> None:
    def nll(place: int) -> float:
        return 8.0 + place // 2

    alone = run(FakeArm(), FakeArm(nll=nll))
    paired = run(FakeArm(), FakeArm(nll=nll), records=[chat(place, group=f"g{place // 2}") for place in range(20)])
    narrow, wide = (report.differences["tuned"]["bits_per_byte"] for report in (alone, paired))
    assert narrow.value == wide.value
    assert np.ptp(bounds(wide)) > 1.2 * np.ptp(bounds(narrow))


def test_every_arm_answers_the_same_chosen_rows_and_progress_is_told() -> None:
    arms = {name: FakeArm(answer=right) for name in ("base", "few_shot", "tuned")}
    heard: list[tuple[str, int, int]] = []
    report = evaluate(CHATS, arms=arms, config=EvaluateConfig(max_rows=6), on_progress=lambda *args: heard.append(args))
    assert arms["base"].asked == arms["tuned"].asked == arms["few_shot"].asked
    assert [sample.question for sample in report.samples] == arms["base"].asked
    assert len(report.samples) == 6
    sample = report.samples[0]
    assert sample.reference == right(int(sample.record[1:])) == sample.answers["tuned"]
    assert "(6 of them answered)" in report.verdict
    assert ("few_shot: answers", 6, 6) in heard
    assert ("base: likelihoods", 20, 20) in heard
    assert "rows:6|" in report.signatures["bleu"]
    assert "rows:20|" in report.signatures["perplexity"]


def test_text_rows_have_likelihoods_alone() -> None:
    texts = [Record(id=f"t{place}", source=Source(path="x", line=place), text="words") for place in range(12)]
    report = run(FakeArm(), FakeArm(nll=always(4.0)), records=texts)
    assert set(report.scores["tuned"]) == {"perplexity", "bits_per_byte"}
    assert report.samples == ()
    assert is_better(report)


def test_text_rows_among_conversations_ask_nothing() -> None:
    text = Record(id="t", source=Source(path="x", line=0), text="words")
    report = run(FakeArm(), FakeArm(answer=right), records=[text, *CHATS[:3], text, *CHATS[3:]])
    assert [(row.record, row.answers["tuned"]) for row in report.samples] == [(f"r{n}", right(n)) for n in range(20)]
    assert report.scores["tuned"]["rougeL"].value == pytest.approx(100)


def test_facts_are_left_out_where_no_row_has_the_tag() -> None:
    report = run(FakeArm(), FakeArm(), records=[replace(row, tags={}) for row in CHATS])
    assert "facts" not in report.scores["tuned"]
    assert not any("facts" in cell for line in table(report) for cell in line)


def test_without_likelihoods_a_clear_gain_in_answers_decides() -> None:
    config = EvaluateConfig(metrics=("rouge",))
    assert is_better(run(FakeArm(), FakeArm(answer=right), config=config))
    assert not is_better(run(FakeArm(), FakeArm(), config=config))


def test_perplexity_alone_asks_for_no_answers() -> None:
    base, tuned = FakeArm(), FakeArm(nll=always(4.0))
    report = run(base, tuned, config=EvaluateConfig(metrics=("perplexity",)))
    assert base.asked == tuned.asked == []
    assert report.samples == ()


def test_other_tokenizers_are_compared_in_bits_per_byte() -> None:
    report = run(FakeArm(), FakeArm(nll=always(4.0), num_tokens=2))
    assert "perplexity" not in report.differences["tuned"]
    assert "another tokenizer" in report.signatures["perplexity"]
    assert is_better(report)
    assert "bits per byte 0.721 -> 0.361" in report.verdict


@pytest.mark.parametrize("nll", [math.inf, math.nan])
def test_a_model_that_diverged_gets_a_report_and_no_praise(nll: float) -> None:
    report = run(FakeArm(), FakeArm(nll=always(nll)))
    assert report.scores["tuned"]["perplexity"].value == math.inf
    assert not is_better(report)
    assert "worse in perplexity" in report.verdict
    both = run(FakeArm(nll=always(nll)), FakeArm(answer=right, nll=always(nll)))
    assert "perplexity" not in both.differences["tuned"]
    assert not is_better(both)
    assert both.verdict.startswith("Cannot be compared with the base, ")


def test_a_row_truncated_away_for_one_arm_is_left_out_for_all() -> None:
    class Truncating(FakeArm):
        def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
            full = super().likelihood(records)
            return [Likelihood(0.0, 0, 0), *full[1:]]

    report = run(FakeArm(nll=lambda place: 800.0 if place == 0 else 8.0), Truncating(nll=always(8.0)))
    assert report.scores["base"]["perplexity"].value == pytest.approx(math.exp(2))
    assert "rows:19|" in report.signatures["perplexity"]


def test_one_arm_alone_is_measured_without_a_comparison() -> None:
    report = evaluate(CHATS, arms={"tuned": FakeArm(answer=right)}, config=EvaluateConfig())
    assert report.differences == {}
    assert not is_better(report)
    assert report.verdict.startswith("Measured without a comparison: tuned perplexity 7.39 [7.39, 7.39], ROUGE-L 100.0")


def test_the_id_is_that_of_the_content() -> None:
    first, again = (run(FakeArm(), FakeArm(nll=always(4.0))) for _ in range(2))
    other = run(FakeArm(), FakeArm(nll=always(4.5)))
    assert first == again
    assert len(first.id) == 64
    assert first.id != other.id


def test_nothing_to_evaluate_on_is_refused() -> None:
    with pytest.raises(DataError, match="no test rows"):
        run(FakeArm(), FakeArm(), records=[])
    with pytest.raises(DataError, match="0 supervised"):
        run(FakeArm(num_tokens=0), FakeArm())


def test_an_arm_is_asked_with_the_tools_of_each_row() -> None:
    given: list[tuple[str, str]] = []

    class Calling(FakeArm):
        def generate(self, conversations: Sequence[Sequence[Message]], /, *, tools: Sequence[str] = ()) -> list[str]:
            given.extend(zip([conversation[-1].content for conversation in conversations], tools, strict=True))
            return ["x" for _ in conversations]

    run(Calling(), Calling(), records=[replace(CHATS[0], tools="[1]"), CHATS[1]])
    assert given == [("Question 0?", "[1]"), ("Question 1?", "")] * 2


def test_an_arm_with_a_missing_answer_is_refused_and_no_arm_at_all() -> None:
    class Short(FakeArm):
        def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
            return super().generate(conversations)[1:]

    with pytest.raises(TunesmithError, match="tuned: answers: the arm gave 19 for 20 rows"):
        run(FakeArm(), Short())
    with pytest.raises(TunesmithError, match="At least one"):
        evaluate(CHATS, arms={}, config=EvaluateConfig())

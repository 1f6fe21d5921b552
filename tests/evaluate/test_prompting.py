"""Prompt or fine-tune: arms without likelihoods among others, the paired comparison with the best prompt, and what the verdict says."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from tunesmith.evaluate import Answering, EvaluateConfig, Likelihood, Usage, evaluate, from_json, is_better, table, to_json
from tunesmith.evaluate.costs import Meter, Price
from tunesmith.evaluate.reading import arms_table, leading
from tunesmith.records import Message, Record, Report, Role, Source

NUM_ROWS = 40


def chat(place: int) -> Record:
    turns = (Message(role=Role.USER, content=f"Question {place}?"), Message(role=Role.ASSISTANT, content=f"at {place} am"))
    return Record(id=f"r{place}", source=Source(path="x", line=place), messages=turns, tags={"states": f"{place} am"})


CHATS = [chat(place) for place in range(NUM_ROWS)]


class Silent:
    """Right where it is said to be; it gives no likelihoods, but tells what it took."""

    def __init__(self, is_right: Callable[[int], bool]) -> None:
        self.is_right = is_right
        self.last_usage: list[Usage] = []

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        places = [int(turns[-1].content[9:-1]) for turns in conversations]
        self.last_usage = [Usage(10, 3, 0.5) for _ in places]
        return [f"at {place} am" if self.is_right(place) else "no idea" for place in places]


@dataclass
class Speaking:
    """The same with likelihoods."""

    is_right: Callable[[int], bool]
    nll: float = 8.0

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        return Silent(self.is_right).generate(conversations)

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        return [Likelihood(self.nll + record.source.line / 100, 4, 16) for record in records]


def below(number: int) -> Callable[[int], bool]:
    return lambda place: place < number


def report(prompted: dict[str, Answering], *, tuned: int = 30, meter: Meter | None = None) -> Report:
    arms: dict[str, Answering] = {"base": Speaking(below(4)), **prompted, "tuned": Speaking(below(tuned), nll=4.0)}
    config = EvaluateConfig(metrics=("perplexity", "rouge", "facts"))
    return evaluate(CHATS, arms=arms, config=config, prompted=list(prompted), meter=meter)


def test_an_arm_without_likelihoods_is_left_out_of_them_alone() -> None:
    found = report({"other": Silent(below(20))})
    assert {"perplexity", "bits_per_byte"} <= found.scores["base"].keys() & found.scores["tuned"].keys()
    assert set(found.scores["other"]) == {"rouge1", "rouge2", "rougeL", "facts"}
    assert found.scores["other"]["facts"].value == pytest.approx(50)
    assert "perplexity" not in found.differences["other"]
    assert found.differences["other"]["facts"].value == pytest.approx(40)
    without = report({})
    for metric, score in without.differences["tuned"].items():
        assert found.differences["tuned"][metric] == score, metric
    assert found.scores["tuned"]["perplexity"] == without.scores["tuned"]["perplexity"]
    assert is_better(found)
    # Means over rows 0..39 by hand: 8.195 and 4.195 nats for 4 tokens.
    assert table(found)[1][:4] == ["perplexity", f"{math.exp(8.195 / 4):.2f}", f"{math.exp(4.195 / 4):.2f}", ""]


def test_a_baseline_without_likelihoods_is_compared_in_answers() -> None:
    arms: dict[str, Answering] = {"base": Silent(below(4)), "tuned": Speaking(below(30))}
    found = evaluate(CHATS, arms=arms, config=EvaluateConfig(metrics=("perplexity", "facts")))
    assert set(found.differences["tuned"]) == {"facts"}
    assert "perplexity" in found.scores["tuned"]


def test_the_verdict_says_when_training_beats_the_best_prompt() -> None:
    found = report({"base+few_shot": Speaking(below(10)), "other": Silent(below(5))})
    prompting = found.details["prompting"]
    assert (prompting["arm"], prompting["metric"], prompting["value"], prompting["subject"]) == ("base+few_shot", "facts", 25, 75)
    assert prompting["difference"]["value"] == pytest.approx(50)
    # Approximate randomisation: 20 rows of 40 differ, all for the better; by the binomial p is 2 / 2^20.
    assert prompting["difference"]["p_value"] == pytest.approx(1 / 2001)
    assert found.verdict.startswith("Better than the base: ")
    clause = "on 40 test rows in 40 clusters; better than the best prompt too (base+few_shot): facts right (%) +50.0 ["
    assert clause in found.verdict
    assert found.verdict.endswith("] (p < .001).")


def test_the_verdict_says_when_training_does_not_clearly_beat_the_best_prompt() -> None:
    found = report({"base+few_shot": Speaking(below(10)), "base+instruction": Speaking(below(29))})
    assert is_better(found)  # than the base it is
    assert "; not clearly better than the best prompt (base+instruction), which needs no training: facts right (%) +2.5 [" in (
        found.verdict
    )


def test_a_soft_prompt_is_trained_too_and_the_verdict_does_not_say_otherwise() -> None:
    close, better = report({"base+soft_prompt": Speaking(below(29))}), report({"base+soft_prompt": Silent(below(40))}, tuned=20)
    assert "(base+soft_prompt), which changes no weight of the model: facts right (%) +2.5 [" in close.verdict
    assert "the best prompt does better with no weight of the model changed (base+soft_prompt): facts right" in better.verdict
    assert not any("training" in found.verdict for found in (close, better))


def test_the_verdict_says_when_a_prompt_does_better() -> None:
    found = report({"other": Silent(below(40))}, tuned=20)
    assert "; the best prompt does better without any training (other): facts right (%) -50.0 [" in found.verdict


def test_without_prompted_arms_the_verdict_speaks_of_the_base_alone() -> None:
    found = report({})
    assert "prompt" not in found.verdict
    assert found.details == {}


def test_the_same_comparison_is_found_whatever_other_arms_there_are() -> None:
    alone = report({"base+few_shot": Speaking(below(10))}).details["prompting"]
    among = report({"base+few_shot": Speaking(below(10)), "other": Silent(below(3))}).details["prompting"]
    assert alone == among


def test_what_answers_took_stands_in_the_report_and_survives_json() -> None:
    found = report({"other": Silent(below(3))}, meter=Meter(training_s=10))
    arms = found.details["arms"]
    assert set(arms) == {"base", "other", "tuned"}
    assert (arms["other"]["prompt_tokens"], arms["other"]["answer_tokens"], arms["other"]["seconds"]) == (10, 3, 0.5)
    assert arms["other"]["num_requests"] == NUM_ROWS
    assert arms["tuned"]["seconds"] > 0
    assert from_json(to_json(found)) == found


def test_many_arms_have_a_table_of_their_own() -> None:
    prompted: dict[str, Answering] = {"base+few_shot": Speaking(below(10)), "other": Silent(below(5))}
    meter = Meter(prices={"other": Price(1000, 1000)}, training_s=7.1)
    found = report(prompted, meter=meter)
    header, *rows = arms_table(found)
    assert header == [
        "arm",
        "perplexity",
        "ROUGE-L",
        "facts right (%)",
        "tokens",
        "seconds",
        "cost of 1,000",
        "training pays off",
    ]
    assert [one[0] for one in rows] == ["base", "tuned", "base+few_shot", "other"]
    # 13 tokens at 1,000 a million, a thousand times; 0.5 seconds a request against next to none of the tuned model's.
    assert rows[3][1:] == ["", rows[3][2], "12.5", "10 + 3", "0.5", "13", "after 15"]
    assert all(len(one) == len(header) for one in rows)
    assert [line[1:3] for line in table(found)[:1]] == [["base", "tuned"]]
    assert arms_table(report({})) == []


@pytest.mark.parametrize(
    ("metrics", "lead"),
    [
        (["perplexity", "bits_per_byte", "rouge1", "rougeL", "bleu", "facts"], "facts"),
        (["perplexity", "rouge1", "rougeL", "bleu"], "rougeL"),
        (["rougeL", "accuracy", "f1:yes"], "accuracy"),
        (["perplexity", "bits_per_byte"], "perplexity"),
        (["distinct1", "own"], "own"),
        (["distinct1"], None),
        ([], None),
    ],
)
def test_one_metric_leads(metrics: list[str], lead: str | None) -> None:
    assert leading(metrics) == lead


def test_a_better_prompt_in_a_metric_that_is_to_be_low_is_found() -> None:
    arms: dict[str, Answering] = {
        "base": Speaking(below(4)),
        "base+few_shot": Speaking(below(4), nll=3.0),
        "base+instruction": Speaking(below(4), nll=6.0),
        "tuned": Speaking(below(4), nll=4.0),
    }
    config = EvaluateConfig(metrics=("perplexity",))
    found = evaluate(CHATS, arms=arms, config=config, prompted=["base+few_shot", "base+instruction"])
    assert found.details["prompting"]["arm"] == "base+few_shot"
    mean = float(np.mean([place / 100 for place in range(NUM_ROWS)]))
    expected = math.exp((4 + mean) / 4) - math.exp((3 + mean) / 4)
    assert found.details["prompting"]["difference"]["value"] == pytest.approx(expected)
    assert "the best prompt does better without any training (base+few_shot): perplexity +" in found.verdict

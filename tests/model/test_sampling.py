"""Each rule against transformers' own processors of scores: the same tokens may come, as often as they should."""

from collections import Counter
from typing import Any

import pytest
import torch
from transformers.generation import logits_process as oracle

from tunesmith.model.sampling import Chooser, Sampling, choose

LOGITS = torch.tensor([1.0, 3.0, -1.0, 2.5, 0.0, 2.0, -9.0, 2.4, -0.5, 1.5])
NUM = 4000


def drawn(prompt: list[int] | None = None, said: list[int] | None = None, **rules: Any) -> Counter[int]:
    found: Counter[int] = Counter()
    for seed in range(NUM):
        chooser = Chooser(Sampling(temperature=rules.get("temperature", 1.0), seed=seed, **without(rules)), prompt=prompt or [])
        for token in said or []:
            chooser.note(token)
        found[chooser.pick(LOGITS)] += 1
    return found


def without(rules: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rules.items() if name != "temperature"}


def check(found: Counter[int], scores: torch.Tensor) -> None:
    shares = scores.double().softmax(dim=-1)
    assert set(found) <= set(shares.nonzero()[:, 0].tolist())
    for token, share in enumerate(shares.tolist()):  # within 5 standard deviations of a binomial count
        assert abs(found[token] - NUM * share) <= 5 * (NUM * share * (1 - share)) ** 0.5 + 1e-9


@pytest.mark.parametrize("k", [1, 3, 50])
def test_top_k(k: int) -> None:
    check(drawn(top_k=k), oracle.TopKLogitsWarper(top_k=min(k, 10))(torch.zeros(1, 0), LOGITS[None])[0])


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_min_p(share: float) -> None:
    check(drawn(min_p=share), oracle.MinPLogitsWarper(min_p=share)(torch.zeros(1, 0), LOGITS[None])[0])


def test_temperature_comes_before_what_is_cut_off() -> None:
    scores = oracle.TopPLogitsWarper(top_p=0.6)(torch.zeros(1, 0), LOGITS[None] / 2.0)[0]
    check(drawn(temperature=2.0, top_p=0.6), scores)


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_a_repetition_penalty_counts_prompt_and_answer(penalty: float) -> None:
    scores = oracle.RepetitionPenaltyLogitsProcessor(penalty=penalty)(torch.tensor([[1, 2, 5]]), LOGITS[None])[0]
    check(drawn(prompt=[1, 2], said=[5, 5], repetition_penalty=penalty), scores)


def test_presence_and_frequency_penalties_are_openais_formula() -> None:
    """score - count * frequency - (1 if count else 0) * presence, over the answer alone."""
    expected = LOGITS.clone()
    expected[5] -= 2 * 0.4 + 0.3
    expected[1] -= 1 * 0.4 + 0.3
    check(drawn(prompt=[3, 3], said=[5, 5, 1], frequency_penalty=0.4, presence_penalty=0.3), expected)


def test_a_bias_moves_a_score() -> None:
    expected = LOGITS.clone()
    expected[6] += 12
    expected[1] -= 100
    found = drawn(logit_bias={6: 12.0, 1: -100.0})
    check(found, expected)
    greedy = Chooser(Sampling(logit_bias={6: 20.0}))
    assert greedy.pick(LOGITS) == 6
    assert LOGITS[6] == -9


def test_a_row_says_how_likely_its_token_is_before_all_rules() -> None:
    logprobs = LOGITS.log_softmax(dim=-1)
    rows = torch.stack([LOGITS, LOGITS])
    plain, biased = choose(rows, [Chooser(Sampling()), Chooser(Sampling(logit_bias={6: 20.0}, num_logprobs=2))])
    assert (plain.token, plain.logprob, plain.top) == (1, None, ())
    assert biased.token == 6
    assert biased.logprob == pytest.approx(float(logprobs[6]))
    assert biased.top == ((1, pytest.approx(float(logprobs[1]))), (3, pytest.approx(float(logprobs[3]))))


def test_what_may_not_come_does_not() -> None:
    allowed = torch.zeros(10, dtype=torch.bool)
    allowed[[2, 6]] = True
    (first, second) = choose(
        torch.stack([LOGITS, LOGITS]), [Chooser(Sampling()), Chooser(Sampling(temperature=2.0))], allowed=[allowed, allowed]
    )
    assert first.token == 2
    assert second.token in {2, 6}


def test_of_equal_scores_the_first_is_the_likeliest_in_every_number_format() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 4, (16, 500), generator=generator).float() / 4
    expected = scores.numpy().argmax(axis=1).tolist()
    for dtype in (torch.float32, torch.bfloat16):
        choosers = [Chooser(Sampling()) for _ in scores]
        assert [choice.token for choice in choose(scores.to(dtype), choosers)] == expected


def test_likelihoods_are_computed_in_fp32_from_scores_in_bf16() -> None:
    scores = torch.randn(1, 500, generator=torch.Generator().manual_seed(0)).bfloat16()
    (choice,) = choose(scores, [Chooser(Sampling(num_logprobs=2))])
    logprobs = scores.double().log_softmax(dim=-1)[0]
    assert choice.logprob == pytest.approx(float(logprobs[choice.token]), abs=1e-6)
    assert [value for _, value in choice.top] == pytest.approx(logprobs.topk(2).values.tolist(), abs=1e-6)


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 1e-309, 5e-324])
def test_next_to_no_temperature_is_none(temperature: float) -> None:
    """Divided by so little, scores overflow, and no likelihood is left to draw by."""
    cold = Chooser(Sampling(temperature=temperature, seed=1))
    assert cold.is_plain
    assert {cold.pick(LOGITS) for _ in range(20)} == {int(LOGITS.argmax())}

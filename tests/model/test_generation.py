"""Generation against transformers' own `generate`, and sampling against a nucleus computed with numpy."""

from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.model.generation import generate, write
from tunesmith.model.sampling import Chooser, Sampling, choose

_BODY = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "llama with grouped queries": transformers.LlamaConfig(**_BODY, **_IDS, num_key_value_heads=2, max_position_embeddings=64),
    "gpt2": transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, **_IDS),
    "mistral with a window": transformers.MistralConfig(**_BODY, **_IDS, num_key_value_heads=2, sliding_window=8),
}
PROMPTS = [[5, 6, 7], [9], list(range(20, 37)), [250, 3], [100] * 9, [42, 43, 44, 45], [8, 8], list(range(60, 48, -1))]


def build(name: str) -> nn.Module:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name]).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def by_transformers(model: nn.Module, prompt: list[int], *, num_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    settings = transformers.GenerationConfig(max_new_tokens=num_tokens, do_sample=False, pad_token_id=0)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)  # type: ignore[operator]
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_those_of_transformers(name: str) -> None:
    model = build(name)
    expected = [by_transformers(model, prompt, num_tokens=14) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in expected}) == len(PROMPTS)
    greedy = Sampling(max_new_tokens=14)
    assert generate(model, PROMPTS, sampling=greedy, stop_tokens=[], batch_size=8) == expected
    assert generate(model, PROMPTS, sampling=greedy, stop_tokens=[], batch_size=1) == expected
    assert generate(model, PROMPTS, sampling=greedy, stop_tokens=[], batch_size=3) == expected


@pytest.mark.parametrize("name", MODELS)
def test_weights_that_change_between_calls_are_heard(name: str) -> None:
    model, greedy = build(name), Sampling(max_new_tokens=14)
    places = [parameter.data_ptr() for parameter in model.parameters()]
    before = generate(model, PROMPTS, sampling=greedy, stop_tokens=[])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    after = generate(model, PROMPTS, sampling=greedy, stop_tokens=[])
    assert after != before
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    model.generation_config.eos_token_id = None  # or the library would stop where nobody asked ours to
    assert after == [by_transformers(model, prompt, num_tokens=14) for prompt in PROMPTS]


@pytest.mark.parametrize("name", MODELS)
def test_a_row_ends_at_any_stop_token_and_disturbs_no_other(name: str) -> None:
    model = build(name)
    whole = generate(model, PROMPTS, sampling=Sampling(max_new_tokens=14), stop_tokens=[])
    stops = {whole[0][2], whole[1][5]}

    def until_stop(answer: list[int]) -> list[int]:
        return answer[: next((i for i, token in enumerate(answer) if token in stops), len(answer))]

    expected = [until_stop(answer) for answer in whole]
    assert len(expected[0]) <= 2
    assert len(expected[1]) <= 5
    assert any(len(answer) == 14 for answer in expected)
    assert generate(model, PROMPTS, sampling=Sampling(max_new_tokens=14), stop_tokens=sorted(stops)) == expected


def test_an_answer_is_written_token_by_token_and_its_end_has_a_reason() -> None:
    model = build("gpt2")
    (whole,) = generate(model, PROMPTS[:1], sampling=Sampling(max_new_tokens=6), stop_tokens=[])
    said = list(write(model, PROMPTS[0], sampling=Sampling(max_new_tokens=6), stop_tokens=[]))
    assert [one.choice.token for one in said if one.choice] == whole
    assert [one.finish for one in said] == [None] * 5 + ["length"]
    stop = next(token for token in whole if token != whole[0])
    ended = list(write(model, PROMPTS[0], sampling=Sampling(max_new_tokens=6), stop_tokens=[stop]))
    assert [one.choice.token for one in ended if one.choice] == whole[: whole.index(stop)]
    assert ended[-1].finish == "stop"


@pytest.mark.parametrize("prompts", [[[]], [[1], []]])
def test_an_empty_prompt_is_refused(prompts: list[list[int]]) -> None:
    with pytest.raises(ModelError, match="no tokens"):
        generate(build("gpt2"), prompts, sampling=Sampling(), stop_tokens=[])


def test_answers_come_in_the_order_of_the_prompts_and_progress_is_told() -> None:
    model, told = build("gpt2"), []
    generate(model, PROMPTS, sampling=Sampling(max_new_tokens=1), stop_tokens=[], batch_size=3, on_progress=told.append)
    assert told == [1, 2, 3, 4, 5, 6, 7, 8]


def test_sampling_repeats_with_its_seed_whatever_the_batch() -> None:
    model = build("gpt2")

    def run(seed: int | None, batch_size: int) -> list[list[int]]:
        sampling = Sampling(max_new_tokens=8, temperature=1.5, top_p=0.95, seed=seed)
        return generate(model, PROMPTS, sampling=sampling, stop_tokens=[], batch_size=batch_size)

    first = run(1, 8)
    assert run(1, 8) == first
    assert run(1, 1) == first
    assert run(1, 3) == first
    assert run(2, 8) != first
    assert run(None, 8) != run(None, 8)


def test_equal_prompts_are_answered_differently_in_one_batch_and_across_batches() -> None:
    rules = Sampling(max_new_tokens=5, temperature=5.0, seed=0)
    answers = generate(build("gpt2"), [[1]] * 12, sampling=rules, stop_tokens=[], batch_size=4)
    assert len({tuple(answer) for answer in answers}) == 12


def test_temperature_zero_is_greedy_whatever_the_seed() -> None:
    model = build("gpt2")
    greedy = generate(model, PROMPTS, sampling=Sampling(max_new_tokens=5), stop_tokens=[])
    sampled = generate(model, PROMPTS, sampling=Sampling(max_new_tokens=5, temperature=0.0, top_p=0.1, seed=9), stop_tokens=[])
    assert greedy == sampled


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.8), (0.7, 0.55), (2.0, 0.9), (1.0, 1e-9)])
def test_sampling_draws_exactly_the_nucleus_with_its_probabilities(temperature: float, top_p: float) -> None:
    logits = np.array([1.0, 3.0, -1.0, 2.5, 0.0, 2.0, -9.0])
    shares = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    nucleus: list[int] = []
    while sum(shares[nucleus]) < top_p and len(nucleus) < len(shares):  # Holtzman et al. 2020, the smallest set that reaches p
        nucleus.append(int(np.argsort(-shares, kind="stable")[len(nucleus)]))
    expected = shares[nucleus] / shares[nucleus].sum()
    num_rows = 4000
    sampling = Sampling(max_new_tokens=1, temperature=temperature, top_p=top_p, seed=5)
    drawn = choose(torch.tensor(logits).float().expand(num_rows, -1), [Chooser(sampling, row=row) for row in range(num_rows)])
    counts = Counter(choice.token for choice in drawn)
    assert set(counts) <= set(nucleus)
    for token, share in zip(nucleus, expected, strict=True):  # within 5 standard deviations of a binomial count
        assert abs(counts[token] - num_rows * share) <= 5 * (num_rows * share * (1 - share)) ** 0.5 + 1e-9


def test_an_answer_can_be_left_in_the_middle_and_leaves_torch_as_it_was() -> None:
    model = build("gpt2")
    steps = write(model, PROMPTS[0], sampling=Sampling(max_new_tokens=50), stop_tokens=[])
    next(steps)
    assert not torch.is_inference_mode_enabled()
    steps.close()  # type: ignore[attr-defined]
    model(input_ids=torch.tensor([[1, 2]])).logits.sum().backward()

"""Continuous batching against `transformers.generate`, whatever comes, goes and shares; adapters against each alone on its own model."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.model.adapter_files import read_adapter, write_adapter
from tunesmith.model.batching import Batch, Request, Said
from tunesmith.model.lora import add_lora, lora_layers
from tunesmith.model.lora_many import AdapterSet
from tunesmith.model.sampling import Sampling
from tunesmith.model.slot_readers import OneByOne, Together, reader_for

_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BODY = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_LONG = {"max_position_embeddings": 256, "num_key_value_heads": 2}
MODELS = {
    "llama": transformers.LlamaConfig(**_BODY, **_IDS, **_LONG),
    "gpt2": transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=256, **_IDS),
    "mistral with a window": transformers.MistralConfig(**_BODY, **_IDS, **_LONG, sliding_window=8),
    "qwen3": transformers.Qwen3Config(**_BODY, **_IDS, **_LONG, head_dim=16),
    "gemma2 with soft caps": transformers.Gemma2Config(
        **_BODY, **_IDS, **_LONG, head_dim=8, sliding_window=8, attn_logit_softcapping=2.0, final_logit_softcapping=5.0
    ),
    "lfm2 with convolutions": transformers.Lfm2Config(
        **_BODY, **_IDS, **_LONG, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False
    ),
}
PROMPTS = [[5, 6, 7], [9], list(range(20, 57)), [250, 3], [100] * 9, [42, 43, 44, 45], [8, 8], list(range(90, 48, -1))]
_built: dict[str, nn.Module] = {}
_answers: dict[tuple[str, tuple[int, ...]], list[int]] = {}


def build(name: str) -> nn.Module:
    if name not in _built:
        torch.manual_seed(3)
        model = transformers.AutoModelForCausalLM.from_config(MODELS[name]).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        model.generation_config.eos_token_id = None  # the oracle goes on as we do
        _built[name] = model
    return _built[name]


def by_transformers(name: str, prompt: list[int], *, num_tokens: int = 12) -> list[int]:
    if (key := (name, tuple(prompt))) not in _answers:
        model: Any = build(name)
        ids = torch.tensor([prompt])
        plan = transformers.GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
        _answers[key] = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plan)[
            0, len(prompt) :
        ].tolist()
    return _answers[key][:num_tokens]


def greedy(prompt: list[int], *, num: int = 12, **other: Any) -> Request:
    return Request(prompt=prompt, sampling=Sampling(max_new_tokens=num), **other)


def run(batch: Batch, *, before: list[Said] = []) -> dict[int, list[Said]]:  # noqa: B006  only read
    heard: dict[int, list[Said]] = {}
    for said in before:
        heard.setdefault(said.id, []).append(said)
    for _ in range(10_000):
        for said in batch.step():
            heard.setdefault(said.id, []).append(said)
        if not batch.num_running and not batch.num_waiting:
            return heard
    raise AssertionError("it never ends")


def tokens(heard: list[Said]) -> list[int]:
    return [said.choice.token for said in heard if said.choice is not None]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("limits", [{}, {"max_requests": 3}, {"tokens_per_step": 5}, {"max_requests": 2, "prefix_bytes": 2**20}])
def test_greedy_answers_are_those_of_transformers(name: str, limits: dict[str, int]) -> None:
    batch = Batch(build(name), **limits)
    ids = [batch.add(greedy(prompt)) for prompt in PROMPTS]
    heard = run(batch)
    assert [tokens(heard[i]) for i in ids] == [by_transformers(name, prompt) for prompt in PROMPTS]
    assert all([said.finish for said in heard[i]][-1] == "length" for i in ids)


def test_a_model_that_mixes_tokens_outside_attention_is_read_one_by_one() -> None:
    assert isinstance(reader_for(build("lfm2 with convolutions")), OneByOne)
    assert all(isinstance(reader_for(build(name)), Together) for name in MODELS if name != "lfm2 with convolutions")


@settings(max_examples=40, deadline=None)
@given(
    plan=st.lists(st.tuples(st.sampled_from(["add", "step", "cancel"]), st.integers(0, 7)), min_size=5, max_size=40),
    tokens_per_step=st.integers(1, 40),
    max_requests=st.integers(1, 5),
)
def test_whoever_comes_and_goes_disturbs_no_answer(plan: list[tuple[str, int]], tokens_per_step: int, max_requests: int) -> None:
    batch = Batch(build("llama"), tokens_per_step=tokens_per_step, max_requests=max_requests, prefix_bytes=2**16)
    asked: dict[int, list[int]] = {}
    heard: dict[int, list[Said]] = {}
    cancelled: set[int] = set()
    for action, number in plan:
        if action == "add":
            asked[batch.add(greedy(PROMPTS[number], num=3 + number))] = PROMPTS[number]
        elif action == "cancel" and number in asked:
            batch.cancel(number)
            cancelled.add(number)
        else:
            for said in batch.step():
                assert said.id not in cancelled
                heard.setdefault(said.id, []).append(said)
    for i, rest in run(batch).items():
        heard.setdefault(i, []).extend(rest)
    for i, prompt in asked.items():
        expected = by_transformers("llama", prompt, num_tokens=3 + PROMPTS.index(prompt))
        found = tokens(heard.get(i, []))
        assert found == (expected if i not in cancelled else expected[: len(found)])
        if i not in cancelled:
            assert heard[i][-1].finish == "length"


def test_an_answer_ends_at_a_stop_token_which_is_not_told() -> None:
    expected = by_transformers("llama", PROMPTS[0])
    batch = Batch(build("llama"))
    stopping = batch.add(greedy(PROMPTS[0], stop_tokens=frozenset({expected[4]})))
    other = batch.add(greedy(PROMPTS[1]))
    heard = run(batch)
    first = expected.index(expected[4])
    assert tokens(heard[stopping]) == expected[:first]
    assert heard[stopping][-1] == Said(stopping, None, "stop")
    assert tokens(heard[other]) == by_transformers("llama", PROMPTS[1])


def test_an_answer_ends_where_the_context_does() -> None:
    batch = Batch(build("llama"), max_length=10)
    i = batch.add(greedy([5, 6, 7]))
    assert tokens(run(batch)[i]) == by_transformers("llama", [5, 6, 7], num_tokens=7)
    with pytest.raises(ModelError, match="11 tokens; the context holds 10"):
        batch.add(greedy([5] * 11))


def test_no_prompt_and_no_such_adapter_are_refused() -> None:
    batch = Batch(build("llama"))
    with pytest.raises(ModelError, match="no tokens"):
        batch.add(greedy([]))
    with pytest.raises(ModelError, match="no adapter 'b'"):
        batch.add(greedy([1], adapter="b"))


@pytest.mark.parametrize("name", ["llama", "gpt2", "lfm2 with convolutions"])
@pytest.mark.parametrize("tokens_per_step", [3, 512])
def test_a_prompt_is_scored_as_the_models_own_pass_scores_it(name: str, tokens_per_step: int) -> None:
    prompt = PROMPTS[2]
    batch = Batch(build(name), tokens_per_step=tokens_per_step, prefix_bytes=2**20)
    run_first = batch.add(greedy(prompt))  # leaves its beginning behind, and what is scored must be read all the same
    run(batch)
    assert run_first == 0
    rules = Sampling(max_new_tokens=0, num_logprobs=2)
    beside = batch.add(greedy(PROMPTS[4]))
    i = batch.add(Request(prompt=prompt, sampling=rules, scores_prompt=True))
    heard = run(batch)
    (said,) = heard[i]
    with torch.no_grad():
        logprobs = build(name)(input_ids=torch.tensor([prompt])).logits[0].log_softmax(dim=-1)
    assert said.choice is None
    assert said.finish == "length"
    assert said.prompt_scores is not None
    assert [score.token for score in said.prompt_scores] == prompt[1:]
    for place, score in enumerate(said.prompt_scores):
        assert score.logprob == pytest.approx(float(logprobs[place, prompt[place + 1]]), abs=1e-4)
        assert [token for token, _ in score.top] == logprobs[place].topk(2).indices.tolist()
    assert tokens(heard[beside]) == by_transformers(name, PROMPTS[4])


@pytest.mark.parametrize("tokens_per_step", [5, 512])
def test_a_prompt_that_is_scored_is_answered_as_any_other(tokens_per_step: int) -> None:
    name = next(iter(MODELS))
    batch = Batch(build(name), tokens_per_step=tokens_per_step)
    scored = [batch.add(greedy(prompt, scores_prompt=True)) for prompt in PROMPTS[:3]]
    heard = run(batch)
    assert [tokens(heard[i]) for i in scored] == [by_transformers(name, prompt) for prompt in PROMPTS[:3]]


def test_log_probabilities_of_an_answer_are_the_models_own_whatever_the_rules() -> None:
    batch = Batch(build("llama"))
    rules = Sampling(max_new_tokens=5, num_logprobs=3, temperature=1.5, top_k=5, presence_penalty=1.0, seed=4)
    i = batch.add(Request(prompt=PROMPTS[0], sampling=rules))
    choices = [said.choice for said in run(batch)[i] if said.choice is not None]
    written = [*PROMPTS[0], *(choice.token for choice in choices)]
    with torch.no_grad():
        logprobs = build("llama")(input_ids=torch.tensor([written])).logits[0].log_softmax(dim=-1)
    for place, choice in enumerate(choices, start=len(PROMPTS[0]) - 1):
        assert choice.logprob == pytest.approx(float(logprobs[place, choice.token]), abs=1e-4)
        assert [token for token, _ in choice.top] == logprobs[place].topk(3).indices.tolist()


def test_a_shared_beginning_is_read_once_and_only_for_the_same_adapter(tmp_path: Path) -> None:
    system = list(range(100, 170))
    batch = with_adapters(tmp_path, prefix_bytes=2**24)
    alone = Batch(build("llama"))
    first = batch.add(greedy([*system, 7]))
    run(batch)
    assert (batch.prefixes.num_asked, batch.prefixes.num_found) == (71, 0)
    second = batch.add(greedy([*system, 8, 9]))
    third = batch.add(greedy([*system, 8, 9], adapter="a"))
    other = alone.add(greedy([*system, 8, 9]))
    heard = run(batch)
    assert (first, batch.prefixes.num_found) == (0, 64)
    assert tokens(heard[second]) == tokens(run(alone)[other])
    assert tokens(heard[third]) == tokens_alone(tmp_path / "a", [*system, 8, 9])


def test_a_prompt_that_is_kept_whole_is_answered_again_as_before() -> None:
    """64 tokens are two blocks: the last token must be read all the same, for the answer begins with what follows it."""
    prompt = list(range(100, 164))
    batch = Batch(build("llama"), prefix_bytes=2**20)
    for _ in range(2):
        i = batch.add(greedy(prompt))
        assert tokens(run(batch)[i]) == by_transformers("llama", prompt)
    assert batch.prefixes.num_found == 32


def test_kept_beginnings_take_no_more_memory_than_allowed() -> None:
    batch = Batch(build("llama"), prefix_bytes=40_000)
    for start in range(20):
        batch.add(greedy([start + 1, *range(3, 100)], num=1))
        run(batch)
    assert 20_000 < batch.prefixes.num_bytes <= 40_000


def test_who_does_not_fit_in_waits_and_who_never_could_is_refused() -> None:
    """2 layers of keys and values of 2 heads of 8 numbers in 4 bytes: 256 bytes a token, in slots of 64 tokens or more."""
    batch = Batch(build("llama"), memory_bytes=2 * 64 * 256)
    ids = [batch.add(greedy(PROMPTS[0], num=10)) for _ in range(5)]
    first = batch.step()
    assert (batch.num_running, batch.num_waiting) == (2, 3)
    heard = run(batch, before=first)
    assert all(tokens(heard[i]) == by_transformers("llama", PROMPTS[0], num_tokens=10) for i in ids)
    with pytest.raises(ModelError, match="needs more memory than the 32,768 bytes"):
        batch.add(greedy(PROMPTS[0], num=200))


def adapted(name: str, *, seed: int) -> nn.Module:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(MODELS["llama"]).eval()
    model.load_state_dict(build("llama").state_dict())
    add_lora(model, rank=4, alpha=16, seed=seed)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B, std=0.3)
    return model.eval()


def with_adapters(folder: Path, **limits: int) -> Batch:
    torch.manual_seed(3)
    base = transformers.AutoModelForCausalLM.from_config(MODELS["llama"]).eval()
    base.load_state_dict(build("llama").state_dict())
    adapters = AdapterSet(base)
    for seed, name in enumerate("ab"):
        (folder / name).mkdir(exist_ok=True)
        torch.manual_seed(10 + seed)
        write_adapter(adapted(name, seed=seed), folder / name, base_path=None)
        adapters.load(name, folder / name)
    return Batch(base, adapters=adapters, **limits)


def tokens_alone(folder: Path, prompt: list[int]) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_config(MODELS["llama"]).eval()
    model.load_state_dict(build("llama").state_dict())
    batch = Batch(read_adapter(model, folder).eval())
    i = batch.add(greedy(prompt))
    return tokens(run(batch)[i])


def test_requests_of_one_batch_have_each_their_own_adapter(tmp_path: Path) -> None:
    batch = with_adapters(tmp_path)
    asked = [(prompt, name) for prompt in PROMPTS for name in ("", "a", "b")]
    random.Random(5).shuffle(asked)
    ids = [batch.add(greedy(prompt, adapter=name)) for prompt, name in asked]
    heard = run(batch)
    found = {(tuple(prompt), name): tokens(heard[i]) for i, (prompt, name) in zip(ids, asked, strict=True)}
    for prompt in PROMPTS:
        assert found[tuple(prompt), ""] == by_transformers("llama", prompt)
        for name in "ab":
            assert found[tuple(prompt), name] == tokens_alone(tmp_path / name, prompt)
    assert len({str(answer) for answer in found.values()}) > 2 * len(PROMPTS)


def test_an_adapter_that_was_taken_away_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    base = transformers.AutoModelForCausalLM.from_config(MODELS["llama"]).eval()
    base.load_state_dict(build("llama").state_dict())
    write_adapter(adapted("a", seed=1), tmp_path, base_path=None)
    adapters = AdapterSet(base)
    adapters.load("a", tmp_path)
    with pytest.raises(ModelError, match="'a' is empty or taken"):
        adapters.load("a", tmp_path)
    adapters.unload("a")
    batch = Batch(base, adapters=adapters)
    assert adapters.names == ()
    i = batch.add(greedy(PROMPTS[2]))
    assert tokens(run(batch)[i]) == by_transformers("llama", PROMPTS[2])


def test_an_adapter_for_another_shape_is_refused(tmp_path: Path) -> None:
    write_adapter(adapted("a", seed=1), tmp_path, base_path=None)
    wider = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**{**_BODY, "hidden_size": 64}, **_IDS, **_LONG)
    )
    with pytest.raises(ModelError, match="does not fit the model"):
        AdapterSet(wider).load("a", tmp_path)


class Only:
    """Lets some tokens come, in turns."""

    def __init__(self, turns: list[set[int]]) -> None:
        self.turns = turns
        self.heard: list[int] = []

    def allowed(self) -> NDArray[np.bool_]:
        return np.isin(np.arange(250), sorted(self.turns[len(self.heard) % len(self.turns)]))

    def accept(self, token: int) -> None:
        self.heard.append(token)


def test_a_constraint_decides_what_may_come_and_hears_what_came() -> None:
    only = Only([{10, 11, 12}, {200}])
    batch = Batch(build("llama"))
    bound = batch.add(greedy(PROMPTS[0], num=6, constraint=only))
    free = batch.add(greedy(PROMPTS[0], num=6))
    heard = run(batch)
    found = tokens(heard[bound])
    assert found == only.heard
    assert set(found[::2]) <= {10, 11, 12}
    assert set(found[1::2]) == {200}
    assert tokens(heard[free]) == by_transformers("llama", PROMPTS[0], num_tokens=6)


class Failing(Only):
    def accept(self, token: int) -> None:
        raise ValueError(f"{token} is lost")


@pytest.mark.parametrize(
    ("constraint", "message"), [(Failing([{10}]), "10 is lost"), (Only([{10}, {299}]), "no token that could come next")]
)
def test_an_answer_whose_constraint_fails_ends_and_no_other_does(constraint: Only, message: str) -> None:
    batch = Batch(build("llama"))
    bound = batch.add(greedy(PROMPTS[0], num=6, constraint=constraint))
    free = batch.add(greedy(PROMPTS[1]))
    heard = run(batch)
    assert heard[bound][-1].finish == "error"
    assert message in str(heard[bound][-1].error)
    assert tokens(heard[free]) == by_transformers("llama", PROMPTS[1])


def test_draws_depend_on_seed_and_row_and_not_on_the_company() -> None:
    def drawn(*, seed: int, row: int, company: int) -> list[int]:
        batch = Batch(build("llama"))
        for other in range(company):
            batch.add(Request(prompt=PROMPTS[other], sampling=Sampling(max_new_tokens=5, temperature=1.0, seed=9)))
        i = batch.add(Request(prompt=PROMPTS[0], sampling=Sampling(max_new_tokens=8, temperature=1.0, seed=seed), row=row))
        return tokens(run(batch)[i])

    first = drawn(seed=1, row=0, company=0)
    assert first == drawn(seed=1, row=0, company=0) == drawn(seed=1, row=0, company=4)
    assert len({tuple(first), tuple(drawn(seed=2, row=0, company=0)), tuple(drawn(seed=1, row=1, company=0))}) == 3


def test_the_model_attends_as_before_when_a_step_is_over() -> None:
    model: Any = build("llama")
    before = model.config._attn_implementation
    batch = Batch(model)
    batch.add(greedy(PROMPTS[0]))
    batch.step()
    assert model.config._attn_implementation == before


def test_memory_is_told_while_somebody_runs_and_given_back() -> None:
    batch = Batch(build("llama"))
    assert batch.memory_bytes == 0
    batch.add(Request(prompt=[5, 6, 7], sampling=Sampling(max_new_tokens=3)))
    batch.step()
    one = batch.memory_bytes
    batch.add(Request(prompt=[5, 6], sampling=Sampling(max_new_tokens=3)))
    batch.step()
    assert 0 < one < batch.memory_bytes
    while batch.num_running:
        batch.step()
    assert batch.memory_bytes == 0

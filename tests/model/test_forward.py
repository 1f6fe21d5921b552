"""Packed rows through whole models, against each document alone through plain transformers."""

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model import forward as forward_module
from tunesmith.model import head
from tunesmith.model.forward import Reading, packs, segment_nll, summed_loss
from tunesmith.records import TokenBatch

VOCAB = 300
_BODY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GQA = {**_BODY, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
_GEMMA = {**_GQA, "head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0}

IN_ONE_PASS = {
    "llama": (transformers.LlamaConfig, {**_GQA, "tie_word_embeddings": True}),
    "qwen2": (transformers.Qwen2Config, _GQA),
    "qwen3": (transformers.Qwen3Config, {**_GQA, "head_dim": 8}),
    "mistral": (transformers.MistralConfig, {**_GQA, "sliding_window": 6}),
    "gemma2": (transformers.Gemma2Config, _GEMMA),
    "gemma3": (transformers.Gemma3TextConfig, {**_GQA, "head_dim": 8, "sliding_window": 6}),
    "phi3": (transformers.Phi3Config, _GQA),
    "gpt2": (transformers.GPT2Config, _GPT2),
    "gpt_neox": (transformers.GPTNeoXConfig, _BODY),
    "olmo2": (transformers.Olmo2Config, _GQA),
    "mixtral": (transformers.MixtralConfig, {**_GQA, "num_local_experts": 2}),
}
# A convolution between tokens; attention that cannot be exchanged (with rotary and with ALiBi positions); attention sinks.
ONE_BY_ONE = {
    "lfm2": (transformers.Lfm2Config, {**_GQA, "layer_types": ["conv", "full_attention"]}),
    "falcon": (
        transformers.FalconConfig,
        {key: _BODY[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
    ),
    "bloom": (transformers.BloomConfig, {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gpt_oss": (
        transformers.GptOssConfig,
        {
            **_GQA,
            "head_dim": 8,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "sliding_window": 6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
}
ALL = IN_ONE_PASS | ONE_BY_ONE


def build(name: str) -> nn.Module:
    configuration, settings = ALL[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(configuration(**settings)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:  # the library's small numbers would hide a bleeding mask
            nn.init.normal_(parameter, std=0.3)
    return model


def batch_of(lengths: Sequence[int], *, seed: int = 0, supervised: float = 0.6) -> TokenBatch:
    generator = np.random.default_rng(seed)
    total = sum(lengths)
    targets = np.where(generator.random(total) < supervised, generator.integers(3, VOCAB, total), -100)
    return TokenBatch(
        tokens=generator.integers(3, VOCAB, total).astype(np.int32),
        targets=targets.astype(np.int32),
        weights=np.where(targets >= 0, generator.random(total) + 0.1, 0).astype(np.float32),
        offsets=np.cumsum([0, *lengths]).astype(np.int32),
        record_ids=tuple(str(s) for s in range(len(lengths))),
    )


def documents(batch: TokenBatch) -> list[slice]:
    return [slice(int(a), int(b)) for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True)]


def alone(model: nn.Module, batch: TokenBatch) -> list[Tensor]:
    """Cross-entropy at every place of each document, read by itself with transformers' own attention and full head."""
    losses = []
    for at in documents(batch):
        logits = model(input_ids=torch.tensor(batch.tokens[at])[None].long(), use_cache=False).logits[0]
        targets = torch.tensor(batch.targets[at]).long()
        losses.append(functional.cross_entropy(logits, targets, reduction="none", ignore_index=-100))
    return losses


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", ALL)
def test_a_packed_row_has_the_loss_and_gradient_of_its_documents_alone(name: str) -> None:
    model, batch = build(name), batch_of([3, 17, 1, 9, 2])
    losses = alone(model, batch)
    expected = sum((loss * torch.tensor(batch.weights[at])).sum() for loss, at in zip(losses, documents(batch), strict=True))
    assert isinstance(expected, Tensor)
    expected_gradients = gradients(model, expected)
    result = summed_loss(model, batch, device="cpu")
    torch.testing.assert_close(result.total, expected, rtol=1e-6, atol=1e-4)
    found = gradients(model, result.total)
    assert found.keys() == expected_gradients.keys()
    for key, gradient in expected_gradients.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    for (nll, count), loss, at in zip(segment_nll(model, batch, device="cpu"), losses, documents(batch), strict=True):
        assert nll == pytest.approx(float(loss.sum().detach()), abs=1e-4)
        assert count == int((batch.targets[at] >= 0).sum())


@pytest.mark.parametrize("name", ALL)
def test_only_models_that_keep_documents_apart_read_them_in_one_pass(name: str) -> None:
    model = build(name).train()
    assert packs(model, device="cpu") is (name in IN_ONE_PASS)
    assert model.training


def test_a_model_that_bleeds_is_recognised_by_its_faintest_trace() -> None:
    """With the library's own small random weights the convolution moves the next document's logits by less than 1e-4."""
    configuration, settings = ALL["lfm2"]
    torch.manual_seed(0)
    assert not packs(transformers.AutoModelForCausalLM.from_config(configuration(**settings)).eval(), device="cpu")


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt2", "lfm2"])
def test_a_token_of_one_document_never_moves_another_documents_likelihood(name: str) -> None:
    model, batch = build(name), batch_of([12, 9, 20], supervised=1.0)
    before = segment_nll(model, batch, device="cpu")
    batch.tokens[4] = batch.tokens[4] % 200 + 50
    after = segment_nll(model, batch, device="cpu")
    assert abs(before[0][0] - after[0][0]) > 1e-3
    assert before[1][0] == pytest.approx(after[1][0], abs=1e-6)
    assert before[2][0] == pytest.approx(after[2][0], abs=1e-6)


def test_the_loss_is_torchs_cross_entropy_on_full_logits_weighted_and_summed() -> None:
    model, batch = build("llama"), batch_of([23])
    logits = model(input_ids=torch.tensor(batch.tokens)[None].long()).logits[0]
    each = functional.cross_entropy(logits, torch.tensor(batch.targets).long(), reduction="none", ignore_index=-100)
    result = summed_loss(model, batch, device="cpu")
    assert float(result.total.detach()) == pytest.approx(float((each * torch.tensor(batch.weights)).sum().detach()), rel=1e-6)
    assert result.weight == pytest.approx(float(batch.weights.sum()), rel=1e-6)


def test_splitting_a_step_into_micro_batches_gives_the_same_gradient() -> None:
    model = build("qwen2")
    whole = batch_of([7, 12, 4, 9])
    halves = [
        TokenBatch(
            tokens=whole.tokens[at],
            targets=whole.targets[at],
            weights=whole.weights[at],
            offsets=np.array(offsets, dtype=np.int32),
            record_ids=ids,
        )
        for at, offsets, ids in [(slice(0, 19), [0, 7, 19], ("0", "1")), (slice(19, 32), [0, 4, 13], ("2", "3"))]
    ]
    total = summed_loss(model, whole, device="cpu")
    expected = gradients(model, total.total / total.weight)
    parts = [summed_loss(model, half, device="cpu") for half in halves]
    assert sum(part.weight for part in parts) == pytest.approx(total.weight)
    found = gradients(model, sum((part.total for part in parts), torch.zeros(())) / total.weight)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=1e-6)


def test_the_head_is_computed_for_supervised_places_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build("llama"), batch_of([20], supervised=0.3)
    packs(model, device="cpu")
    heights = []
    compute = head._logits

    def watched(hidden: Tensor, *arguments: object, **options: object) -> Tensor:
        heights.append(len(hidden))
        return compute(hidden, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(head, "_logits", watched)
    summed_loss(model, batch, device="cpu")
    assert sum(heights) == batch.num_supervised < 20


def test_a_model_that_knows_no_logits_to_keep_has_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build("llama"), batch_of([20, 7], supervised=0.3)
    expected = summed_loss(model, batch, device="cpu")
    forward = model.forward

    def forward_of_all(**inputs: object) -> object:
        del inputs["logits_to_keep"]
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", forward_of_all)
    monkeypatch.setattr(forward_module, "_readings", WeakKeyDictionary({model: Reading(packs=True, head=None)}))
    found = summed_loss(model, batch, device="cpu")
    torch.testing.assert_close(found.total, expected.total)


def test_the_likelihood_of_uniform_logits_is_the_log_of_the_vocabulary() -> None:
    model, batch = build("llama"), batch_of([5, 8])
    nn.init.zeros_(model.get_output_embeddings().weight)  # type: ignore[operator]
    for (nll, count), at in zip(segment_nll(model, batch, device="cpu"), documents(batch), strict=True):
        assert count == int((batch.targets[at] >= 0).sum())
        assert nll == pytest.approx(count * math.log(VOCAB), rel=1e-6)


def test_a_row_without_supervision_has_no_loss_and_no_likelihood() -> None:
    model, batch = build("llama"), batch_of([5, 8], supervised=0.0)
    assert segment_nll(model, batch, device="cpu") == [(0.0, 0), (0.0, 0)]
    with pytest.raises(ValueError, match="no supervised position"):
        summed_loss(model, batch, device="cpu")


@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon"])
def test_after_a_packed_pass_the_model_attends_as_before(name: str) -> None:
    model = build(name)
    tokens = torch.arange(3, 20)[None]
    before = model(input_ids=tokens).logits
    summed_loss(model, batch_of([4, 6]), device="cpu")
    assert torch.equal(model(input_ids=tokens).logits, before)

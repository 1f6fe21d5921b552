from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from tunesmith.errors import ModelError
from tunesmith.model import adapter_disabled, adapter_scaled, add_lora, is_adapter, save_model, summed_loss
from tunesmith.model.lora import AdapterSettings, LoraLayer, lora_layers
from tunesmith.records import TokenBatch

_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "llama": transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, **_IDS
    ),
    "gpt2 with its transposed linear layers": transformers.GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **_IDS
    ),
}
TOKENS = torch.arange(3, 30)[None]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(MODELS[name]).eval()


def adapt(model: nn.Module, *, seed: int = 0, dropout: float = 0.0, alpha: float = 8.0) -> nn.Module:
    return add_lora(model, rank=4, alpha=alpha, dropout=dropout, seed=seed)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def train(model: nn.Module, *, num_steps: int) -> list[float]:
    tokens = np.arange(3, 30, dtype=np.int32)
    batch = TokenBatch(
        tokens=tokens,
        targets=tokens + 1,
        weights=np.ones(27, np.float32),
        offsets=np.array([0, 15, 27], np.int32),
        record_ids=("a", "b"),
    )
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    model.train()
    for _ in range(num_steps):
        loss = summed_loss(model, batch, device="cpu").total
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_adapter_changes_no_answer(name: str) -> None:
    model = build(name)
    before = logits(model)
    assert not is_adapter(model)
    adapted = adapt(model)
    assert adapted is model
    assert torch.equal(logits(adapted), before)
    assert is_adapter(adapted)


@pytest.mark.parametrize("name", MODELS)
def test_training_moves_the_adapter_and_no_bit_of_the_base(name: str) -> None:
    model = build(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    original = logits(model)
    adapted = adapt(model)
    trained = [key for key, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(key.endswith((".lora_A", ".lora_B")) for key in trained)
    losses = train(adapted, num_steps=5)
    assert losses[-1] < losses[0]
    assert not torch.equal(logits(adapted), original)
    after = {key.replace(".base.", "."): tensor for key, tensor in adapted.state_dict().items() if ".lora_" not in key}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    with adapter_disabled(adapted):
        assert torch.equal(logits(adapted), original)
    assert not torch.equal(logits(adapted), original)


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_layer_but_the_head_is_adapted(name: str) -> None:
    model = build(name)
    linear = {key for key, module in model.named_modules() if isinstance(module, nn.Linear | transformers.pytorch_utils.Conv1D)}
    adapted = {key.removesuffix(".lora_A") for key, _ in adapt(model).named_parameters() if "lora_A" in key}
    assert adapted == linear - {"lm_head"}


def test_the_same_seed_gives_the_same_adapter() -> None:
    def first_matrix(seed: int) -> Tensor:
        return next(p for key, p in adapt(build("llama"), seed=seed).named_parameters() if "lora_A" in key)

    assert torch.equal(first_matrix(5), first_matrix(5))
    assert not torch.equal(first_matrix(5), first_matrix(6))


def test_an_adapted_layer_computes_the_formula_of_the_paper() -> None:
    adapted = adapt(build("llama"), alpha=6.0)
    layer = lora_layers(adapted)["model.layers.0.mlp.up_proj"]
    nn.init.normal_(layer.lora_B)
    x = torch.randn(3, 32)
    with torch.no_grad():
        expected = x @ layer.weight.T + 6.0 / 4 * x @ layer.lora_A.T @ layer.lora_B.T
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def awake(model: nn.Module) -> nn.Module:
    """With B no longer zero, so that A has a gradient and the adapter an effect."""
    torch.manual_seed(11)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B, std=0.2)
    return model


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for the old name
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_pefts_own(name: str, rslora: bool, tmp_path: Path) -> None:
    model = awake(add_lora(build(name), rank=4, alpha=6.0, seed=0, rslora=rslora))
    save_model(model, tmp_path, base_path=None)
    peft_model = peft.PeftModel.from_pretrained(build(name), str(tmp_path), is_trainable=True)
    peft_model.train()
    model.train()
    theirs = peft_model(input_ids=TOKENS).logits
    ours = model(input_ids=TOKENS).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5))
    ours.backward(upstream)
    theirs.backward(upstream)
    expected = {key: parameter.grad for key, parameter in peft_model.named_parameters() if parameter.grad is not None}
    assert len(expected) == 2 * len(lora_layers(model))
    for path, layer in lora_layers(model).items():
        for letter in ("lora_A", "lora_B"):
            theirs = expected[f"base_model.model.{path}.{letter}.default.weight"]
            assert (getattr(layer, letter).grad - theirs).abs().max() <= 1e-5 * theirs.abs().max(), path


def test_gradients_are_those_of_the_formula_in_float64() -> None:
    """Three layers on one input, in double precision, against products written out and differentiated by torch."""
    torch.manual_seed(0)
    settings = AdapterSettings(rank=3, alpha=6.0)
    layers = tuple(LoraLayer(nn.Linear(7, o, bias=o == 5), settings=settings, is_transposed=False).double() for o in (5, 4, 6))
    for layer in layers:
        layer.siblings = layers
        nn.init.normal_(layer.lora_B)
        layer.base.requires_grad_(requires_grad=False)
    x = torch.randn(2, 9, 7, dtype=torch.float64, requires_grad=True)
    expected = [layer.base(x) + 2.0 * (x @ layer.lora_A.T) @ layer.lora_B.T for layer in layers]
    found = [layer(x) for layer in layers]
    upstream = [torch.randn_like(output) for output in expected]
    inputs = [x, *(parameter for layer in layers for parameter in (layer.lora_A, layer.lora_B))]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_layers_that_read_one_input_are_computed_together() -> None:
    found = {tuple(path for path, other in all_layers.items() if other in layer.siblings)
             for all_layers in [lora_layers(adapt(build("llama")))] for layer in all_layers.values()}  # fmt: skip
    block = "model.layers.0."
    assert {group for group in found if group[0].startswith(block)} == {
        (block + "self_attn.q_proj", block + "self_attn.k_proj", block + "self_attn.v_proj"),
        (block + "self_attn.o_proj",),
        (block + "mlp.gate_proj", block + "mlp.up_proj"),
        (block + "mlp.down_proj",),
    }


def test_a_sibling_asked_for_another_input_answers_for_that_input() -> None:
    model = awake(adapt(build("llama"))).train()
    layers = lora_layers(model)
    q, k = layers["model.layers.0.self_attn.q_proj"], layers["model.layers.0.self_attn.k_proj"]
    first, second = torch.randn(2, 1, 4, 32)
    expected = k.eval()(second)
    k.train()
    q(first)
    torch.testing.assert_close(k(second), expected)


def test_an_adapter_on_a_base_in_bf16_keeps_its_own_weights_in_fp32() -> None:
    model = awake(adapt(build("llama").bfloat16())).train()
    losses = train(model, num_steps=8)
    assert losses[-1] < losses[0]
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}


def test_what_cannot_be_adapted_says_so() -> None:
    model = adapt(build("llama"))
    with pytest.raises(ModelError, match="already"):
        adapt(model)


def test_dropout_acts_in_training_alone() -> None:
    adapted = adapt(build("llama"), dropout=0.5)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter)
    adapted.eval()
    assert torch.equal(logits(adapted), logits(adapted))
    adapted.train()
    assert not torch.equal(logits(adapted), logits(adapted))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rslora", [False, True])
def test_a_scaled_adapter_adds_so_much_of_its_update(name: str, *, rslora: bool) -> None:
    """In a layer the output is the base's plus the factor times the update; scale 0 is the base, 1 the adapted model, to the bit."""
    model = awake(add_lora(build(name), rank=4, alpha=8.0, seed=0, rslora=rslora))
    layer = next(iter(lora_layers(model).values()))
    x = torch.randn(5, layer.weight.shape[1])
    with torch.no_grad():
        tuned, whole = logits(model), layer(x)
        with adapter_disabled(model):
            base, plain = logits(model), layer(x)
        for factor in (0.5, 1.25):
            with adapter_scaled(model, factor):
                torch.testing.assert_close(layer(x), plain + factor * (whole - plain), rtol=1e-4, atol=1e-5)
        with adapter_scaled(model, 0.0):
            assert torch.equal(logits(model), base)
        with adapter_scaled(model, 1.0):
            assert torch.equal(logits(model), tuned)
    assert torch.equal(logits(model), tuned)


def test_an_error_inside_leaves_the_adapter_as_it_was() -> None:
    model = awake(adapt(build("llama")))
    tuned = logits(model)
    with pytest.raises(ZeroDivisionError), adapter_scaled(model, 0.25):
        raise ZeroDivisionError
    assert torch.equal(logits(model), tuned)

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from tunesmith.model import adapter_disabled, add_lora, is_adapter, summed_loss
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
    adapted = adapt(model)
    assert torch.equal(logits(adapted), before)
    assert is_adapter(adapted)
    assert not is_adapter(model)


@pytest.mark.parametrize("name", MODELS)
def test_training_moves_the_adapter_and_no_bit_of_the_base(name: str) -> None:
    model = build(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    original = logits(model)
    adapted = adapt(model)
    trained = [key for key, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora_A." in key or ".lora_B." in key for key in trained)
    losses = train(adapted, num_steps=5)
    assert losses[-1] < losses[0]
    assert not torch.equal(logits(adapted), original)
    after = {
        key.removeprefix("base_model.model.").replace(".base_layer", ""): tensor
        for key, tensor in adapted.state_dict().items()
        if ".lora_" not in key
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    with adapter_disabled(adapted):
        assert torch.equal(logits(adapted), original)
    assert not torch.equal(logits(adapted), original)


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_layer_but_the_head_is_adapted(name: str) -> None:
    model = build(name)
    linear = {key for key, module in model.named_modules() if isinstance(module, nn.Linear | transformers.pytorch_utils.Conv1D)}
    adapted = {
        key.split("base_model.model.")[1].split(".lora_A")[0] for key, _ in adapt(model).named_parameters() if "lora_A" in key
    }
    assert adapted == linear - {"lm_head"}


def test_the_same_seed_gives_the_same_adapter() -> None:
    def first_matrix(seed: int) -> Tensor:
        return next(p for key, p in adapt(build("llama"), seed=seed).named_parameters() if "lora_A" in key)

    assert torch.equal(first_matrix(5), first_matrix(5))
    assert not torch.equal(first_matrix(5), first_matrix(6))


def test_an_adapted_layer_computes_the_formula_of_the_paper() -> None:
    adapted = adapt(build("llama"), alpha=6.0)
    layer = adapted.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    nn.init.normal_(layer.lora_B["default"].weight)  # type: ignore[union-attr, index, arg-type]
    x = torch.randn(3, 32)
    with torch.no_grad():
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # type: ignore[union-attr, index]
        expected = x @ layer.base_layer.weight.T + 6.0 / 4 * x @ down.T @ up.T  # type: ignore[union-attr, operator]
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    adapted = adapt(build("llama"), dropout=0.5)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            nn.init.normal_(parameter)
    adapted.eval()
    assert torch.equal(logits(adapted), logits(adapted))
    adapted.train()
    assert not torch.equal(logits(adapted), logits(adapted))

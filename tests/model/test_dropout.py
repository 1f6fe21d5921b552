"""Dropout of a model that brings none: in training alone, at the right places, its expectation kept; refused where it cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.model import add_lora, summed_loss
from tunesmith.model.compiled import can_compile, compile_layers
from tunesmith.model.dropout import add_dropout
from tunesmith.records import TokenBatch

TOKENS = torch.tensor([[5, 9, 2, 33, 17, 8, 40]])
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SMALL, num_key_value_heads=2, pad_token_id=0),
    "gemma2": lambda: transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SMALL),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, dropout=0, word_embed_proj_dim=32
    ),
}


def build(name: str) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=TOKENS).logits
    return found


@pytest.mark.parametrize("name", [*CONFIGS, "llama with an adapter"])
def test_it_acts_in_training_alone(name: str) -> None:
    model = build(name.split(maxsplit=1)[0])
    if "adapter" in name:
        add_lora(model, rank=2, alpha=4.0, seed=0)
    before = logits(model)
    add_dropout(model, share=0.0)
    assert not any(module._forward_hooks for module in model.modules())
    add_dropout(model, share=0.3)
    assert torch.equal(logits(model), before)
    model.train()
    torch.manual_seed(1)
    first = logits(model)
    assert not torch.allclose(first, before)
    assert not torch.equal(logits(model), first)
    torch.manual_seed(1)
    assert torch.equal(logits(model), first)


def test_embeddings_attention_and_feed_forward_are_dropped_from_as_by_hand() -> None:
    """One layer, written out: x = drop(E), x += drop(attention(norm x)), x += drop(mlp(norm x))."""
    torch.manual_seed(0)
    model: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{**SMALL, "num_hidden_layers": 1}, num_key_value_heads=2, pad_token_id=0)
    ).train()
    body, share = model.model, 0.25
    layer = body.layers[0]
    torch.manual_seed(3)
    x = functional.dropout(body.embed_tokens(TOKENS), share)
    angles = body.rotary_emb(x, torch.arange(TOKENS.shape[1])[None])
    causal = torch.full((7, 7), -torch.inf).triu(1)[None, None]
    attended = layer.self_attn(layer.input_layernorm(x), position_embeddings=angles, attention_mask=causal)[0]
    x = x + functional.dropout(attended, share)
    x = x + functional.dropout(layer.mlp(layer.post_attention_layernorm(x)), share)
    expected = model.lm_head(body.norm(x))
    add_dropout(model, share=share)
    torch.manual_seed(3)
    torch.testing.assert_close(model(input_ids=TOKENS).logits, expected, rtol=1e-5, atol=1e-6)


def test_what_is_kept_is_scaled_so_that_the_expectation_stays() -> None:
    model = build("llama")
    embedding = model.get_input_embeddings()
    plain = embedding(TOKENS).detach()
    add_dropout(model, share=0.4)
    model.train()
    drawn = torch.stack([embedding(TOKENS).detach() for _ in range(3000)])
    kept = drawn != 0
    assert float(kept.float().mean()) == pytest.approx(0.6, abs=0.005)
    torch.testing.assert_close(drawn[kept], (plain / 0.6).expand_as(drawn)[kept])
    assert float((drawn.mean(dim=0) - plain).abs().max()) < 6 * float(plain.abs().max()) * (0.4 / 0.6 / 3000) ** 0.5


def test_a_model_whose_parts_add_by_themselves_is_refused() -> None:
    """BLOOM's attention and feed-forward network are given the stream and give it back with their own added."""
    model = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)).eval()
    with pytest.raises(ModelError, match=r"dropout is not known for BloomForCausalLM"):
        add_dropout(model, share=0.1)
    assert not any(module._forward_hooks for module in model.modules())
    add_dropout(model, share=0.0)


class Bag(nn.Module):
    def forward(self, **_: object) -> None:
        return None


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ModelError, match=r"not known for Bag"):
        add_dropout(Bag(), share=0.1)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecations when it is loaded
@pytest.mark.skipif(not can_compile(), reason="no C++ compiler")
def test_compiled_layers_drop_too_and_repeat_from_a_seed() -> None:
    model = build("llama")
    add_dropout(model, share=0.2)
    tokens = np.arange(3, 30, dtype=np.int32)
    row = TokenBatch(
        tokens=tokens,
        targets=tokens + 1,
        weights=np.ones(27, np.float32),
        offsets=np.array([0, 15, 27], np.int32),
        record_ids=("a", "b"),
    )
    plain = float(summed_loss(model, row, device="cpu").total)
    undo = compile_layers(model)
    try:
        model.train()
        found = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(float(summed_loss(model, row, device="cpu").total.detach()))
        assert found[0] == found[1] != found[2]
        model.eval()
        assert float(summed_loss(model, row, device="cpu").total) == pytest.approx(plain, rel=1e-5)
    finally:
        undo()

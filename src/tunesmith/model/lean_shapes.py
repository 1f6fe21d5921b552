"""Which models the lean decoder knows, and how it takes hold of their weights.

Strictly: the very classes of the library, nothing hooked, patched or wrapped that is not ours, and only settings whose meaning is
known here. Whatever is doubtful is not known, and is read by the model's own code. A trial of logits comes on top (`slot_readers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.model.kv_slots import Rules
from tunesmith.model.lean import LeanDecoder, LeanLayer
from tunesmith.model.lean_products import Packing, Product, bare
from tunesmith.model.lora import LoraLayer
from tunesmith.model.lora_many import ManyLayer
from tunesmith.model.machine import free_memory
from tunesmith.model.shared_base import SharedBase, base_beneath
from tunesmith.model.soft_prompt import SoftPrompt

__all__ = ["lean_decoder"]

_FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
_SPARE = 0.25
"""Of the free memory, that weights may take a second time."""
_ROPE_TYPES = {"default", "linear", "llama3", "yarn"}
"""Whose angles depend on the position alone; `dynamic` and `longrope` change with the longest position that was seen."""


def lean_decoder(model: Any, *, packing: Packing = "none") -> LeanDecoder | None:
    """A decoder over the model's own weights, or None where the model is none that is known.

    Args:
        model: a transformers model.
        packing: all but `none` are for weights that nobody changes while the decoder is used; `packed` gives the model's weights
            another place in memory, and leaves their values.

    Raises:
        ModelError: `int8` of a model that is not known.
    """
    if not _is_known(model):
        if packing == "int8":
            raise ModelError(
                f"int8 is known for models of the Llama family ({', '.join(_FAMILIES)}) on a CPU, and this is {type(model).__name__}, "
                "perhaps with settings of its own. Choose fp32"
            )
        return None
    decoder = _decoder(model)
    if packing == "none":
        return decoder
    base = base_beneath(model)
    if base is None:
        _pack(model, decoder, packing=packing)
        return decoder
    for product, packed in zip(_products(decoder), _products(_packed_base(base, packing=packing)), strict=True):
        product.take(packed)
    return decoder


def _packed_base(base: SharedBase, *, packing: Packing) -> LeanDecoder:
    """The decoder of a base that several models stand on, made once and kept with it."""
    with base.lock:
        if packing not in base.made:
            decoder = _decoder(base.model)
            _pack(base.model, decoder, packing=packing)
            base.made[packing] = decoder
        return base.made[packing]  # type: ignore[no-any-return]


def _products(decoder: LeanDecoder) -> list[Product]:
    return [*_layers_products(decoder), decoder.head]


def _layers_products(decoder: LeanDecoder) -> list[Product]:
    return [each for layer in decoder.layers for each in (layer.qkv, layer.out, layer.gate_up, layer.down)]


def _decoder(model: Any) -> LeanDecoder:
    config, body = model.config, model.model
    attention = body.layers[0].self_attn
    return LeanDecoder(
        embed=body.embed_tokens,
        rotary=body.rotary_emb,
        layers=[_layer(model, layer) for layer in body.layers[: config.num_hidden_layers]],
        last_norm=body.norm,
        head=Product(model, ["lm_head"]),
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_width=attention.head_dim,
    )


def _layer(model: Any, layer: Any) -> LeanLayer:
    attention, mlp = layer.self_attn, layer.mlp
    return LeanLayer(
        qkv=Product(attention, ["q_proj", "k_proj", "v_proj"]),
        out=Product(attention, ["o_proj"]),
        gate_up=Product(mlp, ["gate_proj", "up_proj"]),
        down=Product(mlp, ["down_proj"]),
        first_norm=layer.input_layernorm,
        second_norm=layer.post_attention_layernorm,
        q_norm=getattr(attention, "q_norm", None),
        k_norm=getattr(attention, "k_norm", None),
        rules=Rules(attention.scaling, _window(model, attention), None),
    )


def _window(model: Any, attention: Any) -> int | None:
    """Qwen's attention keeps its own; Mistral's asks the configuration; Llama's knows none."""
    family = type(attention).__name__.removesuffix("Attention")
    if family == "Mistral":
        return model.config.sliding_window  # type: ignore[no-any-return]
    return None if family == "Llama" else attention.sliding_window


def _pack(model: Any, decoder: LeanDecoder, *, packing: Packing) -> None:
    products = _layers_products(decoder)
    if packing == "blocks":
        _block(model, [*products, decoder.head])
        return
    is_tied = model.lm_head.weight is model.get_input_embeddings().weight
    with torch.no_grad():
        for product in products:
            product.quantize() if packing == "int8" else product.pack()
        if packing == "int8":
            decoder.head.quantize()
        elif is_tied:
            decoder.head.pack_copy()
        else:
            decoder.head.pack()
        if packing == "packed":
            _block(model, [*products, decoder.head])


def _block(model: Any, products: Sequence[Product]) -> None:
    if _num_bytes(model) <= _SPARE * free_memory()[0]:
        for product in products:
            product.block()


def _num_bytes(model: Any) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _is_known(model: Any) -> bool:
    family = type(model).__name__.removesuffix("ForCausalLM")
    if family not in _FAMILIES or type(model).__module__ != f"transformers.models.{family.lower()}.modeling_{family.lower()}":
        return False
    config = model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if rope not in _ROPE_TYPES or config.hidden_act != "silu" or model.training:
        return False
    weights = list(model.parameters())
    if {weight.device.type for weight in weights} != {"cpu"}:
        return False
    own = {weight.dtype for name, weight in model.named_parameters() if "lora_" not in name and not name.endswith("vectors")}
    return len(own) == 1 and own <= {torch.float32, torch.bfloat16} and _is_untouched(model, family)


def _is_untouched(model: Any, family: str) -> bool:
    """Whether every part is the library's own, or ours."""
    kinds = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")
    known = {f"{family}{kind}" for kind in kinds}
    ours = (nn.Linear, nn.Embedding, nn.ModuleList, nn.Dropout, LoraLayer, ManyLayer, SoftPrompt)
    for module in model.modules():
        is_library = type(module).__name__ in known and type(module).__module__ == type(model).__module__
        is_silu = type(module).__name__ in {"SiLUActivation", "SiLU"}
        if not (is_library or is_silu or type(module) in ours):
            return False
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return False
    return all(type(bare(layer)) is nn.Linear for layer in _linears(model)) and _fits(model)


def _linears(model: Any) -> list[Any]:
    names = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}
    found = [getattr(getattr(layer, part), name) for layer in model.model.layers for part in names for name in names[part]]
    return [*found, model.lm_head]


def _fits(model: Any) -> bool:
    """Whether rotary angles turn whole heads."""
    width = model.model.layers[0].self_attn.head_dim
    return bool(2 * len(model.model.rotary_emb.inv_freq) == width)

"""A model as one GGUF file, which llama.cpp, Ollama and LM Studio read.

Needs the package `gguf`, llama.cpp's own. Weights go from fp32 to the file's type in one rounding. Vectors (norms, biases) stay fp32,
as llama.cpp wants them. What may become a file is decided by `gguf_kinds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.errors import MissingExtra, ModelError
from tunesmith.model.gguf_kinds import PERMUTED, Vocabulary, architecture_of, read_vocabulary

__all__ = ["GgufType", "Written", "require_gguf", "write_gguf"]

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
_FILE_TYPES: dict[GgufType, str] = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
_TOKEN_TYPES = {"normal": "NORMAL", "control": "CONTROL", "added": "USER_DEFINED", "unused": "UNUSED"}
_BLOCK = 32
"""q8_0 rounds so many weights of a row together."""


class Written(NamedTuple):
    """What stands in the file."""

    architecture: str
    pre: str
    num_tensors: int
    in_f16: tuple[str, ...]
    """Tensors whose rows q8_0's blocks of 32 do not divide; they are f16, as llama.cpp's own converter makes them."""


def require_gguf() -> None:
    """Check that the package is there.

    Raises:
        MissingExtra: naming the extra.
    """
    if find_spec("gguf") is None:
        raise MissingExtra(
            "--to gguf needs the package `gguf`, which is not installed. Install it: pip install 'tunesmith[gguf]'"
        )


@torch.no_grad()
def write_gguf(model: Any, file: Path, *, tokenizer: Path, stored_as: GgufType, name: str) -> Written:
    """Write a whole model in fp32 with its tokenizer and chat template.

    Args:
        model: a transformers model, no adapter on it.
        file: the file to be made.
        tokenizer: folder with tokenizer.json, tokenizer_config.json and the chat template.
        stored_as: how matrices are stored.
        name: stands in the file for people.

    Raises:
        MissingExtra: `gguf` is not installed.
        ModelError: architecture or tokenizer are not known to llama.cpp, or a weight does not fit f16.
    """
    require_gguf()
    import gguf

    config: dict[str, Any] = model.config.to_dict()
    architecture = architecture_of(config)
    vocabulary = read_vocabulary(tokenizer, vocab_size=int(config["vocab_size"]))
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name(name)
    writer.add_file_type(getattr(gguf.LlamaFileType, _FILE_TYPES[stored_as]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config, architecture=architecture)
    _add_vocabulary(writer, vocabulary)
    in_f16, num_tensors = [], 0
    for tensor_name, tensor in _tensors(model, config, architecture=architecture):
        kind = _type_of(tensor, stored_as)
        if kind == "f16" and stored_as == "q8_0":
            in_f16.append(tensor_name)
        _add_tensor(writer, tensor_name, tensor, kind=kind)
        num_tensors += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Written(architecture=architecture, pre=vocabulary.pre, num_tensors=num_tensors, in_f16=tuple(in_f16))


def _add_shape(writer: Any, config: dict[str, Any], *, architecture: str) -> None:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim") or width // heads
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(float(rope.get("rope_theta", config.get("rope_theta", 10000.0))))
    writer.add_vocab_size(config["vocab_size"])
    if architecture in PERMUTED:
        writer.add_rope_dimension_count(head_dim)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    import gguf

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types([getattr(gguf.TokenType, _TOKEN_TYPES[kind]) for kind in vocabulary.kinds])
    writer.add_token_merges(list(vocabulary.merges))
    for kind, token in vocabulary.named.items():
        getattr(writer, f"add_{kind}_token_id")(token)
    writer.add_add_bos_token(vocabulary.adds_bos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _tensors(model: nn.Module, config: dict[str, Any], *, architecture: str) -> Iterator[tuple[str, Tensor]]:
    """Every weight under llama.cpp's name and in its order of rows. A tied head is left out: llama.cpp takes the embedding for it."""
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config["num_hidden_layers"])
    heads, tied = config["num_attention_heads"], bool(config.get("tie_word_embeddings"))
    kv_heads = config.get("num_key_value_heads") or heads
    if (factors := _rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"GGUF: llama.cpp's map of `{architecture}` has no name for the tensor {name}")
        if architecture in PERMUTED and ".q_proj." in name:
            tensor = _interleaved(tensor, heads)  # noqa: PLW2901
        elif architecture in PERMUTED and ".k_proj." in name:
            tensor = _interleaved(tensor, kv_heads)  # noqa: PLW2901
        yield found, tensor.detach().float().cpu()


def _interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """Bring together the two rows of each rotary pair: transformers has them half a head apart, llama.cpp side by side."""
    halves = weight.unflatten(0, (num_heads, 2, -1))
    interleaved: Tensor = halves.transpose(1, 2).flatten(0, 2)
    return interleaved


def _rope_factors(config: dict[str, Any]) -> Tensor | None:
    """What Llama 3.1 divides each rotary frequency by (`_compute_llama3_parameters` in transformers), which llama.cpp reads as a tensor."""
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") != "llama3":
        return None
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    waves = 2 * math.pi / frequencies
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    context = rope["original_max_position_embeddings"]
    smooth = ((context / waves - low) / (high - low)).clamp(0, 1)
    factors: Tensor = 1 / ((1 - smooth) / factor + smooth)
    return factors


def _type_of(tensor: Tensor, stored_as: GgufType) -> GgufType:
    if tensor.dim() == 1:
        return "f32"
    return "f16" if stored_as == "q8_0" and tensor.shape[-1] % _BLOCK else stored_as


def _add_tensor(writer: Any, name: str, tensor: Tensor, *, kind: GgufType) -> None:
    import gguf

    values = np.ascontiguousarray(tensor.numpy())
    if kind == "f16" and float(np.abs(values).max(initial=0.0)) > np.finfo(np.float16).max:
        raise ModelError(f"{name}: a weight is larger than f16 can hold (65,504). Export with --type bf16 or f32")
    numbers = getattr(gguf.GGMLQuantizationType, kind.upper())
    writer.add_tensor(name, gguf.quants.quantize(values, numbers), raw_dtype=None if kind in {"f32", "f16"} else numbers)

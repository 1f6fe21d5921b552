"""Load a model from a checked folder, or make a new one from a description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.model.adapter_files import ADAPTER_CONFIG, read_adapter
from tunesmith.model.base import check_folder
from tunesmith.model.config import ScratchConfig
from tunesmith.model.finite import require_finite
from tunesmith.model.machine import Machine
from tunesmith.model.quiet import quiet_libraries

__all__ = ["context_length", "load_model", "load_version", "new_model"]


def load_model(folder: Path, *, machine: Machine) -> nn.Module:
    """Load a causal language model from a checked folder, in evaluation mode.

    Raises:
        ModelError: the folder is unsafe, or transformers cannot make a causal model of it.
    """
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    try:
        with quiet_libraries():
            model, account = AutoModelForCausalLM.from_pretrained(
                folder, dtype=machine.dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # a broken folder fails in many kinds: a bad header, a wrong shape, an unknown architecture
        raise ModelError(f"{folder}: cannot be loaded as a causal language model ({type(error).__name__}: {error})") from error
    if missing := sorted(account["missing_keys"]):  # transformers fills these with random numbers and goes on
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelError(f"{folder}: {len(missing)} of the model's weights are not in its safetensors files: {shown}")
    loaded: nn.Module = model.to(machine.device).eval()
    require_finite(loaded.named_parameters(), folder=folder)
    return loaded


def new_model(config: ScratchConfig, *, special_tokens: Mapping[str, object], machine: Machine, seed: int) -> nn.Module:
    """Make a model with random weights.

    Args:
        config: its shape.
        special_tokens: `bos_token_id`, `eos_token_id`, `pad_token_id` of the tokenizer it will read.
        machine: where it will live.
        seed: of the random weights.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    settings_type, model_type = {"llama": (LlamaConfig, LlamaForCausalLM)}[config.architecture]
    torch.manual_seed(seed)
    model: nn.Module = model_type(
        settings_type(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.context,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=True,
            **special_tokens,
        )
    )
    return model.to(machine.device, torch.float32).eval()


def load_version(
    folder: Path, *, base: Path | None, machine: Machine, load_base: Callable[..., nn.Module] = load_model
) -> nn.Module:
    """Load what a run has saved: an adapter on its base, or a whole model.

    Args:
        folder: the version's artefact.
        base: the folder of the base, needed by an adapter.
        machine: where it will live.
        load_base: `SharedBases.load`, where other adapters may stand on the same base.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        return load_model(folder, machine=machine)
    if base is None:
        raise ModelError(f"{folder} is an adapter, and the base that it belongs to is not known")
    return read_adapter(load_base(base, machine=machine), folder).eval()


def context_length(folder: Path) -> int:
    """The longest sequence that the base was made for, in tokens; 2**31 - 1 when its config does not say."""
    config: dict[str, Any] = orjson.loads((folder / "config.json").read_bytes())
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        if isinstance(config.get(key), int):
            return int(config[key])
    return 2**31 - 1

"""Tokens in, tokens out: open a base, load it, adapt it, run it, save it. Knows no text and no chat.

Only safetensors and JSON are read or written; a folder with a pickle, remote code or a symlink is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

if TYPE_CHECKING:
    from tunesmith.model.base import BaseFolder, check_folder, open_base
    from tunesmith.model.batching import Batch, Constraint, Request, Said
    from tunesmith.model.config import ScratchConfig
    from tunesmith.model.embedding import embed_texts
    from tunesmith.model.forward import continuation_scores, segment_nll, summed_loss
    from tunesmith.model.generation import generate, write
    from tunesmith.model.lean_products import Packing
    from tunesmith.model.load import load_model, load_version, new_model
    from tunesmith.model.lora import adapter_disabled, adapter_scaled, add_lora, is_adapter
    from tunesmith.model.machine import Machine, this_machine
    from tunesmith.model.sampling import Choice, Sampling
    from tunesmith.model.save import read_weights_digest, save_model
    from tunesmith.model.scoring import score_tokens
    from tunesmith.model.shared_base import SharedBases
    from tunesmith.model.soft_prompt import add_soft_prompt, placeholders, read_soft_prompt

__all__ = [
    "BaseFolder",
    "Batch",
    "Choice",
    "Constraint",
    "Machine",
    "Packing",
    "Request",
    "Said",
    "Sampling",
    "ScratchConfig",
    "SharedBases",
    "adapter_disabled",
    "adapter_scaled",
    "add_lora",
    "add_soft_prompt",
    "check_folder",
    "continuation_scores",
    "embed_texts",
    "generate",
    "is_adapter",
    "load_model",
    "load_version",
    "new_model",
    "open_base",
    "placeholders",
    "read_soft_prompt",
    "read_weights_digest",
    "save_model",
    "score_tokens",
    "segment_nll",
    "summed_loss",
    "this_machine",
    "write",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "BaseFolder": "base",
        "Batch": "batching",
        "Choice": "sampling",
        "Constraint": "batching",
        "Machine": "machine",
        "Packing": "lean_products",
        "Request": "batching",
        "Said": "batching",
        "Sampling": "sampling",
        "ScratchConfig": "config",
        "SharedBases": "shared_base",
        "adapter_disabled": "lora",
        "adapter_scaled": "lora",
        "add_lora": "lora",
        "add_soft_prompt": "soft_prompt",
        "check_folder": "base",
        "continuation_scores": "forward",
        "embed_texts": "embedding",
        "generate": "generation",
        "is_adapter": "lora",
        "load_model": "load",
        "load_version": "load",
        "new_model": "load",
        "open_base": "base",
        "placeholders": "soft_prompt",
        "read_soft_prompt": "soft_prompt",
        "read_weights_digest": "save",
        "save_model": "save",
        "score_tokens": "scoring",
        "segment_nll": "forward",
        "summed_loss": "forward",
        "this_machine": "machine",
        "write": "generation",
    },
)

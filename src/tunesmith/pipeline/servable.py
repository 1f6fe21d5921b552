"""What other tools will not do with the model that a recipe makes, told before it is trained.

vLLM serves adapters beside their base; llama.cpp reads GGUF. Both have limits that show only when training is over. The lists are theirs:
`MaxLoRARanks` in vllm/config/lora.py, and the column LoRA of docs/models/supported_models.md (vLLM 0.26 to 0.33).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tunesmith.model.config import ScratchConfig
from tunesmith.model.gguf_kinds import why_not_gguf
from tunesmith.pipeline.recipe import Recipe

__all__ = ["serving_warnings"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` may be."""
_DEFAULT_RANK = 16
_SERVED = frozenset(
    {
        *("ApertusForCausalLM", "ArceeForCausalLM", "CohereForCausalLM", "Cohere2ForCausalLM", "DeepseekV2ForCausalLM"),
        *("DeepseekV3ForCausalLM", "Ernie4_5ForCausalLM", "Exaone4ForCausalLM", "FalconH1ForCausalLM", "GPTBigCodeForCausalLM"),
        *("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma4ForCausalLM", "GlmForCausalLM", "Glm4ForCausalLM"),
        *("Glm4MoeForCausalLM", "GptOssForCausalLM", "GraniteForCausalLM", "GraniteMoeForCausalLM", "Lfm2ForCausalLM"),
        *(
            "LlamaForCausalLM",
            "MiniCPMForCausalLM",
            "MistralForCausalLM",
            "MixtralForCausalLM",
            "NemotronForCausalLM",
            "OPTForCausalLM",
        ),
        *("OlmoForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM", "PhiMoEForCausalLM"),
        *("Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Qwen3NextForCausalLM"),
        *("SeedOssForCausalLM", "SmolLM3ForCausalLM", "Starcoder2ForCausalLM"),
    }
)
"""Architectures whose linear layers vLLM adapts, all of them; our adapters are on all."""


def serving_warnings(recipe: Recipe, *, base: Path | None) -> list[str]:
    """What to know before training, in sentences; nothing where all is well.

    Args:
        recipe: what is asked for.
        base: folder of the base; None for a model from scratch, a Llama that both tools read.
    """
    warnings = []
    is_adapter = recipe.train.method == "lora"
    if is_adapter:
        warnings += _of_rank(recipe.train.lora.rank)
    if base is None or isinstance(recipe.base, ScratchConfig):
        return warnings
    config: dict[str, Any] = orjson.loads((base / "config.json").read_bytes())
    architecture = next(iter(config.get("architectures") or ()), None)
    if is_adapter and architecture not in _SERVED:
        name = architecture or f"model_type {config.get('model_type')}"
        warnings.append(
            f"vLLM's list of models that it serves with adapters does not have {name}. The merged model (`tunesmith export --to merged`) "
            "needs no adapter there"
        )
    if reason := why_not_gguf(base, tokenizer=base):
        warnings.append(f"the model cannot be exported for llama.cpp. {reason}")
    return warnings


def _of_rank(rank: int) -> list[str]:
    if rank > _RANKS[-1]:
        return [
            f"train.lora.rank is {rank}, and vLLM serves adapters up to rank {_RANKS[-1]} only. "
            "Take a smaller one, or serve the merged model"
        ]
    if rank <= _DEFAULT_RANK:
        return []
    room = next(allowed for allowed in _RANKS if allowed >= rank)
    wasted = "" if room == rank else f", which keeps room for rank {room} because {rank} is not one of its sizes"
    return [
        f"train.lora.rank is {rank}: vLLM serves it when started with --max-lora-rank {room}{wasted}; its default is {_DEFAULT_RANK}"
    ]

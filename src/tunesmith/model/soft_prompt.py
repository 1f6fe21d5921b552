"""A soft prompt: k learned vectors in front of a conversation, and every weight of the model frozen.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv 2104.08691. The vectors stand where k tokens would
stand: `placeholders` gives ids just above the vocabulary, and the input embedding answers those with the vectors. So positions,
attention, packing, generation and likelihoods need no change, and a row without placeholders is read as if there were no prompt.

Files are PEFT's (`PROMPT_TUNING`): any tool that reads its prompts reads ours. Knows no PEFT; the tests compare with it.

Shapes: k vectors, D width of the embeddings, V rows of the embedding matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.model.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunesmith.model.finite import require_finite
from tunesmith.model.intake import check_adapter

__all__ = [
    "SoftPrompt",
    "add_soft_prompt",
    "has_soft_prompt",
    "placeholders",
    "read_soft_prompt",
    "write_soft_prompt",
]

_VECTORS = "prompt_embeddings"
"""What PEFT calls the only tensor of its file."""


class SoftPrompt(nn.Module):
    """A model's input embedding, with k more rows that are learned; stands in the model where the embedding stood."""

    def __init__(self, base: nn.Module, vectors: Tensor) -> None:
        """Wrap an embedding.

        Args:
            base: from ids below V to vectors of width D.
            vectors: shape (k, D), with which the prompt begins; kept in fp32.
        """
        super().__init__()
        self.base = base
        self.vectors = nn.Parameter(vectors.detach().float().clone())

    @property
    def weight(self) -> Tensor:
        """The model's own embedding matrix, (V, D)."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings of tokens, and for the ids V to V + k - 1 the vectors, which are not scaled as some models scale embeddings."""
        first = self.weight.shape[0]
        is_vector = ids >= first
        embedded: Tensor = self.base(ids.masked_fill(is_vector, 0))
        # `embedding` and not an index: on a CPU its backward pass adds in one order, so that a resumed run ends in the same bits.
        vectors = functional.embedding((ids - first).clamp(min=0), self.vectors).to(embedded.dtype)
        return torch.where(is_vector[..., None], vectors, embedded)


def add_soft_prompt(model: Any, *, tokens: Sequence[int]) -> nn.Module:
    """Freeze a model and give it a prompt of as many vectors as there are tokens; the model itself is changed and returned.

    Args:
        model: a transformers model.
        tokens: ids with whose embeddings the vectors begin: until it is trained, the prompt is those very tokens.

    Raises:
        ModelError: there are no tokens, one is none of the model's, or the model has a soft prompt already.
    """
    embedding = model.get_input_embeddings()
    if isinstance(embedding, SoftPrompt):
        raise ModelError("the model has a soft prompt already")
    if not tokens or not 0 <= min(tokens) <= max(tokens) < embedding.weight.shape[0]:
        raise ModelError(
            f"a soft prompt begins as tokens of the model, ids 0 to {embedding.weight.shape[0] - 1}; got {list(tokens)}"
        )
    with torch.no_grad():
        vectors = embedding(torch.tensor(tokens, device=embedding.weight.device))
    return _put(model, vectors)


def has_soft_prompt(model: Any) -> bool:
    """Whether a model has a soft prompt."""
    return isinstance(model.get_input_embeddings(), SoftPrompt)


def placeholders(model: Any) -> list[int]:
    """The ids that stand for the vectors, to be put in front of each document; empty where the model has no soft prompt."""
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, SoftPrompt):
        return []
    first = embedding.weight.shape[0]
    return list(range(first, first + len(embedding.vectors)))


def write_soft_prompt(model: Any, folder: Path, *, base_path: Path | None) -> None:
    """Write a model's soft prompt in PEFT's format; equal prompts give equal files.

    Args:
        model: one that has a soft prompt.
        folder: an existing folder.
        base_path: where the base lies; PEFT looks there.
    """
    from safetensors.torch import save_file

    vectors = model.get_input_embeddings().vectors.detach().cpu().contiguous()
    save_file({_VECTORS: vectors}, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": str(base_path) if base_path else None,
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(vectors),
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",  # what it began as is no longer of interest, and PEFT would look for a tokenizer
        "task_type": "CAUSAL_LM",
        "token_dim": vectors.shape[1],
    }
    (folder / ADAPTER_CONFIG).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def read_soft_prompt(model: Any, folder: Path) -> nn.Module:
    """Give a model the soft prompt that was saved; the model itself is changed and returned.

    Raises:
        ModelError: the files cannot be read, are of another kind, or do not fit the model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_adapter(folder, config=ADAPTER_CONFIG, weights=ADAPTER_WEIGHTS)
    try:
        config: dict[str, Any] = orjson.loads((folder / ADAPTER_CONFIG).read_bytes())
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        kind, shape = config["peft_type"], (config.get("num_virtual_tokens"), config.get("token_dim"))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: the soft prompt cannot be read ({type(error).__name__}: {error})") from error
    if kind != "PROMPT_TUNING":
        raise ModelError(f"{folder}: holds {kind}, and no soft prompt (PROMPT_TUNING)")
    width = model.get_input_embeddings().weight.shape[1]
    if list(tensors) != [_VECTORS] or tuple(tensors[_VECTORS].shape) != shape or shape[1] != width:
        found = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise ModelError(f"{folder}: the soft prompt does not fit the model, whose embeddings have the width {width}: {found}")
    require_finite(tensors.items(), folder=folder)
    if has_soft_prompt(model):
        raise ModelError("the model has a soft prompt already")
    return _put(model, tensors[_VECTORS].to(model.get_input_embeddings().weight.device))


def _put(model: Any, vectors: Tensor) -> nn.Module:
    embedding = model.get_input_embeddings()
    model.requires_grad_(requires_grad=False)
    model.set_input_embeddings(SoftPrompt(embedding, vectors).train(model.training))
    placed: nn.Module = model
    return placed

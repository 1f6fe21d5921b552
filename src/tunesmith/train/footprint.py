"""Whether a run fits into memory, before it begins: a run that starts does not run out later.

What a run needs: the weights that are there already; for each trained weight a gradient, two moments and the best value so far; and
what the forward pass keeps for the backward pass, which grows with the tokens of a pass. The last is measured, on a few tokens, by
counting what autograd saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.errors import OutOfMemory
from tunesmith.model.machine import free_memory
from tunesmith.records import TokenBatch
from tunesmith.train.methods import Loss

__all__ = ["Need", "Room", "find_room", "measure_need", "refuse_weights"]

_SAMPLE_TOKENS = 256
_BYTES_PER_TRAINED = 16
"""fp32: gradient, both moments of AdamW, best value."""
_MARGIN = 1.2
"""Over what is counted: temporaries of one layer, fragmentation."""
_HEAD_BYTES = 4 * (1 << 22) * 4
"""A chunk of logits, its softmax and its gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes beyond the loaded model."""

    num_tokens: int
    """Of the sample that was measured."""
    fixed: int
    """For gradients, moments and best weights."""
    per_token: float
    """Kept by the forward pass for each token of a pass."""
    per_token_checkpointed: float
    """The same with gradient checkpointing: the layers' inputs, and one layer."""

    def total(self, num_tokens: int, *, is_checkpointed: bool) -> int:
        """Bytes of a run whose passes have this many tokens."""
        per_token = self.per_token_checkpointed if is_checkpointed else self.per_token
        return int(self.fixed + _HEAD_BYTES + _MARGIN * per_token * num_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How a run fits."""

    pass_tokens: int
    """Tokens of a forward pass; fewer than were asked for where memory is short."""
    is_checkpointed: bool
    need_bytes: int
    free_bytes: int


def measure_need(model: nn.Module, batch: TokenBatch, *, loss: Loss, device: str) -> Need:
    """Count what one pass over the beginning of a batch keeps.

    Args:
        model: ready to be trained.
        batch: the fullest one.
        loss: the method's.
        device: where the model is.
    """
    sample = _beginning(batch)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        total = loss(model, sample, device=device).total
    del total
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    per_token = sum(kept.values()) / sample.num_tokens
    num_layers, width = _depth_and_width(model)
    return Need(
        num_tokens=sample.num_tokens,
        fixed=trained * _BYTES_PER_TRAINED,
        per_token=per_token,
        per_token_checkpointed=min(per_token, 4 * width * num_layers + 2 * per_token / num_layers),
    )


def find_room(need: Need, *, pass_tokens: int, longest: int, checkpointing: str) -> Room:
    """Fit a run into what is free: smaller passes first, which cost nothing, then activations computed twice.

    Args:
        need: of this model.
        pass_tokens: tokens of a forward pass as the recipe asks.
        longest: tokens of the longest row; no pass can be smaller.
        checkpointing: `auto`, `never` or `always`.

    Raises:
        OutOfMemory: it does not fit; the message says what would.
    """
    free, limit = free_memory()
    for is_checkpointed in {"auto": (False, True), "never": (False,), "always": (True,)}[checkpointing]:
        for tokens in _smaller(pass_tokens, longest):
            if (total := need.total(tokens, is_checkpointed=is_checkpointed)) <= free:
                return Room(pass_tokens=tokens, is_checkpointed=is_checkpointed, need_bytes=total, free_bytes=free)
    least = need.total(longest, is_checkpointed=checkpointing != "never")
    raise OutOfMemory(
        f"not enough memory: training needs {_gb(least)} beyond the loaded model, and {_gb(free)} are free ({limit}). "
        f"{_what_would_fit(need, free=free, longest=longest, can_checkpoint=checkpointing != 'never')}"
    )


def refuse_weights(folder: Path, *, is_fp32: bool) -> None:
    """Refuse a base whose weights alone do not fit, before they are loaded.

    Args:
        folder: a checked model folder.
        is_fp32: whether they are loaded as fp32, else bf16.

    Raises:
        OutOfMemory: they do not.
    """
    from safetensors import safe_open

    numbers = on_disk = 0
    for file in folder.glob("*.safetensors"):
        on_disk += file.stat().st_size
        with safe_open(file, framework="numpy") as opened:
            numbers += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118  not a mapping
    free, limit = free_memory()
    # While it is read the file is mapped too, which only `ulimit -v` counts.
    need = numbers * (4 if is_fp32 else 2) + (on_disk if limit == "ulimit -v" else 0)
    if need > free:
        raise OutOfMemory(
            f"not enough memory: the weights of {folder} need {_gb(need)}, and {_gb(free)} are free ({limit}). "
            f"What would fit is a base of at most {max(free / 2 * numbers / need, 0) / 1e6:,.0f} million parameters, or more memory"
        )


def _what_would_fit(need: Need, *, free: int, longest: int, can_checkpoint: bool) -> str:
    per_token = need.per_token_checkpointed if can_checkpoint else need.per_token
    tokens = int((free - need.fixed - _HEAD_BYTES) / (_MARGIN * per_token))
    if tokens >= 16:
        return f"What would fit: rows of at most {tokens} tokens (train.max_length: {tokens}; the longest has {longest})"
    if need.fixed > free / 2:
        return "What would fit: train.method: lora, which trains a small part of the weights, or a smaller base"
    return "What would fit: a smaller base, or more memory"


def _smaller(pass_tokens: int, longest: int) -> Sequence[int]:
    """Halves of what was asked for, down to the longest row."""
    sizes = [pass_tokens]
    while sizes[-1] > longest:
        sizes.append(max(sizes[-1] // 2, longest))
    return sizes


def _beginning(batch: TokenBatch) -> TokenBatch:
    """At most `_SAMPLE_TOKENS` tokens, all of them supervised, as one document."""
    size = min(batch.num_tokens, _SAMPLE_TOKENS)
    tokens = batch.tokens[:size]
    return TokenBatch(
        tokens=tokens,
        targets=np.zeros(size, np.int32),  # any token: what it costs does not depend on which
        weights=np.ones(size, np.float32),
        offsets=np.array([0, size], np.int32),
        record_ids=("sample",),
    )


def _depth_and_width(model: Any) -> tuple[int, int]:
    config = model.config.get_text_config()
    return int(config.num_hidden_layers), int(config.hidden_size)


def _gb(num_bytes: float) -> str:
    return f"{max(num_bytes, 0) / 1e9:.2f} GB"

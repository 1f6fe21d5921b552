"""Texts to vectors: the mean of a text's last hidden states, scaled to length 1.

The model was not trained for this; near vectors mean texts that it would go on with alike.

Shapes: T tokens of a pass, S texts, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.model.forward import hidden_states, packs

__all__ = ["embed_texts"]


@torch.inference_mode()
def embed_texts(model: nn.Module, texts: Sequence[Sequence[int]], *, prefix: Sequence[int] = ()) -> list[list[float]]:
    """Read all texts in one pass, end to end and none seeing another.

    Args:
        model: a transformers or PEFT causal model, in evaluation mode.
        texts: token ids, none empty.
        prefix: tokens in front of each, such as those of a soft prompt; they are read and not counted.

    Raises:
        ModelError: its hidden states cannot be had.
    """
    if cast("Any", model).get_decoder() is model:
        raise ModelError("this model's hidden states cannot be read, so it gives no embeddings")
    device = next(model.parameters()).device
    joined, offsets = list[int](), [0]
    for text in texts:
        joined += [*prefix, *text]
        offsets.append(len(joined))
    tokens_T = torch.tensor(joined, device=device)
    hidden_TD = hidden_states(model, tokens_T, offsets, packs=packs(model, device=str(device))).float()
    means = [hidden_TD[start + len(prefix) : end].mean(dim=0) for start, end in pairwise(offsets)]
    vectors_SD: Tensor = functional.normalize(torch.stack(means), dim=-1)
    found: list[list[float]] = vectors_SD.tolist()
    return found

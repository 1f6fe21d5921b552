"""What a model says of each token of a text.

Shapes: T tokens of the text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

__all__ = ["TokenScore", "score_tokens"]

_POSITIONS = 256
"""Positions whose probabilities over the vocabulary are in memory at a time."""


class TokenScore(NamedTuple):
    """The log-likelihood (nats) of a token after all before it, and the likeliest tokens in its place, likeliest first."""

    log_likelihood: float
    top: tuple[tuple[int, float], ...]


@torch.inference_mode()
def score_tokens(model: nn.Module, tokens: Sequence[int], *, num_top: int = 0) -> list[TokenScore]:
    """Score every token but the first, by the model's plain forward pass.

    Args:
        model: a transformers or PEFT causal model.
        tokens: the text, at least one token.
        num_top: likeliest tokens to tell at each place.
    """
    tokens_T = torch.tensor(tokens, device=next(model.parameters()).device)
    logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0, :-1]
    scores: list[TokenScore] = []
    for start in range(0, len(tokens) - 1, _POSITIONS):
        logs_TV = logits_TV[start : start + _POSITIONS].float().log_softmax(dim=-1)
        chosen_T = logs_TV.gather(1, tokens_T[start + 1 : start + 1 + len(logs_TV), None])[:, 0]
        values_Tn, ids_Tn = logs_TV.topk(min(num_top, logs_TV.shape[1]), dim=-1)
        for value, ids, values in zip(chosen_T.tolist(), ids_Tn.tolist(), values_Tn.tolist(), strict=True):
            scores.append(TokenScore(value, tuple(zip(ids, values, strict=True))))
    return scores

"""Batched generation with a key/value cache, one step for all rows at a time.

Shapes: B rows, T tokens of the longest prompt, V vocabulary. Prompts are padded on the left, so that every row's next token
stands in the last column.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.errors import ModelError

__all__ = ["Sampling", "decode", "generate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest one."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    """0 or more. Scores are divided by it before the softmax."""
    top_p: float = 1.0
    """In (0, 1]: only the likeliest tokens that together reach this probability are drawn from (Holtzman et al. 2020)."""
    seed: int | None = None
    """Of the draws; None draws a fresh one."""


@torch.inference_mode()
def decode(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    stop_tokens: Sequence[int],
    pad_token: int = 0,
    rows: Sequence[int] | None = None,
) -> Generator[list[int | None]]:
    """Generate token by token for several prompts at once.

    Args:
        model: a transformers or PEFT causal model.
        prompts: token ids, none of them empty.
        sampling: how to choose.
        stop_tokens: a row ends when it produces one of these.
        pad_token: fills the left of shorter prompts; never attended to.
        rows: a number for each prompt that, with the seed, settles its draws; 0, 1, ... when None.

    Yields:
        For each step, each row's new token; None once the row has ended (the stop token itself is not yielded).

    Raises:
        ModelError: a prompt is empty.
    """
    if not prompts or not all(prompts):
        raise ModelError("a prompt with no tokens cannot be continued")
    device = next(model.parameters()).device
    tokens_BT, mask_BT = _left_padded(prompts, pad_token=pad_token, device=device)
    choose = _chooser(sampling, rows=rows if rows is not None else range(len(prompts)))
    stops = torch.tensor(sorted(set(stop_tokens)), device=device)
    ended_B = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    cache = None
    for _ in range(sampling.max_new_tokens):
        output = model(
            input_ids=tokens_BT,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        next_B = choose(output.logits[:, -1].float())
        ended_B |= torch.isin(next_B, stops)
        yield [None if ended else int(token) for token, ended in zip(next_B.tolist(), ended_B.tolist(), strict=True)]
        if bool(ended_B.all()):
            return
        tokens_BT = next_B[:, None]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(prompts), 1)], dim=1)
        positions_BT = positions_BT[:, -1:] + 1


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    stop_tokens: Sequence[int],
    pad_token: int = 0,
    batch_size: int = 32,
    on_progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Generate whole answers, in the order of the prompts.

    Prompts of similar length run together; that changes the speed and not the answers. `on_progress` is told how many are done.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(by_length), batch_size):
        rows = by_length[start : start + batch_size]
        steps = decode(
            model, [prompts[i] for i in rows], sampling=sampling, stop_tokens=stop_tokens, pad_token=pad_token, rows=rows
        )
        for step in steps:
            for row, token in zip(rows, step, strict=True):
                if token is not None:
                    answers[row].append(token)
        if on_progress is not None:
            on_progress(start + len(rows))
    return answers


def _left_padded(prompts: Sequence[Sequence[int]], *, pad_token: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    tokens_BT = torch.tensor([[pad_token] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return tokens_BT, mask_BT


def _chooser(sampling: Sampling, *, rows: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A function from logits (B, V) to the chosen tokens (B,).

    Every row has its own stream of uniform draws, so its answer does not depend on which rows run beside it.
    """
    if sampling.temperature <= 0:
        return lambda logits_BV: logits_BV.argmax(dim=-1)
    streams = [np.random.default_rng(None if sampling.seed is None else [sampling.seed, row]) for row in rows]

    def draw(logits_BV: Tensor) -> Tensor:
        probabilities_BV = torch.softmax(logits_BV.double() / sampling.temperature, dim=-1)
        ordered_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True)
        # A token stays if the ones before it have not yet reached top_p; the likeliest always stays.
        stays_BV = ordered_BV.cumsum(dim=-1) - ordered_BV < sampling.top_p
        stays_BV[:, 0] = True
        reached_BV = (ordered_BV * stays_BV).cumsum(dim=-1)
        uniform_B1 = torch.tensor([[stream.random()] for stream in streams], device=logits_BV.device, dtype=torch.float64)
        drawn_B1 = torch.searchsorted(reached_BV, uniform_B1 * reached_BV[:, -1:], right=True)
        last_B1 = stays_BV.sum(dim=-1, keepdim=True) - 1  # a draw so near 1 that rounding carries it past the end
        return order_BV.gather(1, torch.minimum(drawn_B1, last_B1))[:, 0]

    return draw

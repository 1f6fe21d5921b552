"""How the next token is chosen: each row of a batch by its own rules, with its own stream of draws.

A row's choice depends on its own logits, rules, history and seed alone, never on the rows beside it. In this order: bias, penalties,
temperature, then what is cut off (min-p, top-k, top-p), then a draw. Log-probabilities that are told are those of the model itself, before
all of this, as vLLM tells them.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Choice", "Chooser", "Sampling", "choose"]


COLDEST = 1e-5
"""Below this temperature the likeliest token is taken: scores divided by less overflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Rules for one request. Temperature 0 takes the likeliest token."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    """0 or more. Scores are divided by it before the softmax."""
    top_p: float = 1.0
    """In (0, 1]: only the likeliest tokens that together reach this probability are drawn from (Holtzman et al. 2020)."""
    top_k: int = 0
    """Only this many of the likeliest tokens are drawn from (Fan et al. 2018); 0: all."""
    min_p: float = 0.0
    """In [0, 1]: only tokens at least this share as likely as the likeliest are drawn from (Nguyen et al. 2024, arXiv 2407.01082)."""
    presence_penalty: float = 0.0
    """Taken from the score of every token that the answer holds already."""
    frequency_penalty: float = 0.0
    """Taken from a token's score once for each time that the answer holds it."""
    repetition_penalty: float = 1.0
    """Above 0: the scores of tokens in prompt and answer are divided by it if positive, else multiplied (Keskar et al. 2019)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the scores of these tokens."""
    seed: int | None = None
    """Of the draws; None draws a fresh one."""
    num_logprobs: int | None = None
    """Tell the log-probability of each token, and of so many of the likeliest beside it; None: tell none."""


class Choice(NamedTuple):
    """A token, and how likely the model finds it."""

    token: int
    logprob: float | None
    """In nats; None where nobody asked."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens with their log-probabilities, the likeliest first."""


class Chooser:
    """The rules of one request at work: its stream of draws and what it has said so far."""

    def __init__(self, sampling: Sampling, *, prompt: Sequence[int] = (), row: int = 0) -> None:
        """Begin.

        Args:
            sampling: the rules.
            prompt: its tokens, which a repetition penalty counts too.
            row: with the seed settles the draws, so that several answers to one request differ.
        """
        self.sampling = sampling
        self._draws = np.random.default_rng(None if sampling.seed is None else [sampling.seed % 2**64, row])
        self._said: Counter[int] = Counter()
        self._prompt = set(prompt) if sampling.repetition_penalty != 1.0 else set()

    @property
    def is_plain(self) -> bool:
        """Whether it takes the likeliest token of the model's own scores."""
        rules = self.sampling
        is_moved = rules.logit_bias or rules.presence_penalty or rules.frequency_penalty or rules.repetition_penalty != 1.0
        return rules.temperature < COLDEST and not is_moved

    def pick(self, logits_V: Tensor, *, allowed_V: Tensor | None = None) -> int:
        """Choose from scores in fp32; `allowed_V` is False where a token may not come."""
        scores_V = self._moved(logits_V)
        if allowed_V is not None:
            scores_V = scores_V.masked_fill(~allowed_V, -torch.inf)
        if self.sampling.temperature < COLDEST:
            return int(scores_V.argmax())
        probabilities_V = torch.softmax(scores_V.double() / self.sampling.temperature, dim=-1)
        return self._drawn(probabilities_V)

    def note(self, token: int) -> None:
        """Remember what was said, whoever chose it."""
        self._said[token] += 1

    def _moved(self, logits_V: Tensor) -> Tensor:
        rules = self.sampling
        scores_V = logits_V
        if rules.logit_bias:
            scores_V = scores_V.clone()
            for token, bias in rules.logit_bias.items():
                scores_V[token] += bias
        if rules.repetition_penalty != 1.0 and (seen := self._prompt | self._said.keys()):
            at = torch.tensor(sorted(seen), device=scores_V.device)
            old = scores_V[at]
            penalised = torch.where(old > 0, old / rules.repetition_penalty, old * rules.repetition_penalty)
            scores_V = scores_V.index_copy(0, at, penalised)
        if self._said and (rules.presence_penalty or rules.frequency_penalty):
            at = torch.tensor(list(self._said), device=scores_V.device)
            counts = torch.tensor(list(self._said.values()), device=scores_V.device, dtype=scores_V.dtype)
            scores_V = scores_V.index_add(0, at, -(rules.presence_penalty + rules.frequency_penalty * counts))
        return scores_V

    def _drawn(self, probabilities_V: Tensor) -> int:
        rules = self.sampling
        ordered_V, order_V = probabilities_V.sort(dim=-1, descending=True)
        # A token stays if the ones before it have not yet reached top_p; the likeliest always stays.
        stays_V = ordered_V.cumsum(dim=-1) - ordered_V < rules.top_p
        if rules.top_k > 0:
            stays_V[rules.top_k :] = False
        if rules.min_p > 0:
            stays_V &= ordered_V >= rules.min_p * ordered_V[0]
        stays_V &= ordered_V > 0
        stays_V[0] = True
        reached_V = (ordered_V * stays_V).cumsum(dim=-1)
        uniform = self._draws.random() * reached_V[-1]
        drawn = int(torch.searchsorted(reached_V, uniform, right=True))
        last = int(stays_V.nonzero()[-1])  # a draw so near 1 that rounding carries it past the end
        return int(order_V[min(drawn, last)])


def choose(logits_BV: Tensor, choosers: Sequence[Chooser], *, allowed: Sequence[Tensor | None] = ()) -> list[Choice]:
    """Choose a token for every row, and remember it.

    Args:
        logits_BV: scores; whatever is computed from them is computed in fp32.
        choosers: one for each row.
        allowed: for each row which tokens may come, shape (V,), or None for all; empty: all, for every row.
    """
    masks = allowed or [None] * len(choosers)
    likeliest = logits_BV.max(dim=-1).indices.tolist()  # the first of equals; as `argmax`, and four times as fast in bf16
    choices = []
    for row, (chooser, mask) in enumerate(zip(choosers, masks, strict=True)):
        is_plain = chooser.is_plain and mask is None
        token = likeliest[row] if is_plain else chooser.pick(logits_BV[row].float(), allowed_V=mask)
        chooser.note(token)
        choices.append(_told(logits_BV[row], token, num=chooser.sampling.num_logprobs))
    return choices


def _told(logits_V: Tensor, token: int, *, num: int | None) -> Choice:
    if num is None:
        return Choice(token, None, ())
    logprobs_V = logits_V.float().log_softmax(dim=-1)
    top = logprobs_V.topk(num) if num else None
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True) if top is not None else ()
    return Choice(token, float(logprobs_V[token]), tuple(pairs))

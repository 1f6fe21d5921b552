"""One pass over a packed row: the head is applied only where something is learned.

Most models read all documents of a row in one pass. One that mixes tokens outside attention (convolutions, recurrent states), or
whose attention cannot be exchanged, would read across documents; it is recognised by a trial and reads them one by one.

Shapes: T packed tokens, P supervised positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model.attention import packed
from tunesmith.model.head import Head, cross_entropy
from tunesmith.model.layout import layout_of
from tunesmith.model.number_format import number_format
from tunesmith.records import TokenBatch

__all__ = [
    "Continued",
    "SummedLoss",
    "continuation_scores",
    "hidden_states",
    "is_same_reading",
    "packs",
    "segment_nll",
    "summed_loss",
]


class SummedLoss(NamedTuple):
    """A sum, not a mean: whoever accumulates divides by the total weight once, so that splitting a step changes nothing."""

    total: Tensor
    """Scalar: weighted nats, with a gradient in training."""
    weight: float
    """Sum of the weights of the supervised positions."""


def summed_loss(model: nn.Module, batch: TokenBatch, *, device: str) -> SummedLoss:
    """Weighted cross-entropy, summed over the supervised positions of a packed row.

    Raises:
        ValueError: nothing in the row is supervised.
    """
    if not batch.num_supervised:
        raise ValueError("a batch with no supervised position has no loss")
    total, _, _ = _read(model, batch, device=device)
    return SummedLoss(total, float(batch.weights[batch.targets >= 0].sum()))


@torch.no_grad()
def segment_nll(model: nn.Module, batch: TokenBatch, *, device: str) -> list[tuple[float, int]]:
    """Negative log-likelihood (nats) and number of supervised positions of each segment, unweighted."""
    if not batch.num_supervised:
        return [(0.0, 0)] * (len(batch.offsets) - 1)
    _, nll_P, places = _read(model, batch, device=device)
    owners = np.searchsorted(batch.offsets, places, side="right") - 1
    sums = np.bincount(owners, weights=nll_P.double().cpu().numpy(), minlength=len(batch.offsets) - 1)
    counts = np.bincount(owners, minlength=len(batch.offsets) - 1)
    return [(float(total), int(count)) for total, count in zip(sums, counts, strict=True)]


class Continued(NamedTuple):
    """How a model finds a continuation."""

    logprob: float
    """Summed, in nats; 0 or less."""
    is_greedy: bool
    """Whether each of its tokens is the likeliest."""


@torch.no_grad()
def continuation_scores(
    model: nn.Module, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, device: str
) -> list[Continued]:
    """Log-probability of continuations, each given its context; both are token ids and none is empty."""
    found = []
    for context, continuation in pairs:
        tokens_T = torch.tensor([*context, *continuation[:-1]], device=device)
        places_P = torch.arange(len(context) - 1, len(tokens_T), device=device)
        targets_P = torch.tensor(list(continuation), device=device)
        logits_PV = _logits_one_by_one(model, tokens_T, [0, len(tokens_T)], places_P).float()
        nll = functional.cross_entropy(logits_PV, targets_P, reduction="none").double().sum()
        found.append(Continued(-float(nll), bool((logits_PV.argmax(dim=-1) == targets_P).all())))
    return found


def _read(model: nn.Module, batch: TokenBatch, *, device: str) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """The weighted sum of the losses, the loss at each supervised position (P,) in fp32, and the positions."""
    places = np.flatnonzero(batch.targets >= 0)
    targets_P = torch.from_numpy(batch.targets[places].astype(np.int64)).to(device)
    weights_P = torch.from_numpy(batch.weights[places]).to(device)
    tokens_T = torch.from_numpy(batch.tokens.astype(np.int64)).to(device)
    places_P = torch.from_numpy(places).to(device)
    offsets, reading = batch.offsets.tolist(), reading_of(model, device=device)
    if reading.head is not None:
        hidden_TD = hidden_states(model, tokens_T, offsets, packs=reading.packs)
        total, nll_P = cross_entropy(
            hidden_TD.index_select(0, places_P), head=reading.head, targets_P=targets_P, weights_P=weights_P
        )
        return total, nll_P, places
    read = _logits_together if reading.packs else _logits_one_by_one
    nll_P = functional.cross_entropy(read(model, tokens_T, offsets, places_P).float(), targets_P, reduction="none")
    return (nll_P * weights_P).sum(), nll_P, places


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model is read, found out by a trial."""

    packs: bool
    """Whether a packed pass gives the model's own logits, document by document."""
    head: Head | None
    """What makes logits of the last hidden states; None where the model does more to them than we know."""


_readings: WeakKeyDictionary[nn.Module, Reading] = WeakKeyDictionary()


def packs(model: nn.Module, *, device: str) -> bool:
    """Whether this model reads all documents of a packed row in one pass."""
    return reading_of(model, device=device).packs


def reading_of(model: nn.Module, *, device: str) -> Reading:
    """Try a model on a few tokens, once: two documents, read together and alone, by its own forward pass and by our parts of it."""
    if model not in _readings:
        vocabulary = cast("Any", model).get_input_embeddings().weight.shape[0]
        tokens_T = torch.arange(1, 13, device=device) * 7 % vocabulary
        offsets, places_P = [0, 9, 12], torch.arange(9, 12, device=device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            alone = _logits_one_by_one(model, tokens_T, offsets, places_P)
            together = _logits_together(model, tokens_T, offsets, places_P)
            head = _find_head(model, tokens_T[9:], alone)
        model.train(was_training)
        _readings[model] = Reading(packs=is_same_reading(together, alone), head=head)
    return _readings[model]


def _find_head(model: Any, tokens_T: Tensor, logits_TV: Tensor) -> Head | None:
    """The head with which our own last step gives the model's own logits."""
    linear, config = model.get_output_embeddings(), model.config.get_text_config()
    if not isinstance(linear, nn.Linear) or model.get_decoder() is model:
        return None
    softcap = getattr(config, "final_logit_softcapping", None)
    scales = [getattr(config, "logit_scale", None), 1 / (getattr(config, "logits_scaling", None) or 1.0)]
    hidden_TD = hidden_states(model, tokens_T, [0, len(tokens_T)], packs=False).to(linear.weight.dtype)
    for scale in (1.0, *(scale for scale in scales if scale)):
        head = Head(linear=linear, scale=float(scale), softcap=softcap)
        if is_same_reading(head.logits(hidden_TD), logits_TV):
            return head
    return None


def is_same_reading(found: Tensor, expected: Tensor) -> bool:
    """Whether two ways of reading give the same logits.

    Bleeding moves logits by tenths of their spread, in a model fresh from its small random weights by some 1e-5 of it.

    Rounding moves them by a millionth in fp32, and by 1 % in bf16.
    """
    tolerance = 0.05 if torch.bfloat16 in {found.dtype, expected.dtype} else 1e-5
    found, expected = found.float(), expected.float()
    return found.shape == expected.shape and bool((found - expected).abs().mean() <= tolerance * expected.std())


def hidden_states(model: Any, tokens_T: Tensor, offsets: Sequence[int], *, packs: bool) -> Tensor:
    """Last hidden states (T, D) of documents end to end, each read by itself."""
    decoder = model.get_decoder()
    if packs:
        with number_format(model, tokens_T.device), packed(model, layout_of(offsets, device=tokens_T.device)):
            hidden: Tensor = decoder(
                input_ids=tokens_T[None], position_ids=_positions(offsets, tokens_T.device), use_cache=False
            ).last_hidden_state
        return hidden[0]
    with number_format(model, tokens_T.device):
        documents = (tokens_T[None, start:end] for start, end in pairwise(offsets))
        return torch.cat([decoder(input_ids=each, use_cache=False).last_hidden_state[0] for each in documents])


def _positions(offsets: Sequence[int], device: torch.device) -> Tensor:
    return torch.cat([torch.arange(end - start, device=device) for start, end in pairwise(offsets)])[None]


def _logits_together(model: nn.Module, tokens_T: Tensor, offsets: Sequence[int], places_P: Tensor) -> Tensor:
    device = tokens_T.device
    with number_format(model, device), packed(model, layout_of(offsets, device=device)):
        logits_1PV = model(
            input_ids=tokens_T[None], position_ids=_positions(offsets, device), use_cache=False, logits_to_keep=places_P
        ).logits
    return _at(places_P, logits_1PV)


def _logits_one_by_one(model: nn.Module, tokens_T: Tensor, offsets: Sequence[int], places_P: Tensor) -> Tensor:
    parts = []
    for start, end in pairwise(offsets):
        own_P = places_P[(places_P >= start) & (places_P < end)] - start
        if len(own_P):
            with number_format(model, tokens_T.device):
                logits_1PV = model(input_ids=tokens_T[None, start:end], use_cache=False, logits_to_keep=own_P).logits
            parts.append(_at(own_P, logits_1PV))
    return torch.cat(parts)


def _at(places_P: Tensor, logits: Tensor) -> Tensor:
    """Logits (P, V), also from a model that knows no `logits_to_keep` and gives all of them."""
    return logits[0] if logits.shape[1] == len(places_P) else logits[0, places_P]

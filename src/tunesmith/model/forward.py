"""One pass over a packed row: the head is applied only where something is learned.

Most models read all documents of a row in one pass. One that mixes tokens outside attention (convolutions, recurrent states), or
whose attention cannot be exchanged, would read across documents; it is recognised by a trial and reads them one by one.

Shapes: T packed tokens, P supervised positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model.attention import layout_of, packed
from tunesmith.records import TokenBatch

__all__ = ["SummedLoss", "packs", "segment_nll", "summed_loss"]


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
    nll_P, places = _position_nll(model, batch, device=device)
    weights_P = torch.from_numpy(batch.weights[places]).to(device)
    return SummedLoss((nll_P * weights_P).sum(), float(batch.weights[places].sum()))


@torch.no_grad()
def segment_nll(model: nn.Module, batch: TokenBatch, *, device: str) -> list[tuple[float, int]]:
    """Negative log-likelihood (nats) and number of supervised positions of each segment, unweighted."""
    if not batch.num_supervised:
        return [(0.0, 0)] * (len(batch.offsets) - 1)
    nll_P, places = _position_nll(model, batch, device=device)
    owners = np.searchsorted(batch.offsets, places, side="right") - 1
    sums = np.bincount(owners, weights=nll_P.double().cpu().numpy(), minlength=len(batch.offsets) - 1)
    counts = np.bincount(owners, minlength=len(batch.offsets) - 1)
    return [(float(total), int(count)) for total, count in zip(sums, counts, strict=True)]


def _position_nll(model: nn.Module, batch: TokenBatch, *, device: str) -> tuple[Tensor, NDArray[np.int64]]:
    """Cross-entropy in fp32 at each supervised position: shape (P,), and the positions."""
    places = np.flatnonzero(batch.targets >= 0)
    targets_P = torch.from_numpy(batch.targets[places].astype(np.int64)).to(device)
    tokens_T = torch.from_numpy(batch.tokens.astype(np.int64)).to(device)
    places_P = torch.from_numpy(places).to(device)
    read = _logits_together if packs(model, device=device) else _logits_one_by_one
    logits_PV = read(model, tokens_T, batch.offsets.tolist(), places_P)
    return functional.cross_entropy(logits_PV.float(), targets_P, reduction="none"), places


_packs: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def packs(model: nn.Module, *, device: str) -> bool:
    """Whether a packed pass gives this model's own logits, document by document; tried once per model on a few tokens."""
    if model not in _packs:
        vocabulary = cast("Any", model).get_input_embeddings().weight.shape[0]
        tokens_T = torch.arange(1, 13, device=device) * 7 % vocabulary
        offsets, places_P = [0, 9, 12], torch.arange(9, 12, device=device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            together = _logits_together(model, tokens_T, offsets, places_P).float()
            alone = _logits_one_by_one(model, tokens_T, offsets, places_P).float()
        model.train(was_training)
        # Bleeding moves the second document's logits by tenths of their spread; rounding in fp32 by a millionth, in bf16 by 1 %.
        tolerance = 1e-4 if device == "cpu" else 0.05
        _packs[model] = bool((together - alone).abs().mean() <= tolerance * alone.std())
    return _packs[model]


def _logits_together(model: nn.Module, tokens_T: Tensor, offsets: Sequence[int], places_P: Tensor) -> Tensor:
    device = tokens_T.device
    positions_T = torch.cat([torch.arange(end - start, device=device) for start, end in pairwise(offsets)])
    with _in_bf16(device), packed(model, layout_of(offsets, device=device)):
        logits_1PV = model(
            input_ids=tokens_T[None], position_ids=positions_T[None], use_cache=False, logits_to_keep=places_P
        ).logits
    return _at(places_P, logits_1PV)


def _logits_one_by_one(model: nn.Module, tokens_T: Tensor, offsets: Sequence[int], places_P: Tensor) -> Tensor:
    parts = []
    for start, end in pairwise(offsets):
        own_P = places_P[(places_P >= start) & (places_P < end)] - start
        if len(own_P):
            with _in_bf16(tokens_T.device):
                logits_1PV = model(input_ids=tokens_T[None, start:end], use_cache=False, logits_to_keep=own_P).logits
            parts.append(_at(own_P, logits_1PV))
    return torch.cat(parts)


def _at(places_P: Tensor, logits: Tensor) -> Tensor:
    """Logits (P, V), also from a model that knows no `logits_to_keep` and gives all of them."""
    return logits[0] if logits.shape[1] == len(places_P) else logits[0, places_P]


def _in_bf16(device: torch.device) -> torch.autocast:
    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda")

"""Proofs about what was learned: other tools compute the same with our adapter, and it does something."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model.lora import adapter_disabled, add_lora
from tunesmith.model.machine import Machine
from tunesmith.model.quiet import quiet_libraries
from tunesmith.model.reference import load_with_peft, peft_gradients, saved_gradients
from tunesmith.records import Proof, TokenBatch
from tunesmith.train.config import LoraConfig
from tunesmith.train.proofs_measure import (
    FP32,
    difference,
    documents,
    gradient_difference,
    plain_backward,
    without_dropout,
)
from tunesmith.train.proofs_process import Saved

__all__ = [
    "CHANGED",
    "prove_adapter",
    "prove_changed",
    "prove_merged",
    "prove_peft",
    "read_logits",
    "require_adapter_gradients",
    "trial_adapter",
]

CHANGED = "Training is really in use: with it the model says something else than without."
_TIMES_ROUNDING = 10.0
"""Training must have moved the logits by this many times what rounding may."""


def trial_adapter(model: nn.Module, *, config: LoraConfig, seed: int = 0) -> nn.Module:
    """Put an adapter on a model that already does something, as a trained one would: B is drawn and not zero."""
    adapted = add_lora(model, rank=config.rank, alpha=config.alpha, dropout=config.dropout, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad and not parameter.any():
                drawn = torch.randn(parameter.shape, generator=generator) * 0.02
                parameter.copy_(drawn)
    return adapted.eval()


def require_adapter_gradients(model: nn.Module) -> None:
    """Let the matrices of a loaded adapter, and nothing else, take gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


@torch.no_grad()
def read_logits(model: nn.Module, batch: TokenBatch, *, device: str) -> Tensor:
    """Logits (T, V) of all documents of a batch, each read alone by the model's plain forward pass."""
    parts = []
    for document in documents(batch):
        tokens_T = torch.from_numpy(document.tokens.astype(np.int64)).to(device)
        parts.append(model(input_ids=tokens_T[None], use_cache=False).logits[0].float())
    return torch.cat(parts)


def prove_peft(adapted: nn.Module, saved: Saved, batch: TokenBatch, *, machine: Machine, tolerance: float = FP32) -> Proof:
    """An adapter in our layers, against what PEFT loads from its folder on the same base."""
    return _compare_with_peft(adapted, _load(saved, machine=machine), batch, device=machine.device, tolerance=tolerance)


def prove_adapter(
    adapted: nn.Module, saved: Saved, batch: TokenBatch, *, machine: Machine, tolerance: float = FP32
) -> tuple[Proof, Proof]:
    """`prove_peft` and `prove_merged`, with PEFT's side loaded once."""
    theirs = _load(saved, machine=machine)
    return (
        _compare_with_peft(adapted, theirs, batch, device=machine.device, tolerance=tolerance),
        prove_merged(adapted, theirs, batch, device=machine.device, tolerance=tolerance),
    )


def prove_merged(adapted: nn.Module, theirs: Any, batch: TokenBatch, *, device: str, tolerance: float = FP32) -> Proof:
    """An adapter in our layers, against plain weights into which PEFT has merged the saved one: W + s B A.

    Args:
        adapted: the model with the adapter in our layers.
        theirs: what PEFT loaded; it is merged here and is no adapter afterwards.
        batch: rows to read.
        device: where both are.
        tolerance: relative.
    """
    with quiet_libraries():
        merged = theirs.merge_and_unload()
    figure = difference(read_logits(merged.eval(), batch, device=device), read_logits(adapted.eval(), batch, device=device))
    return Proof(
        name="merged = adapter",
        meaning="The adapter may be merged into the weights for an engine that knows no adapters, and computes the same.",
        compared=f"logits of {batch.num_tokens} tokens: plain weights that PEFT merged from the saved folder, and the adapter "
        "in our layers",
        figure=figure,
        tolerance=tolerance,
        holds=figure <= tolerance,
    )


def _load(saved: Saved, *, machine: Machine) -> nn.Module:
    assert saved.base is not None
    return load_with_peft(saved.folder, base=saved.base, machine=machine)


def _compare_with_peft(adapted: nn.Module, theirs: nn.Module, batch: TokenBatch, *, device: str, tolerance: float) -> Proof:
    by_logits = difference(read_logits(adapted.eval(), batch, device=device), read_logits(theirs.eval(), batch, device=device))
    with without_dropout(adapted), without_dropout(theirs):
        plain_backward(adapted, batch, device=device)
        plain_backward(theirs, batch, device=device)
        ours_by_name, theirs_by_name = saved_gradients(adapted), peft_gradients(theirs)
    adapted.zero_grad()
    by_gradient = gradient_difference(ours_by_name, theirs_by_name)
    figure = max(by_logits, by_gradient)
    return Proof(
        name="fused LoRA = PEFT's own",
        meaning="Any tool that knows PEFT loads this adapter and computes the same.",
        compared=f"the adapter in our layers and the saved folder in PEFT's, on the same base: logits {by_logits:.0e}, "
        f"gradients of all {len(theirs_by_name)} matrices {by_gradient:.0e} apart",
        figure=figure,
        tolerance=tolerance,
        holds=figure <= tolerance,
    )


def prove_changed(model: nn.Module, base: nn.Module | None, batch: TokenBatch, *, device: str, tolerance: float = FP32) -> Proof:
    """A trained model against the one it started from: its own with the adapter off, or `base`."""
    tuned = read_logits(model.eval(), batch, device=device)
    if base is None:
        with adapter_disabled(model):
            before = read_logits(model, batch, device=device)
    else:
        before = read_logits(base.eval(), batch, device=device)
    figure, least = difference(tuned, before), _TIMES_ROUNDING * tolerance
    likelihoods = [_nats_per_token(logits, batch) for logits in (before, tuned)]
    return Proof(
        name="adapter on ≠ adapter off" if base is None else "tuned ≠ base",
        meaning=CHANGED,
        compared=f"logits of {batch.num_tokens} tokens; the learned ones went from {likelihoods[0]:.3f} to {likelihoods[1]:.3f} nats each",
        figure=figure,
        tolerance=least,
        rule="at least",
        holds=figure >= least and likelihoods[0] != likelihoods[1],
    )


def _nats_per_token(logits_TV: Tensor, batch: TokenBatch) -> float:
    targets_T = torch.from_numpy(batch.targets.astype(np.int64)).to(logits_TV.device)
    return float(functional.cross_entropy(logits_TV, targets_T, ignore_index=-100))

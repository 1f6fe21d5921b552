"""Proofs of the training step: what is done for speed and memory changes neither the loss nor a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tunesmith.model.compiled import can_compile, compile_layers, num_compiled
from tunesmith.model.forward import segment_nll, summed_loss
from tunesmith.records import Proof, TokenBatch
from tunesmith.train.config import OptimiserConfig, TrainConfig
from tunesmith.train.loop import fit
from tunesmith.train.proofs_measure import (
    FP32,
    Measured,
    documents,
    gradient_difference,
    gradients,
    plain,
    without_dropout,
)
from tunesmith.train.proofs_rows import join

__all__ = ["prove_accumulation", "prove_compiled", "prove_head", "prove_packing", "prove_step"]

_NUM_PASSES = 3
_COMPILED = "compiled = eager"
_COMPILED_MEANS = "Compiling makes the model faster and changes nothing else."


def prove_step(model: nn.Module, batch: TokenBatch, *, device: str, tolerance: float = FP32) -> list[Proof]:
    """Packing, accumulation and the head, against one plain reading of the batch.

    Args:
        model: what requires a gradient is compared.
        batch: several documents with supervised tokens, unlike in number and weight.
        device: where the model is.
        tolerance: see `rounding`.
    """
    with without_dropout(model):
        expected = plain(model, batch, device=device)
        return [
            prove_packing(model, batch, expected, device=device, tolerance=tolerance),
            prove_accumulation(model, batch, expected, device=device, tolerance=tolerance),
            prove_head(model, batch, expected, device=device, tolerance=tolerance),
        ]


def prove_packing(model: nn.Module, batch: TokenBatch, expected: Measured, *, device: str, tolerance: float) -> Proof:
    """All documents in one row, against each alone."""
    total = summed_loss(model, batch, device=device).total
    total.backward()
    by_gradient = gradient_difference(gradients(model), expected.gradients)
    each = [nll for nll, count in segment_nll(model, batch, device=device) if count]
    by_loss = max(abs(a - b) / b for a, b in zip([float(total.detach()), *each], [expected.loss, *expected.each], strict=True))
    return _proof(
        tolerance=tolerance,
        name="packed = unpacked",
        meaning="Rows that share a pass never see each other: packing changes the speed and nothing else.",
        figure=max(by_gradient, by_loss),
        compared=f"{len(batch.record_ids)} rows in one pass and each alone through plain transformers: "
        f"loss {by_loss:.0e}, gradients {by_gradient:.0e} apart",
    )


def prove_accumulation(model: nn.Module, batch: TokenBatch, expected: Measured, *, device: str, tolerance: float) -> Proof:
    """The gradient that the loop hands to its optimiser: of one pass, and of several that together hold the same rows."""
    parts = _split(batch, _NUM_PASSES)
    whole = _step_gradients(model, [batch], device=device)
    accumulated = _step_gradients(model, parts, device=device)
    by_hand = {name: gradient / expected.weight for name, gradient in expected.gradients.items()}
    counts = ", ".join(str(part.num_supervised) for part in parts)
    return _proof(
        tolerance=tolerance,
        name="accumulated = one batch",
        meaning="A step in several small passes teaches what one large pass does: less memory costs no accuracy.",
        figure=max(gradient_difference(accumulated, whole), gradient_difference(accumulated, by_hand)),
        compared=f"the optimiser's gradients of one step in {len(parts)} passes ({counts} learned tokens) and in 1, "
        "and the plain sum over the step's weight",
    )


def prove_head(model: nn.Module, batch: TokenBatch, expected: Measured, *, device: str, tolerance: float) -> Proof:
    """The head on learned positions, against cross-entropy over transformers' own logits of every position."""
    loss = 0.0
    for document in documents(batch):
        if document.num_supervised:
            total = summed_loss(model, document, device=device).total
            total.backward()
            loss += float(total.detach())
    by_gradient = gradient_difference(gradients(model), expected.gradients)
    by_loss = abs(loss - expected.loss) / expected.loss
    return _proof(
        tolerance=tolerance,
        name="supervised-only head = full head",
        meaning="Skipping the words that are not learned changes no loss and no gradient.",
        figure=max(by_gradient, by_loss),
        compared=f"the head at {batch.num_supervised} of {batch.num_tokens} positions and at all of them: "
        f"loss {by_loss:.0e}, gradients {by_gradient:.0e} apart",
    )


def prove_compiled(model: nn.Module, batch: TokenBatch, *, device: str, is_used: bool, tolerance: float = FP32) -> Proof:
    """Loss and gradients with the layers compiled as training compiles them, against the same layers as they are.

    Args:
        model: its layers are compiled in place, and are as before when this returns: a copy would take its memory twice.
        batch: as in `prove_step`.
        device: where the model is.
        is_used: whether training compiled this model, or somebody asks what compiling would change.
        tolerance: see `rounding`.
    """
    if not is_used:
        return _not_compiled("no training compiled this model; `tunesmith prove MODEL --compiled` compares all the same")
    if not can_compile():
        return _not_compiled("nothing can be compiled on this machine: there is no C++ compiler (g++, or what CXX names)")
    with without_dropout(model):
        loss, expected = _loss_and_gradients(model, batch, device=device)
        torch.compiler.reset()
        num_before, undo = num_compiled(), compile_layers(model)
        try:
            compiled_loss, found = _loss_and_gradients(model, batch, device=device)
        finally:
            undo()
            model.zero_grad()
    num_pieces = num_compiled() - num_before
    if not num_pieces:
        return _not_compiled("torch finds nothing in this model that it would compile")
    by_gradient, by_loss = gradient_difference(found, expected), abs(compiled_loss - loss) / loss
    return _proof(
        tolerance=tolerance,
        name=_COMPILED,
        meaning=_COMPILED_MEANS,
        figure=max(by_gradient, by_loss),
        compared=f"{len(batch.record_ids)} rows in one pass, with the layers compiled ({num_pieces} pieces) and as they are: "
        f"loss {by_loss:.0e}, gradients {by_gradient:.0e} apart",
    )


def _not_compiled(why: str) -> Proof:
    return Proof(name=_COMPILED, meaning=_COMPILED_MEANS, compared=why, holds=None)


def _loss_and_gradients(model: nn.Module, batch: TokenBatch, *, device: str) -> tuple[float, dict[str, Tensor]]:
    total = summed_loss(model, batch, device=device).total
    total.backward()
    return float(total.detach()), gradients(model)


def _proof(*, name: str, meaning: str, figure: float, tolerance: float, compared: str) -> Proof:
    return Proof(name=name, meaning=meaning, compared=compared, figure=figure, tolerance=tolerance, holds=figure <= tolerance)


def _step_gradients(model: nn.Module, batches: Sequence[TokenBatch], *, device: str) -> dict[str, Tensor]:
    """What the real loop's optimiser is given in one step; with a learning rate of 0 the step moves no weight."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    caught: dict[str, Tensor] = {}

    def catch(optimiser: torch.optim.Optimizer, *_: object) -> None:
        given = [parameter for group in optimiser.param_groups for parameter in group["params"] if parameter.grad is not None]
        caught.update({names[id(parameter)]: parameter.grad.detach().clone() for parameter in given})

    handle = register_optimizer_step_pre_hook(catch)
    try:
        with TemporaryDirectory() as folder:
            fit(
                model,
                epochs=lambda _: list(batches),
                validation=[],
                total_steps=1,
                batches_per_step=len(batches),
                config=TrainConfig(optimiser=OptimiserConfig(max_grad_norm=1e30), evaluations=1),
                learning_rate=0.0,
                device=device,
                folder=Path(folder),
                on_step=lambda _: None,
            )
    finally:
        handle.remove()
    model.train()
    return caught


def _split(batch: TokenBatch, parts: int) -> list[TokenBatch]:
    """A batch in up to so many smaller ones of whole documents."""
    borders = np.linspace(0, len(batch.record_ids), min(parts, len(batch.record_ids)) + 1).astype(int).tolist()
    return [join(documents(batch)[a:b]) for a, b in pairwise(borders)]

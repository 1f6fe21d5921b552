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


def prove_compiled(
    model: nn.Module, compiled: nn.Module | None, batch: TokenBatch, *, device: str, tolerance: float = FP32
) -> Proof:
    """Loss and gradients of the compiled model, against the model itself. None: nothing is compiled here."""
    name, meaning = "compiled = eager", "Compiling makes the model faster and changes nothing else."
    if compiled is None:
        return Proof(name=name, meaning=meaning, compared="training does not compile this model", holds=None)
    with without_dropout(model):
        results = []
        for form in (model, compiled):
            total = summed_loss(form, batch, device=device).total
            total.backward()
            results.append((float(total.detach()), gradients(model)))
    (loss, expected), (compiled_loss, found) = results
    by_gradient, by_loss = gradient_difference(found, expected), abs(compiled_loss - loss) / loss
    return _proof(
        tolerance=tolerance,
        name=name,
        meaning=meaning,
        figure=max(by_gradient, by_loss),
        compared=f"one pass of each: loss {by_loss:.0e}, gradients {by_gradient:.0e} apart",
    )


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

"""The chunked head against torch's own cross-entropy over all logits at once, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model import head as head_module
from tunesmith.model.head import Head, cross_entropy

VARIANTS = {
    "plain": Head(linear=nn.Linear(8, 50, bias=False)),
    "bias": Head(linear=nn.Linear(8, 50)),
    "softcap": Head(linear=nn.Linear(8, 50, bias=False), softcap=1.5),
    "scale": Head(linear=nn.Linear(8, 50), scale=0.25),
    "scale and softcap": Head(linear=nn.Linear(8, 50), scale=3.0, softcap=2.0),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 positions in a chunk: several chunks, the last of them not full."""
    monkeypatch.setattr(head_module, "_CHUNK_NUMBERS", 1)


def draw(num: int = 70) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = (3 * torch.randn(num, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 50, (num,), generator=generator)
    return hidden, targets, torch.rand(num, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("head", VARIANTS.values(), ids=VARIANTS.keys())
def test_loss_and_every_gradient_are_those_of_the_full_logits(head: Head) -> None:
    head.linear.double()
    hidden, targets, weights = draw()
    inputs = [hidden, *head.linear.parameters()]
    scores = head.linear(hidden) * head.scale
    if head.softcap:
        scores = head.softcap * torch.tanh(scores / head.softcap)
    each = functional.cross_entropy(scores, targets, reduction="none")
    expected = torch.autograd.grad((each * weights).sum() / 7, inputs)
    total, nll = cross_entropy(hidden, head=head, targets_P=targets, weights_P=weights)
    torch.testing.assert_close(total, (each * weights).sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, each, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(total / 7, inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_a_frozen_head_is_given_no_gradient_and_a_second_backward_pass_is_refused() -> None:
    head = Head(linear=nn.Linear(8, 50, bias=False).double().requires_grad_(requires_grad=False))
    hidden, targets, weights = draw()
    total, _ = cross_entropy(hidden, head=head, targets_P=targets, weights_P=weights)
    total.backward(retain_graph=True)
    assert head.linear.weight.grad is None
    with pytest.raises(RuntimeError, match="twice"):
        total.backward()


def test_a_target_that_is_all_but_impossible_keeps_a_finite_loss() -> None:
    head = Head(linear=nn.Linear(8, 50, bias=False))
    nn.init.zeros_(head.linear.weight)
    head.linear.weight.data[7] = 100.0
    hidden = torch.ones(3, 8, requires_grad=True)
    total, _ = cross_entropy(hidden, head=head, targets_P=torch.tensor([1, 2, 7]), weights_P=torch.ones(3))
    assert float(total.detach()) == pytest.approx(1600.0)
    total.backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()

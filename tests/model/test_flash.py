"""The GPU's kernel is used only where a trial says that it agrees. Without a GPU a stand-in plays its part."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tunesmith.model.attention import _blocks_of_documents
from tunesmith.model.flash import agrees, flash_attention


def stand_in(
    query: Tensor, key: Tensor, value: Tensor, offsets: Sequence[int], window: int | None, *, bleed: bool = False, shift: int = 0
) -> Tensor:
    """Torch's own attention with one mask over the whole row."""
    places = torch.arange(len(query))
    documents = torch.searchsorted(torch.tensor(offsets), places, right=True)
    far = places[:, None] - places[None, :]
    visible = (far >= 0) & (far < (window or len(query)) + shift)
    if not bleed:
        visible &= documents[:, None] == documents[None, :]
    heads = [tensor.transpose(0, 1)[None] for tensor in (query, key, value)]
    return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=visible, enable_gqa=True)[0].transpose(0, 1)


def bleeding(query: Tensor, key: Tensor, value: Tensor, offsets: Sequence[int], window: int | None) -> Tensor:
    return stand_in(query, key, value, offsets, window, bleed=True)


def one_too_far(query: Tensor, key: Tensor, value: Tensor, offsets: Sequence[int], window: int | None) -> Tensor:
    return stand_in(query, key, value, offsets, window, shift=1)


def without_gradient(query: Tensor, key: Tensor, value: Tensor, offsets: Sequence[int], window: int | None) -> Tensor:
    return stand_in(query, key, value.detach(), offsets, window)


def is_taken(kernel: object, *, window: int | None) -> bool:
    query, key = torch.randn(5, 4, 16), torch.randn(5, 2, 16)
    return agrees(kernel, _blocks_of_documents, query=query, key=key, window=window)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [None, 7])
def test_a_kernel_that_agrees_is_taken_and_one_that_bleeds_or_cannot_run_is_not(window: int | None) -> None:
    assert is_taken(stand_in, window=window)
    assert not is_taken(bleeding, window=window)
    assert not is_taken(without_gradient, window=window)
    assert not is_taken(flash_attention, window=window)  # it has no CPU kernel


def test_a_window_that_reaches_one_token_too_far_is_noticed() -> None:
    assert not is_taken(one_too_far, window=7)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 7])
def test_the_gpus_kernel_agrees(window: int | None) -> None:
    query, key = (torch.randn(5, heads, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2))
    assert agrees(flash_attention, _blocks_of_documents, query=query, key=key, window=window)

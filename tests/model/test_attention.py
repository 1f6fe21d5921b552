"""Packed attention against a formula written out in float64, one query at a time (Vaswani et al. 2017, equation 1)."""

import pytest
import torch
from torch import Tensor

from tunesmith.model.attention import _layout, packed_attention
from tunesmith.model.layout import layout_of

# H query heads, K key heads, window, softcap
VARIANTS = {
    "plain": (4, 4, None, None),
    "grouped": (4, 2, None, None),
    "window": (4, 2, 5, None),
    "softcap": (4, 2, None, 1.5),
    "window and softcap": (4, 1, 3, 1.5),
}
# Longer than a block of queries, and longer than what is kept for the backward pass, in both of which the code takes other ways.
LENGTHS = {
    "mixed": [1, 61, 3, 3, 20, 2, 50],
    "one": [17],
    "equal": [8, 8, 8],
    "ones": [1, 1, 1],
    "blocks": [130, 5],
    "long": [300, 530],
}


def attend(q: Tensor, k: Tensor, v: Tensor, *, lengths: list[int], scaling: float | None = None, **options: object) -> Tensor:
    offsets = torch.tensor([0, *lengths]).cumsum(0).tolist()
    token = _layout.set(layout_of(offsets, device="cpu"))
    try:
        return packed_attention(torch.nn.Identity().eval(), q, k, v, None, scaling=scaling, **options)[0]  # type: ignore[arg-type]
    finally:
        _layout.reset(token)


def reference(
    q: Tensor, k: Tensor, v: Tensor, *, lengths: list[int], scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """Shape (1, T, H, D). For every query: softmax over the keys of its own document that it may see."""
    group = q.shape[1] // k.shape[1]
    rows: list[Tensor] = []
    start = 0
    for length in lengths:
        for i in range(start, start + length):
            first = start if window is None else max(start, i - window + 1)
            heads = []
            for h in range(q.shape[1]):
                scores = k[0, h // group, first : i + 1] @ q[0, h, i] * scaling
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                shares = torch.exp(scores - scores.max())
                heads.append((shares / shares.sum()) @ v[0, h // group, first : i + 1])
            rows.append(torch.stack(heads))
        start += length
    return torch.stack(rows)[None]


def draw(num_heads: int, num_kv_heads: int, num_tokens: int, *, width: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = [(1, heads, num_tokens, width) for heads in (num_heads, num_kv_heads, num_kv_heads)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_packed_attention_and_its_gradients_are_each_documents_own(
    variant: tuple[int, int, int, float], lengths: list[int]
) -> None:
    heads, kv_heads, window, softcap = variant
    inputs = draw(heads, kv_heads, sum(lengths))
    packed = attend(*inputs, lengths=lengths, scaling=0.4, sliding_window=window, softcap=softcap)
    expected = reference(*inputs, lengths=lengths, scaling=0.4, window=window, softcap=softcap)
    torch.testing.assert_close(packed, expected, rtol=0, atol=1e-12)
    upstream = torch.randn(packed.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(packed, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_without_a_scaling_scores_are_divided_by_the_root_of_the_head_width(softcap: float | None) -> None:
    q, k, v = draw(2, 2, 9, width=16)
    packed = attend(q, k, v, lengths=[4, 5], softcap=softcap)
    torch.testing.assert_close(
        packed, reference(q, k, v, lengths=[4, 5], scaling=0.25, window=None, softcap=softcap), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("window", [None, 4])
def test_a_documents_output_does_not_move_by_a_bit_when_another_document_changes(window: int | None) -> None:
    q, k, v = (tensor.detach() for tensor in draw(4, 2, 30))
    before = attend(q, k, v, lengths=[10, 20], sliding_window=window)
    for tensor in (q, k, v):
        tensor[:, :, 3] += 1.0
    after = attend(q, k, v, lengths=[10, 20], sliding_window=window)
    assert not torch.equal(before[:, :10], after[:, :10])
    assert torch.equal(before[:, 10:], after[:, 10:])


def test_the_bleed_check_notices_a_mask_that_lets_documents_see_each_other() -> None:
    q, k, v = (tensor.detach() for tensor in draw(4, 2, 30))
    before = attend(q, k, v, lengths=[30])
    for tensor in (q, k, v):
        tensor[:, :, 3] += 1.0
    assert not torch.equal(before[:, 10:], attend(q, k, v, lengths=[30])[:, 10:])


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 6])
def test_dropout_works_in_training_only_and_keeps_the_expectation(window: int | None, softcap: float | None) -> None:
    many = [tensor.detach().float().repeat(1, 1, 400, 1) for tensor in draw(4, 2, 12)]  # one document 400 times over
    module = torch.nn.Identity()
    token = _layout.set(layout_of(range(0, 12 * 400 + 1, 12), device="cpu"))

    def run() -> Tensor:
        output = packed_attention(module, *many, None, dropout=0.3, sliding_window=window, softcap=softcap)[0]
        return output.unflatten(1, (400, 12))[0]

    try:
        torch.manual_seed(0)
        drawn = run()
        module.eval()
        exact = run()[0]
        torch.testing.assert_close(run(), exact.expand(400, -1, -1, -1))
    finally:
        _layout.reset(token)
    assert not torch.equal(drawn[0], drawn[1])
    # The mean of 400 draws lies within 6 standard errors of the undropped output everywhere.
    assert ((drawn.mean(0) - exact).abs() <= 6 * drawn.std(0) / 400**0.5 + 1e-6).all()


def test_padding_is_at_most_a_quarter_of_a_bucket() -> None:
    lengths = [3, 100, 81, 80, 79, 26, 5, 25, 4, 64]
    layout = layout_of(torch.tensor([0, *lengths]).cumsum(0).tolist(), device="cpu")
    assert sum(int(bucket.is_token_nL.sum()) for bucket in layout.buckets) == sum(lengths)
    for bucket in layout.buckets:
        assert bucket.places_nL.numel() <= 1.25 * int(bucket.is_token_nL.sum())
    assert len(layout.buckets) < len(lengths)


def test_packed_attention_outside_a_layout_is_our_own_mistake() -> None:
    with pytest.raises(RuntimeError, match="outside"):
        packed_attention(torch.nn.Identity(), *draw(2, 2, 3), None)

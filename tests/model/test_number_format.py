"""Passes in bf16 through a model whose weights stay in fp32."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.train.test_loop import batch, counting, lora, tiny
from torch import nn

from tunesmith.model.forward import packs, segment_nll, summed_loss
from tunesmith.model.number_format import compute_activations_twice, compute_in_bf16, computes_in, number_format

ROWS = batch([counting(start, 12) for start in range(6)])
CPU = torch.device("cpu")


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    summed_loss(model, ROWS, device="cpu").total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_hidden_states_are_bf16_throughout_and_weights_are_as_before() -> None:
    model = tiny()
    before = {name: (id(parameter), parameter.clone()) for name, parameter in model.named_parameters()}
    compute_in_bf16(model)
    seen: set[torch.dtype] = set()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm) or type(module).__name__.endswith("RMSNorm"):
            module.register_forward_hook(lambda _m, given, out: seen.update({given[0].dtype, out.dtype}))
    summed_loss(model, ROWS, device="cpu").total.backward()
    assert seen == {torch.bfloat16}
    assert computes_in(model) == torch.bfloat16
    for name, parameter in model.named_parameters():
        assert (id(parameter), parameter.dtype) == (before[name][0], torch.float32)
        assert torch.equal(parameter, before[name][1])


def test_every_weight_has_a_gradient_in_fp32_near_that_of_fp32() -> None:
    """bf16 keeps 8 bits: single entries move by some hundredths, a whole gradient's direction hardly."""
    plain, cast = tiny(), tiny()
    compute_in_bf16(cast)
    expected, found = gradients(plain), gradients(cast)
    assert found.keys() == expected.keys() == dict(plain.named_parameters()).keys()
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        cosine = float(torch.nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0))
        assert cosine > 0.995, name
        assert float(found[name].norm() / gradient.norm()) == pytest.approx(1, abs=0.05), name


def test_an_embedding_keeps_fp32_though_the_head_that_shares_its_weight_does_not() -> None:
    model = tiny()
    compute_in_bf16(model)
    with number_format(model, CPU):
        assert model.get_input_embeddings().weight.dtype == torch.float32  # type: ignore[operator]
        assert model.get_output_embeddings().weight.dtype == torch.bfloat16  # type: ignore[operator]


def test_an_embedding_sums_the_gradients_of_many_equal_tokens_without_loss() -> None:
    """A thousand times the same token: in bf16 a sum stands still once it is 256 times as large as what is added."""
    many = batch([[5] * 1000])
    plain, cast = tiny(), tiny()
    cast.lm_head.weight = nn.Parameter(cast.lm_head.weight.detach().clone())  # untied: the embedding's gradient alone
    plain.lm_head.weight = nn.Parameter(plain.lm_head.weight.detach().clone())
    compute_in_bf16(cast)
    for model in (plain, cast):
        summed_loss(model, many, device="cpu").total.backward()
    ours, theirs = (model.get_input_embeddings().weight.grad[5] for model in (cast, plain))  # type: ignore[operator]
    assert float((ours - theirs).norm() / theirs.norm()) < 0.03


def test_likelihoods_are_near_those_of_fp32_and_the_passes_pack() -> None:
    plain, cast = tiny(), tiny()
    compute_in_bf16(cast)
    assert packs(cast, device="cpu")
    expected, found = (np.array([nll for nll, _ in segment_nll(model, ROWS, device="cpu")]) for model in (plain, cast))
    np.testing.assert_allclose(found, expected, rtol=5e-3)


@pytest.mark.parametrize(("make", "is_bf16"), [(tiny, False), (tiny, True), (lora, False)])
def test_activations_computed_twice_give_the_very_gradients(make: Callable[[], nn.Module], is_bf16: bool) -> None:
    """The second computation comes after the pass, when its layout of documents and its copies of the weights are gone."""
    once, twice = make(), make()
    compute_activations_twice(twice)
    for model in (once, twice):
        model.train()
        if is_bf16:
            compute_in_bf16(model)
    expected, found = gradients(once), gradients(twice)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0)


def test_a_model_whose_code_insists_on_fp32_is_left_to_autocast() -> None:
    class Insists(nn.Module):
        """As some models do: a part that multiplies by an fp32 matrix of its own."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.register_buffer("matrix", torch.eye(32))

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.inner(hidden) + nn.functional.linear(hidden, self.matrix) * 0

    model = tiny()
    model.model.layers[0].mlp = Insists(model.model.layers[0].mlp)  # type: ignore[union-attr, index]
    compute_in_bf16(model)
    with number_format(model, CPU):
        assert torch.is_autocast_enabled("cpu")
    assert gradients(model)


def test_weights_come_back_when_a_pass_fails() -> None:
    model = tiny()
    compute_in_bf16(model)
    with pytest.raises(RuntimeError, match="half way"), number_format(model, CPU):
        raise RuntimeError("half way")
    assert all(
        isinstance(p, nn.Parameter) and p.dtype == torch.float32
        for m in model.modules()
        for p in m._parameters.values()
        if p is not None
    )

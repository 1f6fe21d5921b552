"""Compiled layers against the same layers as they are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tunesmith.model import ScratchConfig, add_lora, new_model, summed_loss, this_machine
from tunesmith.model.compiled import can_compile, compile_layers
from tunesmith.model.lora import LoraLayer, lora_layers
from tunesmith.records import TokenBatch

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecations when it is loaded
SHAPE = ScratchConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, context=64)


def batch(*lengths: int) -> TokenBatch:
    tokens = (np.arange(sum(lengths)) * 7 % 290 + 3).astype(np.int32)
    return TokenBatch(
        tokens=tokens,
        targets=tokens[::-1].copy(),
        weights=np.ones(len(tokens), np.float32),
        offsets=np.cumsum([0, *lengths]).astype(np.int32),
        record_ids=tuple(map(str, lengths)),
    )


def adapted() -> nn.Module:
    model = new_model(SHAPE, special_tokens={"pad_token_id": 0}, machine=this_machine(), seed=0)
    for layer in lora_layers(add_lora(model, rank=4, alpha=8.0, seed=0)).values():
        nn.init.normal_(layer.lora_B, std=0.1)
    return model.train()


def loss_and_gradients(model: nn.Module, row: TokenBatch) -> list[Tensor]:
    loss = summed_loss(model, row, device="cpu").total
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="there is no C++ compiler (g++, or what CXX names)")
def test_compiled_layers_have_the_loss_and_gradients_of_plain_ones_and_can_be_undone() -> None:
    rows = [batch(9, 20), batch(5, 5, 5, 30)]
    model = adapted()
    expected = [loss_and_gradients(model, row) for row in rows]
    undo = compile_layers(model)
    for row, each in zip(rows, expected, strict=True):
        for ours, theirs in zip(loss_and_gradients(model, row), each, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    undo()
    again = loss_and_gradients(model, rows[0])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, expected[0], strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes no C++ compiler")
def test_the_compiler_is_the_one_that_torch_would_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not can_compile()
    for name, cxx in (("g++", None), ("clang++", None), ("clang++-18", "clang++-18")):
        (tmp_path / name).touch(mode=0o755)
        if cxx is not None:
            monkeypatch.setenv("CXX", cxx)
        assert can_compile() == (cxx is not None or (name == "clang++") == (sys.platform == "darwin"))
        (tmp_path / name).unlink()


def test_compiling_that_was_never_used_leaves_nothing_behind() -> None:
    plain = LoraLayer._together
    undo = compile_layers(adapted())
    assert LoraLayer._together is not plain
    undo()
    assert LoraLayer._together is plain

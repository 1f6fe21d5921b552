"""What a run needs is counted before it begins, and what does not fit is refused with what would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tunesmith.errors import OutOfMemory
from tunesmith.model import ScratchConfig, add_lora, new_model, save_model, summed_loss, this_machine
from tunesmith.model.number_format import compute_activations_twice
from tunesmith.records import TokenBatch
from tunesmith.train import footprint
from tunesmith.train.footprint import Need, find_room, measure_need, refuse_weights

SHAPE = ScratchConfig(
    vocab_size=300, hidden_size=64, intermediate_size=96, num_layers=4, num_heads=4, num_kv_heads=2, context=512
)
NEED = Need(num_tokens=256, fixed=1_000_000, per_token=10_000.0, per_token_checkpointed=2_000.0)
HEAD = footprint._HEAD_BYTES


def model() -> nn.Module:
    return new_model(SHAPE, special_tokens={"pad_token_id": 0}, machine=this_machine(), seed=0)


def batch(length: int) -> TokenBatch:
    tokens = (np.arange(length) % 250 + 3).astype(np.int32)
    offsets = np.array([0, length], np.int32)
    return TokenBatch(tokens=tokens, targets=tokens, weights=np.ones(length, np.float32), offsets=offsets, record_ids=("a",))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> object:
    def set_free(num_bytes: float) -> None:
        monkeypatch.setattr(footprint, "free_memory", lambda: (int(num_bytes), "ulimit -v"))

    return set_free


def test_what_a_pass_keeps_is_what_autograd_holds_between_forward_and_backward() -> None:
    need = measure_need(model(), batch(600), loss=summed_loss, device="cpu")
    layer_inputs = 4 * SHAPE.num_layers * SHAPE.hidden_size
    assert need.per_token > 3 * layer_inputs  # norms, projections, both halves of the feed-forward
    assert need.per_token < 60 * layer_inputs
    assert layer_inputs < need.per_token_checkpointed < need.per_token
    assert need.fixed == 16 * sum(parameter.numel() for parameter in model().parameters())


def test_an_adapters_gradients_and_moments_are_few() -> None:
    adapted = add_lora(model(), rank=4, alpha=8.0, seed=0)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert measure_need(adapted, batch(600), loss=summed_loss, device="cpu").fixed == 16 * trained


def test_gradient_checkpointing_keeps_less_as_counted() -> None:
    checkpointed = model()
    compute_activations_twice(checkpointed)
    plain = measure_need(model(), batch(600), loss=summed_loss, device="cpu").per_token
    assert measure_need(checkpointed, batch(600), loss=summed_loss, device="cpu").per_token < plain / 3


def test_counting_leaves_weights_and_gradients_alone() -> None:
    counted, fresh = model(), model()
    measure_need(counted, batch(600), loss=summed_loss, device="cpu")
    for ours, theirs in zip(counted.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.grad is None


def test_plenty_of_memory_changes_nothing(free: object) -> None:
    free(1e9)  # type: ignore[operator]
    room = find_room(NEED, pass_tokens=4096, longest=512, checkpointing="auto")
    assert (room.pass_tokens, room.is_checkpointed) == (4096, False)


def test_short_memory_first_makes_passes_smaller_and_then_computes_twice(free: object) -> None:
    free(HEAD + 1e6 + 1.2 * 10_000 * 1500)  # type: ignore[operator]
    room = find_room(NEED, pass_tokens=4096, longest=512, checkpointing="auto")
    assert (room.pass_tokens, room.is_checkpointed) == (1024, False)
    free(HEAD + 1e6 + 1.2 * 2_000 * 1500)  # type: ignore[operator]
    room = find_room(NEED, pass_tokens=4096, longest=512, checkpointing="auto")
    assert (room.pass_tokens, room.is_checkpointed) == (1024, True)
    with pytest.raises(OutOfMemory):
        find_room(NEED, pass_tokens=4096, longest=512, checkpointing="never")


def test_a_refusal_says_what_is_needed_what_is_free_and_what_would_fit(free: object) -> None:
    free(HEAD + 1e6 + 1.2 * 2_000 * 100)  # type: ignore[operator]
    with pytest.raises(OutOfMemory, match=r"needs 0\.07 GB .* 0\.07 GB are free \(ulimit -v\).*train\.max_length: 100;"):
        find_room(NEED, pass_tokens=4096, longest=512, checkpointing="auto")
    free(1e6)  # type: ignore[operator]
    with pytest.raises(OutOfMemory, match=r"train\.method: lora"):
        find_room(NEED, pass_tokens=4096, longest=512, checkpointing="auto")


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(free: object, tmp_path: Path) -> None:
    save_model(model(), tmp_path, base_path=None)
    numbers = sum(parameter.numel() for parameter in model().parameters())
    on_disk = (tmp_path / "model.safetensors").stat().st_size
    free(4 * numbers + on_disk)  # type: ignore[operator]
    refuse_weights(tmp_path, is_fp32=True)
    free(4 * numbers + on_disk - 1)  # type: ignore[operator]
    with pytest.raises(OutOfMemory, match="million parameters"):
        refuse_weights(tmp_path, is_fp32=True)
    refuse_weights(tmp_path, is_fp32=False)


_LIMITED = """
import resource
from tunesmith.model.machine import free_memory
import torch
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, 2_000_000_000))
free, what = free_memory()
assert what == "ulimit -v", what
torch.empty(int(free * 0.9), dtype=torch.uint8)
from tunesmith.errors import OutOfMemory
from tunesmith.train.compute import out_of_memory_in_words
try:
    with out_of_memory_in_words():
        torch.empty(int(free * 1.1), dtype=torch.uint8)
except OutOfMemory as error:
    assert "ran out of memory" in str(error)
else:
    raise SystemExit("more than what was called free could be had")
"""


def test_what_is_called_free_under_a_limit_can_be_had_and_no_more() -> None:
    subprocess.run([sys.executable, "-c", _LIMITED], check=True, timeout=120, cwd=Path(__file__).parent)

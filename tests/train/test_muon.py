"""Muon against its formula in numpy, and in the loop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.train.test_loop import NOISE, run, tiny
from torch import nn

from tunesmith.errors import Interrupted
from tunesmith.train.config import TrainConfig
from tunesmith.train.muon import Muon, orthogonalised, split_parameters

MUON = {"optimiser": {"name": "muon", "weight_decay": 0.1}, "method": "full", "rate": 1e-2}


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_singular_vectors_stay_and_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    u, _, vt = np.linalg.svd(random.normal(size=shape), full_matrices=False)
    values = np.geomspace(3.0, 0.02, len(vt))
    found = orthogonalised(torch.tensor((u * values) @ vt)[None])[0].numpy()
    inside = u.T @ found @ vt.T
    assert np.abs(inside - np.diag(np.diag(inside))).max() < 1e-9
    assert np.diag(inside).min() > 0.6
    assert np.diag(inside).max() < 1.3


def test_a_matrix_of_zeros_stays_one() -> None:
    assert torch.equal(orthogonalised(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


def test_two_steps_follow_the_formula() -> None:
    """Momentum, Nesterov's look ahead, size and decay, by hand in float64; the vector beside it follows torch's AdamW."""
    random = np.random.default_rng(1)
    start, gradients = random.normal(size=(6, 10)), random.normal(size=(2, 6, 10))
    matrix, vector = nn.Parameter(torch.tensor(start)), nn.Parameter(torch.ones(3))
    beside = nn.Parameter(torch.ones(3))
    optimiser = Muon([matrix], [{"params": [vector], "weight_decay": 0.0}], weight_decay=0.5)
    adamw = torch.optim.AdamW([beside], lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)
    expected, mean = start.copy(), np.zeros_like(start)
    for gradient in gradients:
        for group in optimiser.param_groups:
            group["lr"], group["betas"] = 0.1, (0.9, 0.95)
        matrix.grad, vector.grad, beside.grad = torch.tensor(gradient), torch.full((3,), 0.3), torch.full((3,), 0.3)
        optimiser.step()
        adamw.step()
        mean = 0.95 * mean + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * mean
        direction = orthogonalised(torch.tensor(ahead)[None])[0].numpy()
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * np.sqrt(10) * direction
    np.testing.assert_allclose(matrix.detach().numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(vector, beside)


def test_a_step_is_as_large_as_adamws() -> None:
    """A full-rank direction of n x m has the root mean square 1 / sqrt(max(n, m)), so the step's is 0.2 times the rate."""
    matrix = nn.Parameter(torch.zeros(40, 60, dtype=torch.float64))
    optimiser = Muon([matrix], [{"params": [nn.Parameter(torch.zeros(1))]}], weight_decay=0.0)
    matrix.grad = torch.randn(40, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    optimiser.param_groups[0]["lr"] = 0.01
    optimiser.step()
    assert float(matrix.detach().square().mean().sqrt()) == pytest.approx(0.01 * 0.2, rel=0.25)


def test_embeddings_head_and_norms_keep_adamw() -> None:
    model = tiny()
    names = {id(p): name for name, p in model.named_parameters()}
    inside, others = split_parameters(model, dict(model.named_parameters()))
    assert {names[id(p)].split(".")[-2] for p in inside} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert any("embed" in names[id(p)] for p in others)
    assert any("norm" in names[id(p)] for p in others)
    assert len(inside) + len(others) == len(names)


def test_it_learns_to_count_and_a_stopped_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, stopped = tiny(), tiny()
    result = run(whole, tmp_path / "whole", validation=NOISE, **MUON)  # type: ignore[arg-type]
    assert result.curve[-1].train_loss < 0.7 * result.first_loss
    with pytest.raises(Interrupted):
        run(stopped, tmp_path / "stopped", validation=NOISE, stop_at=7, **MUON)  # type: ignore[arg-type]
    again = tiny()
    run(again, tmp_path / "stopped", validation=NOISE, **MUON)  # type: ignore[arg-type]
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_adapters_and_muon_are_refused_together() -> None:
    with pytest.raises(ValidationError, match="`muon`, which needs method `full`; method is `lora`"):
        TrainConfig.model_validate({"optimiser": {"name": "muon"}})

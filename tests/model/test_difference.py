"""How far two saved models lie apart."""

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tunesmith.model.difference import weights_difference


def saved(folder: Path, **tensors: np.ndarray) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_difference_is_that_of_all_weights_as_one_vector(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(5, 7)).astype(np.float32) for _ in range(2))
    one, other = saved(tmp_path / "one", a=a, b=b), saved(tmp_path / "other", a=a + 0.125, b=b)
    before, after = np.concatenate([a.ravel(), b.ravel()]), np.concatenate([(a + 0.125).ravel(), b.ravel()])
    expected = np.linalg.norm(after.astype(np.float64) - before) / np.linalg.norm(before.astype(np.float64))
    assert weights_difference(one, other) == pytest.approx(expected, rel=1e-12)


def test_equal_weights_do_not_differ_and_other_tensors_cannot_be_compared(tmp_path: Path) -> None:
    ones, zeros = np.ones(3, dtype=np.float32), np.zeros(3, dtype=np.float32)
    one, same = saved(tmp_path / "one", w=ones), saved(tmp_path / "same", w=ones)
    assert weights_difference(one, same) == 0
    for place, other in enumerate(({"v": ones}, {"w": np.ones(4, dtype=np.float32)}, {"w": ones, "x": ones})):
        assert weights_difference(one, saved(tmp_path / str(place), **other)) == math.inf
    assert weights_difference(saved(tmp_path / "zeros", w=zeros), one) == math.inf

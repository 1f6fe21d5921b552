"""The same model as other tools read it: plain transformers and PEFT, with nothing of ours in between.

Proofs hold our own layers against this. Nothing here is used to train or to answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tunesmith.model.load import load_model
from tunesmith.model.machine import Machine
from tunesmith.model.quiet import quiet_libraries
from tunesmith.model.save import save_model

__all__ = ["load_with_peft", "own_attention", "peft_gradients", "saved_gradients"]


def load_with_peft(adapter: Path, *, base: Path, machine: Machine) -> nn.Module:
    """Load an adapter folder as PEFT does, its matrices ready to take gradients."""
    from peft import PeftModel

    loaded = load_model(base, machine=machine)
    with quiet_libraries():
        model: nn.Module = PeftModel.from_pretrained(loaded, str(adapter), is_trainable=True, local_files_only=True)
    return model.to(machine.device)


@contextmanager
def own_attention(model: Any, name: str) -> Iterator[None]:
    """Inside the block a model attends in one of transformers' own ways: `eager`, as its authors wrote it down, or `sdpa`.

    A model that does not know that way attends as before.
    """
    before = model.config._attn_implementation
    with quiet_libraries(), suppress(ValueError):  # what cannot be exchanged is its own already
        model.set_attn_implementation(name)
    try:
        yield
    finally:
        with quiet_libraries():
            model.set_attn_implementation(before)


def saved_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of an adapter under the names and in the layout in which its matrices are saved.

    They are written where the matrices stand, and saved. So the two can be compared whatever our layers look like inside.
    """
    with _gradients_as_weights(model), TemporaryDirectory() as folder:
        save_model(model, Path(folder), base_path=None)
        tensors: dict[str, Tensor] = load_file(Path(folder) / "adapter_model.safetensors")
        return tensors


def peft_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The same of a model that PEFT has loaded, through PEFT's own naming."""
    from peft import get_peft_model_state_dict

    with _gradients_as_weights(model), quiet_libraries():
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


@contextmanager
def _gradients_as_weights(model: nn.Module) -> Iterator[None]:
    kept = {parameter: parameter.data for parameter in model.parameters() if parameter.requires_grad}
    for parameter in kept:
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().clone()
    try:
        yield
    finally:
        for parameter, data in kept.items():
            parameter.data = data

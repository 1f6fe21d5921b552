"""An adapter becomes part of the weights it stands beside, and a whole model is written as plain transformers files.

W + s B A is computed in fp32, once, and rounded once to the number format in which the base is stored. Small updates are partly lost
in that rounding: a bf16 weight keeps 8 bits, and what changes it by less than half of the last one changes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
import torch
from torch import Tensor, nn

from tunesmith.errors import ModelError
from tunesmith.model.load import load_version
from tunesmith.model.lora import lora_layers
from tunesmith.model.machine import this_machine
from tunesmith.model.quiet import quiet_libraries

__all__ = ["FloatType", "Merged", "merge_adapter", "open_exact", "stored_type", "write_model"]

FloatType = Literal["f32", "f16", "bf16"]
"""How weights are stored."""
_DTYPES: dict[FloatType, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_HEADER: dict[str, FloatType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def open_exact(folder: Path, *, base: Path | None) -> nn.Module:
    """Load a version, or a base, in fp32 on the CPU, where exporting and its proofs compute.

    Args:
        folder: an adapter or a whole model.
        base: the base of an adapter.
    """
    machine = this_machine(precision="fp32")
    return load_version(folder, base=base, machine=replace(machine, device="cpu", dtype=torch.float32)).float()


class Merged(NamedTuple):
    """What merging has done."""

    num_layers: int
    update_lost: float
    """Norm of what rounding takes away or adds, over the norm of the whole update; 0 where nothing is rounded."""


@torch.no_grad()
def merge_adapter(model: nn.Module, *, stored_as: FloatType) -> Merged:
    """Put plain linear layers with W + s B A, in fp32, in the place of the adapted ones; the model itself is changed.

    Args:
        model: an adapted model in fp32.
        stored_as: the number format that the weights will be rounded to, to say what that costs. Nothing is rounded here.

    Raises:
        ModelError: the weights are not in fp32, where merging would round twice.
    """
    layers = lora_layers(model)
    lost = moved = 0.0
    for path, layer in layers.items():
        weight = layer.weight
        if weight.dtype != torch.float32:
            raise ModelError(f"{path}: a merge is computed in fp32, and this weight is {weight.dtype}")
        before = weight.clone()
        update = (layer.lora_B @ layer.lora_A) * layer.settings.scale
        weight += update
        error = _rounded(weight, stored_as) - weight if stored_as != "f32" else torch.zeros(())
        lost += float(error.square().sum())
        moved += float((weight - before).square().sum())
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer.base)
    return Merged(num_layers=len(layers), update_lost=(lost / moved) ** 0.5 if moved else 0.0)


def write_model(model: Any, folder: Path, *, stored_as: FloatType, stop_tokens: tuple[int, ...] = ()) -> None:
    """Round a model's weights once and write it as transformers does: config, generation config, safetensors.

    Args:
        model: a whole model in fp32; it is changed.
        folder: an existing folder.
        stored_as: the number format of the weights.
        stop_tokens: where an answer ends. Engines read them from generation_config.json, and one that is missing there is
            a model that never stops.

    Raises:
        ModelError: a weight is too large for f16.
    """
    if stored_as == "f16":
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not _rounded(tensor, "f16").isfinite().all():
                raise ModelError(f"{name}: a weight is larger than f16 can hold (65,504). Export with --type bf16 or f32")
    dtype = _DTYPES[stored_as]
    model.to(dtype)
    model.config.dtype = dtype
    with quiet_libraries():
        model.save_pretrained(folder)
    file = folder / "generation_config.json"
    if stop_tokens:
        settings: dict[str, Any] = orjson.loads(file.read_bytes()) if file.is_file() else {}
        settings["eos_token_id"] = list(stop_tokens)
        file.write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def stored_type(folder: Path) -> FloatType:
    """The number format in which most of a folder's weights are stored; f32 where it is none that we write."""
    from safetensors import safe_open

    sizes: Counter[FloatType] = Counter()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  not a mapping
                part = opened.get_slice(name)
                sizes[_HEADER.get(part.get_dtype(), "f32")] += max(1, _product(part.get_shape()))
    return sizes.most_common(1)[0][0] if sizes else "f32"


def _product(shape: list[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _rounded(tensor: Tensor, stored_as: FloatType) -> Tensor:
    return tensor.to(_DTYPES[stored_as]).to(tensor.dtype)

"""An adapter as a folder in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`. Needs no PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor, nn

from tunesmith.errors import ModelError
from tunesmith.model.finite import require_finite
from tunesmith.model.intake import check_adapter
from tunesmith.model.lora import AdapterSettings, adapt, linear_layers, lora_layers

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "AdapterFile", "read_adapter", "read_adapter_file", "write_adapter"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""PEFT wraps a model twice and names the tensors after that."""
_UNKNOWN_FEATURES = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "lora_bias")
"""Settings that change what an adapter computes, and that our layers do not know."""


def write_adapter(model: nn.Module, folder: Path, *, base_path: Path | None) -> None:
    """Write an adapted model's adapter; equal adapters give equal files.

    Args:
        model: a model that `add_lora` was called on.
        folder: an existing folder.
        base_path: where the base lies; PEFT looks there.
    """
    from safetensors.torch import save_file

    layers = lora_layers(model)
    first = next(iter(layers.values()))
    tensors = {}
    for path, layer in layers.items():
        for name in ("lora_A", "lora_B"):
            tensors[f"{_PREFIX}{path}.{name}.weight"] = getattr(layer, name).detach().cpu().contiguous()
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": str(base_path) if base_path else None,
        "bias": "none",
        "fan_in_fan_out": first.is_transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": first.settings.alpha,
        "lora_dropout": first.settings.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": first.settings.rank,
        "target_modules": _names(model),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": first.settings.rslora,
    }
    (folder / ADAPTER_CONFIG).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFile:
    """An adapter as it was saved, on no model yet."""

    settings: AdapterSettings
    by_name: Mapping[str, Tensor]
    """Tensors by the names that PEFT gives them."""

    @property
    def scale(self) -> float:
        return self.settings.scale

    @property
    def paths(self) -> frozenset[str]:
        """Layers of the model that it changes."""
        ending = ".lora_A.weight"
        return frozenset(name[len(_PREFIX) : -len(ending)] for name in self.by_name if name.endswith(ending))

    def tensors(self, path: str) -> tuple[Tensor, Tensor]:
        """A (rank, inputs) and B (outputs, rank) of a layer."""
        return self.by_name[f"{_PREFIX}{path}.lora_A.weight"], self.by_name[f"{_PREFIX}{path}.lora_B.weight"]


def read_adapter_file(folder: Path) -> AdapterFile:
    """Read a saved adapter.

    Raises:
        ModelError: the files cannot be read, or need what our layers do not know.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_adapter(folder, config=ADAPTER_CONFIG, weights=ADAPTER_WEIGHTS)
    try:
        config: dict[str, Any] = orjson.loads((folder / ADAPTER_CONFIG).read_bytes())
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        settings = AdapterSettings(
            rank=config["r"],
            alpha=config["lora_alpha"],
            dropout=config.get("lora_dropout", 0.0),
            rslora=config.get("use_rslora", False),
        )
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter cannot be read ({type(error).__name__}: {error})") from error
    unknown = [key for key in _UNKNOWN_FEATURES if config.get(key)]
    if config.get("peft_type") != "LORA" or unknown:
        raise ModelError(f"{folder}: {', '.join(unknown) or config.get('peft_type')} is not a feature of our adapters")
    halves = {name.replace(".lora_A.weight", "").replace(".lora_B.weight", "") for name in tensors}
    if missing := sorted(half for half in halves if {f"{half}.lora_A.weight", f"{half}.lora_B.weight"} - tensors.keys()):
        raise ModelError(f"{folder}: the adapter does not fit the model: tensors are missing ({missing[0]})")
    ranks = {tensors[f"{half}.lora_A.weight"].shape[:1] for half in halves}
    if ranks != {(settings.rank,)}:  # before layers of that rank are made: a rank of 10**12 would be asked of the memory
        raise ModelError(f"{folder}: the adapter does not fit the model: no layers of the rank {settings.rank} that it names")
    require_finite(tensors.items(), folder=folder)
    return AdapterFile(settings=settings, by_name=tensors)


def read_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """Put a saved adapter on its base; the model itself is changed and returned.

    Raises:
        ModelError: the files cannot be read, do not fit the model, or need what our layers do not know.
    """
    file = read_adapter_file(folder)
    tensors = file.by_name
    linear = linear_layers(model)
    paths = [path for path in linear if path in file.paths]
    adapt(model, {path: linear[path] for path in paths}, settings=file.settings)
    expected: dict[str, nn.Parameter] = {}
    for path, layer in lora_layers(model).items():
        expected |= {f"{_PREFIX}{path}.{name}.weight": getattr(layer, name) for name in ("lora_A", "lora_B")}
    wrong = [name for name, tensor in tensors.items() if name not in expected or expected[name].shape != tensor.shape]
    if wrong or len(tensors) != len(expected):
        raise ModelError(f"{folder}: the adapter does not fit the model: {', '.join(wrong[:3]) or 'tensors are missing'}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)
    return model


def _names(model: nn.Module) -> list[str]:
    """The shortest list by which PEFT finds our layers and no others: their last names, or else their paths."""
    layers = lora_layers(model)
    names = sorted({path.rpartition(".")[2] for path in layers})
    found = {path for path, module in model.named_modules() if path.rpartition(".")[2] in names}
    return names if found == set(layers) else sorted(layers)

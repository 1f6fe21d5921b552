"""Save what was trained, in the formats that other tools read: a PEFT adapter folder or a transformers model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import ModelError
from tunesmith.model.adapter_files import write_adapter
from tunesmith.model.lora import is_adapter
from tunesmith.model.quiet import quiet_libraries
from tunesmith.model.soft_prompt import has_soft_prompt, write_soft_prompt
from tunesmith.store.digest import canonical_json

__all__ = ["read_tensors", "read_weights_digest", "save_model"]


def save_model(model: Any, folder: Path, *, base_path: Path | None) -> None:
    """Write the adapter or soft prompt alone, or the whole model where there is neither, as safetensors and JSON.

    Args:
        model: what was trained.
        folder: an existing, empty folder.
        base_path: where an adapter's base lies; written into its configuration, where PEFT looks for it.
    """
    if has_soft_prompt(model):
        write_soft_prompt(model, folder, base_path=base_path)
        return
    if is_adapter(model):
        write_adapter(model, folder, base_path=base_path)
        return
    with quiet_libraries():
        model.save_pretrained(folder)


def read_weights_digest(folder: Path) -> str:
    """Sha256 over every tensor's name, type, shape and bytes, in the order of names.

    Independent of how tensors are spread over files and of any metadata, so equal weights have equal digests.

    Raises:
        ModelError: there are no weights, or a file cannot be read.
    """
    digest = hashlib.sha256()
    found = False
    for name, tensor in read_tensors(folder):
        found = True
        digest.update(canonical_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]))
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if not found:
        raise ModelError(f"{folder}: no weights in safetensors")
    return digest.hexdigest()


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a folder with its name, in the order of names; each is read when it is asked for.

    Raises:
        ModelError: a file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    homes: dict[str, Path] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                homes.update(dict.fromkeys(opened.keys(), file))
        for name in sorted(homes):
            with safe_open(homes[name], framework="pt") as opened:
                yield name, opened.get_tensor(name)
    except SafetensorError as error:
        raise ModelError(f"{folder}: weights cannot be read ({error})") from error

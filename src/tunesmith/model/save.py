"""Save what was trained, in the formats that other tools read: a PEFT adapter folder or a transformers model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor

from tunesmith.errors import ModelError
from tunesmith.model.quiet import quiet_libraries
from tunesmith.store.digest import canonical_json

__all__ = ["read_weights_digest", "save_model"]


def save_model(model: Any, folder: Path, *, base_path: Path | None) -> None:
    """Write the adapter alone (for a PEFT model) or the whole model, as safetensors and JSON.

    Args:
        model: what was trained.
        folder: an existing, empty folder.
        base_path: where an adapter's base lies; written into its configuration, where PEFT looks for it.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        with quiet_libraries():
            model.save_pretrained(folder)
        return
    with quiet_libraries():  # False: the embeddings are never trained, and PEFT would look on the hub whether they were
        model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT writes a card with nothing but blanks to fill in
    _settle_adapter_config(folder / "adapter_config.json", base_path=base_path)


def _settle_adapter_config(file: Path, *, base_path: Path | None) -> None:
    """PEFT writes sets in an order that changes from process to process; sorted, equal runs give equal files."""
    config: dict[str, Any] = orjson.loads(file.read_bytes())
    config = {key: sorted(value) if _is_list_of_names(value) else value for key, value in config.items()}
    config["base_model_name_or_path"] = str(base_path) if base_path else None
    file.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_weights_digest(folder: Path) -> str:
    """Sha256 over every tensor's name, type, shape and bytes, in the order of names.

    Independent of how tensors are spread over files and of any metadata, so equal weights have equal digests.

    Raises:
        ModelError: there are no weights, or a file cannot be read.
    """
    digest = hashlib.sha256()
    found = False
    for name, tensor in _tensors(folder):
        found = True
        digest.update(canonical_json([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]))
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if not found:
        raise ModelError(f"{folder}: no weights in safetensors")
    return digest.hexdigest()


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
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

"""The JSON files beside a tokenizer: what they say of special tokens, wherever the model's maker has put it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError

__all__ = ["NAMED_TOKENS", "read_configuration", "write_json"]

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_configuration(folder: Path) -> dict[str, Any]:
    """Read tokenizer_config.json, completed from the older special_tokens_map.json and the model's own configuration."""
    configuration = _read_json(folder / "tokenizer_config.json")
    older = _read_json(folder / "special_tokens_map.json")
    for key in NAMED_TOKENS:
        value = configuration.get(key) or older.get(key)
        configuration[key] = value["content"] if isinstance(value, dict) else value
    configuration = {key: value for key, value in configuration.items() if value is not None}
    if "stop_token_ids" not in configuration:
        named = _read_json(folder / "generation_config.json").get(
            "eos_token_id", _read_json(folder / "config.json").get("eos_token_id")
        )
        stops = [token for token in (named if isinstance(named, list) else [named]) if isinstance(token, int)]
        if stops:
            configuration["stop_token_ids"] = stops
            if "eos_token" not in configuration and (eos := _token_of(folder, stops[0])) is not None:
                configuration["eos_token"] = eos
    return configuration


def _token_of(folder: Path, wanted: int) -> str | None:
    definition = _read_json(folder / "tokenizer.json")
    added = {token["id"]: token["content"] for token in definition.get("added_tokens", [])}
    return added.get(wanted)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def write_json(path: Path, value: object) -> None:
    """Write JSON as it is read: in UTF-8, with line feeds, whatever the machine."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="")

"""Which files each kind of export consists of, and what the process that proves it must know."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.pipeline.versions import ADAPTER_CONFIG
from tunesmith.records import Record

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat

__all__ = ["Source", "Staged", "chat_of", "context_of", "default_type", "kept_rows", "proof_task", "write_files"]

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_CARD = "README.md"
_ADAPTER = (ADAPTER_CONFIG, "adapter_model.safetensors")
_GGUF, _ONNX = "model.gguf", "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is exported: a version, or the embedded base."""

    ref: str
    digest: str
    """Of the artefact, or of the base's files."""
    folder: Path
    base: Path | None
    """The base of an adapter."""
    facts: Mapping[str, Any]
    """What is stored beside a version's weights; empty for a base."""
    records: tuple[Record, ...]
    card: str = ""
    """A version's model card; empty for a base, which brings its own."""

    @property
    def is_adapter(self) -> bool:
        return (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def whole(self) -> Path:
        """The folder whose config.json describes the whole model."""
        return self.base if self.base is not None else self.folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """An export being written."""

    source: Source
    to: str
    type: str | None
    folder: Path
    notes: list[str] = field(default_factory=list)
    """What the user should know of it; writers add to it."""


def default_type(source: Source, *, to: str) -> str | None:
    """How weights are stored unless the user says otherwise; None for an adapter, which stays as it is."""
    if to == "merged":
        from tunesmith.model.merge import stored_type

        return stored_type(source.whole)
    return {"gguf": "f16", "onnx": "f32"}.get(to)


def chat_of(source: Source) -> ChatFormat:
    """The tokenizer and template of what is exported."""
    from tunesmith.data.chat import ChatFormat

    return ChatFormat.load(source.folder)


def context_of(source: Source) -> int:
    """The longest sequence that the model reads, in tokens."""
    from tunesmith.model.load import context_length

    return context_length(source.whole)


def kept_rows(source: Source) -> list[list[int]]:
    """The token rows whose likelihood was kept when training ended; none for a base."""
    from tunesmith.train.probe import read_probe

    probe = read_probe(source.folder)
    return [list(row) for row in probe.rows] if probe else []


def write_files(model: Any, staged: Staged) -> None:
    """Write an export's files into its folder.

    Args:
        model: the version in fp32, an adapter on its base or a whole model; it is changed.
        staged: where to, and as what.
    """
    _WRITERS[staged.to](model, staged)
    _write_card(staged)


def _write_adapter(_model: Any, staged: Staged) -> None:
    _copy(staged, *_ADAPTER, *_TOKENIZER)


def _write_merged(model: Any, staged: Staged) -> None:
    from tunesmith.model.merge import stored_type, write_model

    source = staged.source
    _merge(model, staged)
    if not source.is_adapter and stored_type(source.folder) == staged.type:  # its very files
        weights = [file.name for file in source.folder.glob("*.safetensors*")]
        _copy(staged, "config.json", "generation_config.json", *weights)
    else:
        settings = orjson.loads((source.folder / "tokenizer_config.json").read_bytes())
        write_model(model, staged.folder, stored_as=staged.type, stop_tokens=tuple(settings.get("stop_token_ids", ())))  # type: ignore[arg-type]
    _copy(staged, *_TOKENIZER)


def _write_gguf(model: Any, staged: Staged) -> None:
    from tunesmith.model.gguf_file import write_gguf

    _merge(model, staged)
    source = staged.source
    written = write_gguf(model, staged.folder / _GGUF, tokenizer=source.folder, stored_as=staged.type, name=source.ref)  # type: ignore[arg-type]
    staged.notes.append(f"architecture {written.architecture}, pre-tokenizer {written.pre}, {written.num_tensors} tensors")
    if written.in_f16:
        staged.notes.append(
            f"{len(written.in_f16)} tensors are f16: q8_0 rounds 32 weights of a row together, and theirs do not divide"
        )


def _write_onnx(model: Any, staged: Staged) -> None:
    from tunesmith.model.onnx_file import write_onnx

    _merge(model, staged)
    write_onnx(model, staged.folder / _ONNX, context=context_of(staged.source))
    staged.notes.append(
        "the logits of whole prompts, from 2 tokens on; it keeps no cache, so writing with it takes a pass for each token"
    )
    _copy(staged, *_TOKENIZER)


_WRITERS: Mapping[str, Callable[[Any, Staged], None]] = {
    "adapter": _write_adapter,
    "merged": _write_merged,
    "gguf": _write_gguf,
    "onnx": _write_onnx,
}


def _merge(model: Any, staged: Staged) -> None:
    """Put an adapter into the weights, and say what will be lost of it when they are rounded."""
    from tunesmith.model.merge import merge_adapter

    if not staged.source.is_adapter:
        return
    as_float = staged.type if staged.type in {"f16", "bf16"} else "f32"
    merged = merge_adapter(model, stored_as=as_float)  # type: ignore[arg-type]
    if as_float != "f32":
        share = merged.update_lost
        staged.notes.append(
            f"rounding to {as_float} costs {share:.1%} of the adapter's change ({merged.num_layers} matrices); --type f32 costs nothing"
        )


def _write_card(staged: Staged) -> None:
    if staged.source.card:
        (staged.folder / _CARD).write_text(staged.source.card, encoding="utf-8")
    else:
        _copy(staged, _CARD)


def _copy(staged: Staged, *names: str) -> None:
    """Copy those files that are there; never what is stored of the training, which holds rows and paths."""
    for name in names:
        if (staged.source.folder / name).is_file():
            shutil.copyfile(staged.source.folder / name, staged.folder / name)


def proof_task(staged: Staged) -> dict[str, Any]:
    """What the process that proves an export is told of it."""
    source = staged.source
    task: dict[str, Any] = {
        "to": staged.to,
        "type": staged.type,
        "export": str(staged.folder),
        "file": {"gguf": _GGUF, "onnx": _ONNX}.get(staged.to),
        "version": str(source.folder),
        "base": str(source.base) if source.base else None,
        "is_adapter": source.is_adapter,
    }
    if staged.to == "gguf":
        from tunesmith.model.gguf_kinds import read_vocabulary

        size = int(orjson.loads((source.whole / "config.json").read_bytes())["vocab_size"])
        vocabulary = read_vocabulary(source.folder, vocab_size=size)
        task |= {"template": vocabulary.chat_template, "named": dict(vocabulary.named)}
    return task

"""The command that hands a version to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.common import AsJson, Workspace, one_of, open_store, show

__all__ = ["export"]


def export(
    model: Annotated[str, typer.Argument(help="A version such as boutique@1, a name (its champion), or tunesmith/base.")],
    to: Annotated[str, typer.Option("--to", help="adapter (PEFT), merged (transformers), gguf (llama.cpp) or onnx.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make; it must be new or empty.")],
    stored_as: Annotated[
        str | None, typer.Option("--type", help="How weights are stored: f32, f16, bf16, or q8_0 (gguf alone).")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write a version as files for other tools, each proved by those tools before its folder appears."""
    from tunesmith.pipeline.exporting import ExportKind, ExportType
    from tunesmith.pipeline.exporting import export as export_model
    from tunesmith.terminal import sheet_screen, watching

    kind, numbers = one_of(to, ExportKind, option="--to"), one_of(stored_as, ExportType, option="--type")
    with watching(is_quiet=as_json) as watcher:
        done = export_model(model, to=kind, out=out, stored_as=numbers, store=open_store(workspace), watcher=watcher)
    show(done.as_json() if as_json else sheet_screen(done.sheet), as_json=as_json)

"""A model as an ONNX graph: token ids in, the logits of every position out. No cache, so it reads a prompt and does not write fast.

Needs the packages `onnx` and `onnxscript` to write, and `onnxruntime` to be proved.
"""

from __future__ import annotations

import contextlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.errors import MissingExtra, ModelError
from tunesmith.model.quiet import quiet_libraries

__all__ = ["require_onnx", "write_onnx"]

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MOST_ROWS = 1024


class _Prefill(nn.Module):
    """Ids (B, T) to logits (B, T, V)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


def require_onnx() -> None:
    """Check that the packages are there.

    Raises:
        MissingExtra: naming the extra.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise MissingExtra(
            f"--to onnx needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. "
            "Install it: pip install 'tunesmith[onnx]'"
        )


@torch.no_grad()
def write_onnx(model: Any, file: Path, *, context: int) -> None:
    """Write a whole model in fp32. Inputs: `input_ids` (B, T), int64. Outputs: `logits` (B, T, V), fp32.

    Args:
        model: a transformers model in fp32, no adapter on it.
        file: the file to be made; weights beyond what a protobuf holds lie beside it.
        context: the longest T.

    Raises:
        MissingExtra: a package is not installed.
        ModelError: torch cannot make a graph of this architecture.
    """
    require_onnx()
    batch, length = torch.export.Dim("batch", min=1, max=_MOST_ROWS), torch.export.Dim("length", min=2, max=context)
    # Both sizes of the example are above 1: torch takes a size of 1 for one that never changes.
    example = torch.zeros((2, min(8, context)), dtype=torch.long)
    try:
        with quiet_libraries(), contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                _Prefill(model.eval()),
                (example,),
                dynamo=True,
                verbose=False,
                dynamic_shapes={"input_ids": {0: batch, 1: length}},
                input_names=["input_ids"],
                output_names=["logits"],
            )
            assert program is not None
            program.save(file)
    except Exception as error:  # the exporter fails in as many kinds as there are operations
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"ONNX: torch cannot make a graph of this architecture ({type(error).__name__}: {reason}). "
            "Export it with --to merged or --to gguf"
        ) from error

"""What a model said of a few rows when its training ended, kept beside its weights.

A process that loads the weights later must say the same: then what was saved is what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import orjson
import torch
from torch import nn

from tunesmith.records import TokenBatch

__all__ = ["Probe", "log_likelihoods", "read_probe", "write_probe"]

_FILE = "probe.json"
_NUM_ROWS = 4
_NUM_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A few rows, and the log-likelihood (nats) of every token in them but the first."""

    rows: tuple[tuple[int, ...], ...]
    log_likelihoods: tuple[tuple[float, ...], ...]
    number_format: str
    """Of the model in memory, such as `float32`."""


@torch.no_grad()
def log_likelihoods(model: nn.Module, rows: Sequence[Sequence[int]], *, device: str) -> list[list[float]]:
    """Of each row's tokens but the first, by the model's plain forward pass."""
    was_training = model.training
    model.eval()
    result = []
    for row in rows:
        tokens_T = torch.tensor(row, device=device)
        logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0].float()
        chosen = logits_TV[:-1].log_softmax(dim=-1).gather(1, tokens_T[1:, None])[:, 0]
        result.append(chosen.tolist())
    model.train(was_training)
    return result


def write_probe(model: nn.Module, batches: Sequence[TokenBatch], folder: Path, *, device: str) -> None:
    """Ask the model about the first rows of some batches, and keep what it says in its folder."""
    spans = ((batch, a, b) for batch in batches for a, b in pairwise(batch.offsets.tolist()) if b - a > 1)
    rows = [batch.tokens[a : min(b, a + _NUM_TOKENS)].tolist() for batch, a, b in islice(spans, _NUM_ROWS)]
    content = {
        "number_format": str(next(model.parameters()).dtype).removeprefix("torch."),
        "rows": rows,
        "log_likelihoods": log_likelihoods(model, rows, device=device),
    }
    (folder / _FILE).write_bytes(orjson.dumps(content))


def read_probe(folder: Path) -> Probe | None:
    """What was kept; None for a base, and for a version from before such things were kept."""
    file = folder / _FILE
    if not file.is_file():
        return None
    content = orjson.loads(file.read_bytes())
    return Probe(
        rows=tuple(map(tuple, content["rows"])),
        log_likelihoods=tuple(map(tuple, content["log_likelihoods"])),
        number_format=content["number_format"],
    )

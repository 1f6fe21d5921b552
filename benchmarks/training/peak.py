"""The machine's measured matrix peak, in fp32 and bf16: on large squares, and at a model's own shapes.

`python peak.py shape.json` prints one JSON object, in TFLOP/s.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

_TOKENS = 1024
_SECONDS = 1.5
"""Each shape is repeated for so long, and its best time taken: what the machine can do when nothing disturbs it."""


def main() -> None:
    """Measure and print."""
    shape = json.loads(Path(sys.argv[1]).read_text())
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    layer = [(hidden, hidden)] * 2 + [(hidden, kv)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]
    result = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        seconds = {size: best_seconds(_TOKENS, *size, dtype=dtype) for size in set(layer)}
        own = sum(2 * _TOKENS * m * n for m, n in layer) / sum(seconds[size] for size in layer)
        square = 2 * 2048**3 / best_seconds(2048, 2048, 2048, dtype=dtype)
        result[name] = {"own_shapes": own / 1e12, "square": square / 1e12}
    print(json.dumps(result))


def best_seconds(rows: int, inputs: int, outputs: int, *, dtype: torch.dtype) -> float:
    """Fastest product of (rows, inputs) with the transpose of (outputs, inputs), as a linear layer computes it."""
    left, right = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    durations = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(durations) < 3:
        start = time.perf_counter()
        left @ right.T
        durations.append(time.perf_counter() - start)
    return min(durations)


if __name__ == "__main__":
    main()

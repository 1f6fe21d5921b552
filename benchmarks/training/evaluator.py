"""Held-out loss of what a side has saved, by plain transformers and PEFT: one row at a time, no padding, no code of any side.

`python evaluator.py orders.json` prints one JSON object.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from torch.nn import functional


def main() -> None:
    """Load base or saved folder, and score the held-out rows."""
    orders = json.loads(Path(sys.argv[1]).read_text())
    rows = json.loads(Path(orders["held_out"]).read_text())
    nll = count = 0.0
    model = load(Path(orders["base"]), Path(orders["saved"]))
    for row in rows:
        learned = torch.tensor(row["supervised"]) | (orders["learn"] == "everything")
        total, number = score(model, torch.tensor(row["tokens"]), learned)
        nll, count = nll + total, count + number
    assert math.isfinite(nll)
    print(json.dumps({"held_out": nll / count, "num_targets": int(count)}))


def load(base: Path, saved: Path) -> torch.nn.Module:
    """The whole model, or the base with the adapter on it; in fp32."""
    from transformers import AutoModelForCausalLM

    if not (saved / "adapter_config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(saved)).eval()


@torch.no_grad()
def score(model: torch.nn.Module, tokens: torch.Tensor, learned: torch.Tensor) -> tuple[float, int]:
    """Nats over the learned tokens of one row, and how many there are; the first token is predicted by nothing."""
    logits = model(input_ids=tokens[None]).logits[0, :-1][learned[1:]]
    nll = functional.cross_entropy(logits.double(), tokens[1:][learned[1:]], reduction="sum")
    return float(nll), int(learned[1:].sum())


if __name__ == "__main__":
    main()

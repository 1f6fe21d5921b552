"""The model that every side starts from: random weights from a fixed seed, in fp32, as every loader knows them.

`python model.py shape.json folder`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main() -> None:
    """Draw and save."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **json.loads(Path(sys.argv[1]).read_text()),
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(sys.argv[2])


if __name__ == "__main__":
    main()

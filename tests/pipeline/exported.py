"""Small versions of several architectures, registered as a run would register them, and ready to be exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.data.chat import ChatFormat
from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.model.base import open_base
from tunesmith.model.lora import add_lora
from tunesmith.model.save import read_weights_digest, save_model
from tunesmith.records import ModelVersion
from tunesmith.store import Store

WORDS = "the dress costs seven euros and the coat costs nineteen; what does it cost? café naïve 12 345 it's they've\n"
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "vocab_size": 320,
    "tie_word_embeddings": True,
}


def make_base(folder: Path, *, kind: str = "llama", dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Path:
    """A model with random weights and a tokenizer of its own."""
    train_tokenizer([WORDS] * 8, vocab_size=310, folder=folder)
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **(SHAPE | changes), bos_token_id=None, eos_token_id=[0, 2], pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # vectors too: a lost norm or bias must show
            parameter.mul_(3) if parameter.dim() > 1 else parameter.add_(torch.randn_like(parameter) * 0.3)
            assert parameter.abs().sum() > 0, name
    model.save_pretrained(folder)
    return folder


def make_version(store: Store, *, base: Path, method: str = "lora") -> str:
    """Register what training would leave: an adapter that does something, or a whole model."""
    opened = open_base(str(base), folder=Path("/"), cache=Path("/"))
    chat = ChatFormat.load(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(2)
    if method == "lora":
        model = add_lora(model, rank=4, alpha=8.0, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.05)
            elif method == "full" and parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) * 0.01)
    with store.artefacts.publish("model") as staging:
        save_model(model, staging.path, base_path=base)
        chat.save(staging.path)
        digest = read_weights_digest(staging.path)
        facts = {
            "name": "tiny",
            "base": str(base),
            "base_files": str(base),
            "base_digest": opened.digest,
            "snapshot": "0" * 64,
            "weights_digest": digest,
            "chat_digest": chat.digest,
            "max_length": 128,
            "train": {"method": method},
            "curve": [],
            "best_step": None,
            "num_steps": 1,
            "learning_rate": 1e-3,
            "seed": 0,
            "stopped_early": False,
        }
        (staging.path / "tunesmith.json").write_bytes(orjson.dumps(facts))
    version = ModelVersion(
        name="tiny",
        number=0,
        run=digest,
        artefact=staging.artefact.digest,
        weights_digest=digest,
        chat_digest=chat.digest,
        base_digest=opened.digest,
        created_at="2026-01-01T00:00:00+00:00",
        metrics={},
        reports=(),
    )
    return store.ledger.register(version).ref

"""Put a version of `recipes/base.yaml` into the package: weights in bf16, tokenizer, template, and a model card.

tunesmith run recipes/base.yaml
python recipes/embed_base.py base
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml
from safetensors.torch import load_file, save_file

from tunesmith.evaluate import from_json
from tunesmith.model import read_weights_digest
from tunesmith.store import Store, find_workspace

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "src" / "tunesmith" / "model" / "embedded"


def main() -> None:
    """Copy one version out of the workspace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as base or base@2")
    parser.add_argument("--workspace", type=Path)
    chosen = parser.parse_args()
    store = Store(find_workspace(chosen.workspace))
    version = store.ledger.version(chosen.version)
    source = store.artefacts.get(version.artefact).path
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix in {".json", ".jinja"} and file.name not in {"tunesmith.json", "manifest.json"}:
            shutil.copyfile(file, TARGET / file.name)
    tensors = load_file(source / "model.safetensors")
    save_file(
        {name: t.to(torch.bfloat16) for name, t in tensors.items()}, TARGET / "model.safetensors", metadata={"format": "pt"}
    )
    settings = orjson.loads((TARGET / "config.json").read_bytes())
    (TARGET / "config.json").write_bytes(orjson.dumps(settings | {"dtype": "bfloat16"}, option=orjson.OPT_INDENT_2))
    facts = orjson.loads((source / "tunesmith.json").read_bytes())
    report = from_json((store.artefacts.get(version.reports[0]).path / "report.json").read_bytes())
    snapshot = orjson.loads((store.artefacts.get(facts["snapshot"]).path / "snapshot.json").read_bytes())
    num_parameters = sum(t.numel() for t in tensors.values())
    scores = report.scores["tuned"]
    (TARGET / "README.md").write_text(card(facts, settings, snapshot, num_parameters, scores, read_weights_digest(TARGET)))


def card(
    facts: dict[str, Any], settings: dict[str, Any], snapshot: dict[str, Any], num_parameters: int, scores: Any, digest: str
) -> str:
    """The model card, in the hub's format."""
    recipe = yaml.safe_load((ROOT / "recipes" / "base.yaml").read_text())
    sources = "\n".join(
        f"| {Path(s['path']).name} | {s.get('domain', '')} | {s.get('limit', 'all')} | {s['licence']} |"
        for s in recipe["data"]["sources"]
    )
    train = facts["train"]
    tokens = facts["num_steps"] * train["batch_tokens"]
    curve = "\n".join(f"| {step} | {loss:.3f} | {held_out:.3f} |" for step, loss, held_out in facts["curve"])
    bits = scores["bits_per_byte"]
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# tunesmith/base, version 0

A Llama of {num_parameters / 1e6:.2f} million parameters with its own byte-level BPE tokenizer ({settings["vocab_size"]:,} tokens), made
from nothing by `tunesmith run recipes/base.yaml`. It is there so that a newcomer can fine-tune something real within minutes, without a
network, a GPU or an account. It is a placeholder: untuned, it writes hardly more than frequent words and digits.

| | |
|---|---|
| shape | {settings["num_hidden_layers"]} layers, width {settings["hidden_size"]}, {settings["num_attention_heads"]} heads, \
{settings["num_key_value_heads"]} key/value heads, context {settings["max_position_embeddings"]} tokens, tied embeddings |
| training | {facts["num_steps"]:,} steps of at most {train["batch_tokens"]:,} tokens: at most {tokens / 1e6:.1f} M tokens, peak learning \
rate {facts["learning_rate"]:.1e}, fp32 on two CPU cores |
| held-out | {bits.value:.3f} bits per byte [{bits.low:.3f}, {bits.high:.3f}] on {snapshot["splits"]["test"]} rows that it never saw; \
perplexity {scores["perplexity"].value:.1f} per token |
| weights | bf16, digest `{digest}` |

## Data

| file | domain | rows | licence |
|---|---|---|---|
{sources}

{snapshot["num_read"]:,} rows read, {sum(snapshot["splits"].values()):,} kept. Nothing of the example boutique is in it.

## Curve

| step | training loss | validation loss |
|---|---|---|
{curve}

## What it cannot do

Answer questions of fact, reason, translate, follow instructions reliably, or write anything but English. The stories and books among
its data are old: they carry the views of their time on women, peoples and classes, and so may it. Do not use it untuned.
"""


if __name__ == "__main__":
    main()

"""Put what `make.py` has made into the package: weights in bf16, tokenizer, template, and a model card of measured figures.

python recipes/base/embed.py --workspace W
python -m benchmarks.base --workspace W --json > measured.json
python recipes/base/embed.py --workspace W --measured measured.json
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

from tunesmith.model import read_weights_digest
from tunesmith.store import Store

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / "src" / "tunesmith" / "model" / "embedded"
STAGES = ("pretrain", "midtrain")
_NOT_COPIED = {"tunesmith.json", "manifest.json", "probe.json"}


def main() -> None:
    """Copy the last stage out of the workspace, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--measured", type=Path, help="what `benchmarks.base --json` printed")
    chosen = parser.parse_args()
    store = Store(chosen.workspace)
    sittings = {stage: [store.artefacts.get(v.artefact).path for v in store.ledger.versions(f"base-{stage}")] for stage in STAGES}
    sittings["midtrain"] = sittings["midtrain"][-1:]  # the first stage goes on from itself, the second begins anew
    tensors = copied(sittings["midtrain"][-1])
    facts = {
        "name": "tunesmith/base",
        "version": 1,
        "digest": read_weights_digest(TARGET),
        "num_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "shape": _shape(),
        "stages": [stage_facts(stage, sittings[stage], store=store) for stage in STAGES],
        "measured": orjson.loads(chosen.measured.read_bytes()) if chosen.measured else None,
    }
    (TARGET / "card.json").write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
    (TARGET / "README.md").write_text(card(facts), encoding="utf-8")


def copied(source: Path) -> dict[str, torch.Tensor]:
    """Put a version's files into the package, its weights in bf16."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix in {".json", ".jinja"} and file.name not in _NOT_COPIED:
            shutil.copyfile(file, TARGET / file.name)
    tensors: dict[str, torch.Tensor] = load_file(source / "model.safetensors")
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    save_file(halved, TARGET / "model.safetensors", metadata={"format": "pt"})
    (TARGET / "model.safetensors").chmod(0o644)
    settings = orjson.loads((TARGET / "config.json").read_bytes())
    (TARGET / "config.json").write_bytes(orjson.dumps(settings | {"dtype": "bfloat16"}, option=orjson.OPT_INDENT_2))
    return halved


def stage_facts(stage: str, sittings: list[Path], *, store: Store) -> dict[str, Any]:
    """What a stage read, for how long, and how it went: all sittings as one."""
    told = [orjson.loads((folder / "tunesmith.json").read_bytes()) for folder in sittings]
    facts = told[-1]
    snapshot = orjson.loads((store.artefacts.get(facts["snapshot"]).path / "snapshot.json").read_bytes())
    recipe = yaml.safe_load((HERE / f"{stage}.yaml").read_text())
    curve: list[list[float | None]] = []
    for one in told:
        before = curve[-1][0] if curve else 0
        curve += [[before + step, loss, held_out] for step, loss, held_out in one["curve"]]
    return {
        "stage": stage,
        "num_sittings": len(told),
        "num_steps": sum(one["num_steps"] for one in told),
        "num_tokens": sum(each["tokens"] for one in told for each in one["sources"].values()),
        "batch_tokens": facts["train"]["batch_tokens"],
        "max_length": facts["train"]["max_length"],
        "learning_rate": facts["learning_rate"],
        "optimiser": facts["train"]["optimiser"]["name"],
        "schedule": facts["train"]["schedule"],
        "num_rows": {"read": snapshot["num_read"], "kept": sum(snapshot["splits"].values())},
        "curve": curve,
        "sources": [
            {"file": Path(s["path"]).name, "domain": s["domain"], "rows": s.get("limit", "all"), "licence": s["licence"]}
            for s in recipe["data"]["sources"]
        ],
    }


def _shape() -> dict[str, int]:
    settings = orjson.loads((TARGET / "config.json").read_bytes())
    names = {
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "intermediate_size": "intermediate_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "num_kv_heads": "num_key_value_heads",
        "context": "max_position_embeddings",
    }
    return {ours: settings[theirs] for ours, theirs in names.items()}


def card(facts: dict[str, Any]) -> str:
    """The model card, in the hub's format."""
    shape = facts["shape"]
    stages = "\n\n".join(_stage(stage) for stage in facts["stages"])
    measured = _measured(facts["measured"]) if facts["measured"] else "Not measured."
    return f"""---
license: apache-2.0
language:
- en
- fr
- de
library_name: transformers
pipeline_tag: text-generation
---

# tunesmith/base, version {facts["version"]}

A Llama of {facts["num_parameters"] / 1e6:.2f} million parameters with its own byte-level BPE tokenizer, made from nothing on two CPU cores
by `python recipes/base/make.py`. It is there so that a newcomer can fine-tune something real within minutes, without a network, a GPU or an
account. It is a base to be tuned and no assistant: what it says of the world is mostly wrong.

| | |
|---|---|
| shape | {shape["num_layers"]} layers, width {shape["hidden_size"]}, {shape["num_heads"]} heads, {shape["num_kv_heads"]} key/value heads, \
context {shape["context"]:,} tokens, {shape["vocab_size"]:,} tokens of vocabulary, tied embeddings |
| template | ChatML; `<\\|im_start\\|>` and `<\\|im_end\\|>` are single tokens, and a turn ends with the second |
| weights | bf16, digest `{facts["digest"]}` |

## Held-out text

{measured}

## How it was made

{stages}

To make it again: `python recipes/base/make.py --workspace W`, then `python recipes/base/embed.py --workspace W`. The data sets lie beside
the repository and are no part of it. Nothing of the example boutique is in them.

## What it cannot do

Answer questions of fact, reason, count, or write a page that holds together. It translates no sentence that it could not nearly have
learned by heart. It knows no language but English, a little French and German.

## Biases

The books and tales among its data are from before 1930 and carry the views of their time on women, peoples and classes. The conversations
are with shops, banks and booking desks of the United States; much of them was written by other models. It may repeat any of this.

## Licence

The weights have the licence of the package, Apache-2.0. Whether weights are bound by the licences of the texts they were made from is not
settled; the strictest among these is CC-BY-SA-4.0.
"""


def _stage(stage: dict[str, Any]) -> str:
    title = {"pretrain": "First stage: language", "midtrain": "Second stage: conversations and instructions"}[stage["stage"]]
    sources = "\n".join(f"| {s['file']} | {s['domain']} | {s['rows']} | {s['licence']} |" for s in stage["sources"])
    curve = "\n".join(
        f"| {step} | {loss:.3f} | {'' if held_out is None else f'{held_out:.3f}'} |" for step, loss, held_out in stage["curve"]
    )
    tokens = stage["num_tokens"]
    sittings = (
        f", in {stage['num_sittings']} sittings that each went on from the last in another order"
        if stage["num_sittings"] > 1
        else ""
    )
    return f"""### {title}

{stage["num_steps"]:,} steps of at most {stage["batch_tokens"]:,} tokens, {tokens / 1e6:.1f} M tokens in all{sittings}, in sequences \
of up to {stage["max_length"]:,}; optimiser {stage["optimiser"]}, peak rate {stage["learning_rate"]:.1e}, \
schedule {stage["schedule"]}, bf16. \
{stage["num_rows"]["read"]:,} rows read, {stage["num_rows"]["kept"]:,} kept.

| file | domain | rows | licence |
|---|---|---|---|
{sources}

| step | training loss | validation loss |
|---|---|---|
{curve}"""


def _measured(found: dict[str, Any]) -> str:
    stories = found["tinystories"]
    return f"""Bits per byte, which do not depend on the tokenizer (`python -m benchmarks.base`):

| | this model | beside it |
|---|---|---|
| WikiText-2, validation | {found["wikitext2"]:.3f} | |
| its own mixture, {found["held_out"]["num_rows"]:,} rows that neither stage read | {found["held_out"]["bits_per_byte"]:.3f} | |
| TinyStories, {stories["num_rows"]} held-out stories | {stories["bits_per_byte"]:.3f} | stories260K (0.26 M parameters, stories alone): \
{stories["stories260K"]:.3f} |"""


if __name__ == "__main__":
    main()

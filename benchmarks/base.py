"""How well the embedded base predicts text it never saw, in bits per byte, which do not depend on the tokenizer.

    python -m benchmarks.base --workspace W [--model FOLDER] [--json]

Measured on the validation part of WikiText-2, on held-out rows of each stage's own mixture that neither stage has read, and on held-out
TinyStories, there beside stories260K, a model of 0.26 M parameters trained on billions of tokens of nothing else.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer

from benchmarks.base_scaling import ROOT, bits_per_byte, wikitext
from tunesmith.data import freeze, load_split
from tunesmith.data.chat import ChatFormat
from tunesmith.model import load_model, segment_nll, this_machine
from tunesmith.pipeline import load_recipe
from tunesmith.records import Record, Role, TokenBatch
from tunesmith.store import Store

EMBEDDED = ROOT / "src" / "tunesmith" / "model" / "embedded"
STORIES260K = ROOT.parent / "shared" / "data" / "weights" / "stories260K"
RECIPES = ROOT / "recipes" / "base"
LONGEST_STORY = 500
"""Tokens of stories260K, whose context is 512."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, help="where the base's rows are frozen, or will be")
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    store = Store(chosen.workspace)
    second = unseen_rows(store, of="midtrain", beside="pretrain")
    found = measure(chosen.model, held_out=unseen_rows(store, of="pretrain", beside="midtrain"), second=second)
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if chosen.json else _in_words(found))


def measure(folder: Path, *, held_out: Sequence[Record], second: Sequence[Record]) -> dict[str, Any]:
    """Bits per byte of a model folder on text, on rows of the first stage and on rows of the second."""
    machine = this_machine()
    model, chat = load_model(folder, machine=machine), ChatFormat.load(folder)
    stories = [row for row in held_out if row.source.path.endswith("tinystories.jsonl.gz")]
    ours = [(row.text or "", bits_per_byte(model, [row], chat=chat, device=machine.device)) for row in stories]
    theirs = list(of_stories260k([text for text, _ in ours]))
    both = [(text, mine, its) for (text, mine), its in zip(ours, theirs, strict=True) if its is not None]
    num_bytes = sum(len(text.encode()) for text, _, _ in both)
    return {
        "model": folder.name,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "wikitext2": bits_per_byte(model, [wikitext()], chat=chat, device=machine.device),
        "held_out": {
            "num_rows": len(held_out),
            "bits_per_byte": bits_per_byte(model, held_out, chat=chat, device=machine.device),
        },
        "held_out_second": {
            "num_rows": len(second),
            "bits_per_byte": bits_per_byte(model, second, chat=chat, device=machine.device),
        },
        "tinystories": {
            "num_rows": len(both),
            "bits_per_byte": sum(len(text.encode()) * mine for text, mine, _ in both) / num_bytes,
            "stories260K": sum(len(text.encode()) * its for text, _, its in both) / num_bytes,
        },
    }


def unseen_rows(store: Store, *, of: str, beside: str) -> list[Record]:
    """Test rows of one stage of which the other has read nothing either, a passage inside a question included."""
    seen = "\n".join(text for row in _rows(store, beside, "train", "validation") for text in _texts(row))
    return [row for row in _rows(store, of, "test") if not any(text in seen for text in _texts(row))]


def _rows(store: Store, stage: str, *splits: str) -> Iterator[Record]:
    loaded = load_recipe(RECIPES / f"{stage}.yaml")
    snapshot = freeze(loaded.recipe.data, folder=loaded.folder, store=store)
    for split in splits:
        yield from load_split(store, snapshot, split=split)


def of_stories260k(texts: Sequence[str]) -> Iterator[float | None]:
    """Bits per byte of each text, by stories260K and its own tokenizer; None where the text is longer than its context."""
    with tempfile.TemporaryDirectory() as place:  # its folder holds the model in a second form, which our loader refuses
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(STORIES260K / name, Path(place) / name)
        model = load_model(Path(place), machine=this_machine())
    tokenizer = Tokenizer.from_file(str(STORIES260K / "tokenizer.json"))
    for text in texts:
        ids = [1, *(i for i in tokenizer.encode(text, add_special_tokens=False).ids if i != 1)]
        if len(ids) > LONGEST_STORY:
            yield None
            continue
        ((nats, _),) = segment_nll(model, _one(ids), device="cpu")
        yield nats / math.log(2) / len(text.encode())


def _one(ids: Sequence[int]) -> TokenBatch:
    import numpy as np

    return TokenBatch(
        tokens=np.array(ids, np.int32),
        targets=np.array([*ids[1:], -100], np.int32),
        weights=np.array([1.0] * (len(ids) - 1) + [0.0], np.float32),
        offsets=np.array([0, len(ids)], np.int32),
        record_ids=("text",),
    )


def _texts(row: Record) -> list[str]:
    return [row.text] if row.text is not None else [message.content for message in row.messages if message.role is Role.ASSISTANT]


def _in_words(found: dict[str, Any]) -> str:
    stories = found["tinystories"]
    parts = {"held-out, first stage": "held_out", "held-out, second stage": "held_out_second"}
    return "\n".join(
        [
            f"{found['model']}: {found['num_parameters'] / 1e6:.2f} M parameters, bits per byte",
            f"  WikiText-2, validation      {found['wikitext2']:.3f}",
            *(
                f"  {name:<28}{found[part]['bits_per_byte']:.3f}  ({found[part]['num_rows']:,} rows)"
                for name, part in parts.items()
            ),
            f"  held-out TinyStories        {stories['bits_per_byte']:.3f}  (stories260K: {stories['stories260K']:.3f})",
        ]
    )


if __name__ == "__main__":
    main()

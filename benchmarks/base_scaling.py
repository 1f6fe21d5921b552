"""Small models from scratch on the embedded base's own rows: which shape, vocabulary and optimiser learn most from the same tokens.

    python -m benchmarks.base_scaling --workspace W --tokens 1000000 muon:320x7 muon:512x3 adamw:320x7

A run is `OPTIMISER:WIDTHxLAYERS[xVOCABULARY][@RATE][/BATCH]`; `gpt2` is AdamW as GPT-2 had it: 6e-4 held constant, decay 0.1. The rows
are those of `recipes/base/pretrain.yaml`. Printed are bits per byte of held-out rows of the mixture and of the validation part of
WikiText-2, and tokens a second. `--keep` writes the last one's model, for `python -m benchmarks.base --model`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.data import DataConfig, freeze, load_split
from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import encode, pack
from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.model import ScratchConfig, segment_nll
from tunesmith.model.save import save_model
from tunesmith.pipeline import load_recipe
from tunesmith.records import Record, Source
from tunesmith.store import Store
from tunesmith.train import Job
from tunesmith.train.config import TrainConfig
from tunesmith.train.loop import Step, fit
from tunesmith.train.preparation import prepare

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "base" / "pretrain.yaml"
WIKITEXT = ROOT.parent / "shared" / "data" / "pretrain" / "wikitext2_valid_test.jsonl.gz"
HELD_OUT_ROWS, WIKITEXT_CHARACTERS = 400, 120_000
_RUN = re.compile(
    r"(?P<optimiser>muon|adamw|gpt2):(?P<width>\d+)x(?P<layers>\d+)(x(?P<vocabulary>\d+))?(@(?P<rate>[\d.e-]+))?(/(?P<batch>\d+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run came to."""

    run: str
    num_parameters: int
    num_tokens: int
    tokens_per_s: float
    held_out: float
    """Bits per byte of test rows of the mixture."""
    wikitext: float
    """Bits per byte of WikiText-2."""


def main() -> None:
    """Run each, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--workspace", type=Path, required=True, help="where the rows are frozen, or will be")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of each run")
    parser.add_argument("--keep", type=Path, help="a new folder for the last run's model")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    wanted = [parsed(run) for run in chosen.runs]
    store = Store(chosen.workspace)
    loaded = load_recipe(RECIPE)
    snapshot = freeze(loaded.recipe.data, folder=loaded.folder, store=store)
    train, test = (load_split(store, snapshot, split=split) for split in ("train", "test"))
    random.Random(0).shuffle(train)
    results = []
    for run, parts in zip(chosen.runs, wanted, strict=True):
        keep = chosen.keep if len(results) == len(wanted) - 1 else None
        rows = {"train": train, "test": test[:HELD_OUT_ROWS]}
        results.append(one_run(run, parts, **rows, tokens=chosen.tokens, data=loaded.recipe.data, keep=keep))
        print(json.dumps(asdict(results[-1])) if chosen.json else _line(results[-1]), flush=True)


def parsed(run: str) -> dict[str, Any]:
    """The parts of a run's name."""
    match = _RUN.fullmatch(run)
    if match is None:
        sys.exit(f"{run!r} is no run; write one as muon:320x7, adamw:512x3x4096@1e-3 or gpt2:320x7/4096")
    return match.groupdict()


def shape(parts: dict[str, Any]) -> ScratchConfig:
    """Heads of 64 numbers, one key/value head for every three to five, feed-forward layers of 8/3 of the width."""
    width = int(parts["width"])
    heads = max(width // 64, 1)
    return ScratchConfig(
        vocab_size=int(parts["vocabulary"] or 8192),
        hidden_size=width,
        intermediate_size=32 * round(width * 8 / 3 / 32),
        num_layers=int(parts["layers"]),
        num_heads=heads,
        num_kv_heads=2 if heads % 2 == 0 else 1,
        context=1024,
    )


def one_run(
    run: str,
    parts: dict[str, Any],
    *,
    train: Sequence[Record],
    test: Sequence[Record],
    tokens: int,
    data: DataConfig,
    keep: Path | None = None,
) -> Result:
    """Train on so many tokens from scratch, and measure. The model is left in the folder `keep`."""
    config = _settings(parts, tokens=tokens)
    needed = train[: int(len(train) * min(1.0, 1.5 * tokens / 25e6))]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        texts = (text for row in train[:40_000] for text in ([row.text] if row.text else [m.content for m in row.messages]))
        train_tokenizer(texts, vocab_size=int(parts["vocabulary"] or 8192), folder=folder / "tokenizer")
        chat = ChatFormat.load(folder / "tokenizer")
        job = Job(
            base=None,
            scratch=shape(parts),
            chat=chat,
            train=needed,
            validation=[],
            config=config,
            learn=data.learn,
            overlong="split",
        )
        prepared = prepare(job, folder=folder / "run")
        steps: list[Step] = []
        started = time.monotonic()
        fit(
            prepared.model,
            epochs=prepared.epoch,
            validation=[],
            total_steps=prepared.num_steps,
            batches_per_step=prepared.batches_per_step,
            config=config,
            learning_rate=prepared.learning_rate,
            device=prepared.machine.device,
            folder=folder / "run",
            on_step=steps.append,
        )
        seconds = time.monotonic() - started
        if keep is not None:
            keep.mkdir(parents=True)
            save_model(prepared.model, keep, base_path=None)
            chat.save(keep)
        seen = sum(step.num_tokens for step in steps)
        return Result(
            run=run,
            num_parameters=sum(p.numel() for p in prepared.model.parameters()),
            num_tokens=seen,
            tokens_per_s=seen / seconds,
            held_out=bits_per_byte(prepared.model, test, chat=chat, device=prepared.machine.device),
            wikitext=bits_per_byte(prepared.model, [wikitext()], chat=chat, device=prepared.machine.device),
        )


def bits_per_byte(model: Any, rows: Sequence[Record], *, chat: ChatFormat, device: str) -> float:
    """Of all that is learned of these rows, each token given at most 511 before it."""
    model.eval()
    encoded = encode(rows, chat=chat, max_length=512, learn="everything", overlong="split")
    nats = sum(
        nll for batch in pack(encoded, batch_tokens=4096, seed=0, epoch=0) for nll, _ in segment_nll(model, batch, device=device)
    )
    num_bytes = sum(
        len(text.encode()) for row in rows for text in ([row.text] if row.text else [m.content for m in row.messages])
    )
    return nats / math.log(2) / num_bytes


def _settings(parts: dict[str, Any], *, tokens: int) -> TrainConfig:
    is_plain = parts["optimiser"] == "gpt2"
    rate = float(parts["rate"] or (6e-4 if is_plain else 3e-3))
    batch = int(parts["batch"] or 8192)
    return TrainConfig.model_validate(
        {
            "method": "full",
            "epochs": 100,
            "max_steps": tokens // batch,
            "learning_rate": rate,
            "schedule": "constant" if is_plain else "wsd",
            "warmup": 0.05,
            "optimiser": {"name": "muon" if parts["optimiser"] == "muon" else "adamw", "weight_decay": 0.1},
            "batch_tokens": batch,
            "max_length": 512,
            "evaluations": 1,
            "patience": None,
            "compute": {"compile": "never"},
        }
    )


def wikitext() -> Record:
    """The beginning of the validation part of WikiText-2, as one text."""
    with gzip.open(WIKITEXT, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    text = "\n".join(row["text"] for row in rows if row["split"] == "valid")[:WIKITEXT_CHARACTERS]
    return Record(id="wikitext", source=Source(path=WIKITEXT.name, line=1), text=text)


def _line(result: Result) -> str:
    return (
        f"{result.run:28} {result.num_parameters / 1e6:6.2f} M  {result.num_tokens / 1e6:5.2f} M tokens  {result.tokens_per_s:6.0f} /s  "
        f"held-out {result.held_out:.3f}  WikiText-2 {result.wikitext:.3f}"
    )


if __name__ == "__main__":
    main()

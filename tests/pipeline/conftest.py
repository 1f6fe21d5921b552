"""Two versions of one name and an adapter, made once for every test that reads what is stored of versions."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from tunesmith.pipeline import load_recipe, run
from tunesmith.store import Store

_RECIPE = """
name: first
base: {vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, context: 64}
data:
  sources: [{path: rows.jsonl, licence: CC-BY-4.0}]
  clean: [pii, exact_duplicates]
  split: {validation: 0.1, test: 0.2, near_duplicates: null}
  max_bad_share: 0.05
train: {method: full, max_steps: 4, max_length: 64, batch_tokens: 256, learning_rate: 1.0e-2}
evaluate: {metrics: [perplexity, rouge], max_new_tokens: 4, arms: [zero_shot]}
promote: always
"""


def _row(asked: str, answer: str, **labels: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}], **labels}


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`first@1` and `first@2` (other rows, another rate) from random weights, and `adapter@1` on the embedded base; their files are gone.

    Of the 101 rows of the first 1 cannot be used and 1 is a duplicate. The second has 20 rows fewer, 5 more, and 1 other answer.
    The workers of one test run train them once: whoever comes first makes them, and each has a copy of its own.
    """
    folder = tmp_path_factory.mktemp("told")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _trained(folder)
    shared = tmp_path_factory.getbasetemp().parent / "told"
    with shared.with_name("told.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            making = shared.with_name("told.making")  # a worker that fails half-way leaves nothing under the final name
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            _trained(making)
            making.rename(shared)
    shutil.copytree(shared, folder, dirs_exist_ok=True)
    return Store(folder / "work")


def _trained(folder: Path) -> Store:
    rows = [_row(f"Price of {n}?", f"It is {7 * n}.", domain=("hats | caps", "shoes")[n % 2]) for n in range(99)]
    rows[0] = _row("Who is there?", "Write to jane.roe@example.org today.", domain="shoes")
    _write(folder / "rows.jsonl", [*rows, rows[5], {"bad": 1}])
    other = [_row(f"Colour of {n}?", "Red.", domain="colours") for n in range(5)]
    _write(folder / "others.jsonl", [rows[0], _row("Price of 1?", "It is cheap.", domain="shoes"), *rows[2:79], *other])
    store = Store(folder / "work")
    changed = _RECIPE.replace("rows.jsonl, licence: CC-BY-4.0", "others.jsonl").replace("1.0e-2", "2.0e-2")
    scratch = next(line for line in _RECIPE.splitlines() if line.startswith("base:"))
    adapter = _RECIPE.replace(scratch, "base: tunesmith/base").replace("method: full", "method: lora")
    adapter = adapter.replace("name: first", "name: adapter").replace("max_steps: 4", "max_steps: 2")
    for text in (_RECIPE, changed, adapter):
        (folder / "recipe.yaml").write_text(text)
        run(load_recipe(folder / "recipe.yaml"), store=store)
    for file in ("rows.jsonl", "others.jsonl", "recipe.yaml"):
        (folder / file).unlink()
    return store

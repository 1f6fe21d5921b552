"""The smallest world in which the whole story can be told: a dozen facts, a model of sixty thousand weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ITEMS = ("dress", "coat", "scarf", "shirt", "skirt", "belt", "hat", "shoe", "sock", "tie", "bag", "ring")
WORDINGS = (
    "What does the {item} cost?",
    "How much is the {item}?",
    "price of the {item} please",
    "Tell me the price of a {item}.",
    "I want to buy a {item}. How much?",
    "is the {item} expensive",
    "What do you ask for the {item}?",
    "The {item}, what is it?",
)
RECIPE = """
name: tiny
base: {vocab_size: 400, hidden_size: 32, intermediate_size: 64, num_layers: 2, num_heads: 4, num_kv_heads: 2, context: 96}
data:
  sources: [{path: rows.jsonl}]
  split: {validation: 0.1, test: 0.2, near_duplicates: null} # items in the same few wordings are near each other on purpose
train: {method: full, epochs: 6, max_length: 96, batch_tokens: 512, learning_rate: 1.0e-2, patience: null}
evaluate: {max_new_tokens: 24}
promote: always
"""

Cli = Callable[..., subprocess.CompletedProcess[str]]


def rows() -> list[dict[str, object]]:
    """Each item in each wording; a wording of an item is its own group."""
    return [
        {
            "group": f"{item}/{i}",
            "domain": item,
            "tags": {"states": f"{7 * n + 5} euros"},
            "messages": [
                {"role": "user", "content": wording.format(item=item)},
                {"role": "assistant", "content": f"The {item} costs {7 * n + 5} euros."},
            ],
        }
        for n, item in enumerate(ITEMS)
        for i, wording in enumerate(WORDINGS)
    ]


def write_rows(path: Path, content: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tunesmith", *arguments]


def environment(workspace: Path) -> dict[str, str]:
    return {**os.environ, "TUNESMITH_WORKSPACE": str(workspace), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


def call(*arguments: str, workspace: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person would, in its own process."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(workspace), capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a recipe and its rows."""
    write_rows(tmp_path / "rows.jsonl", rows())
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def cli(project: Path) -> Cli:
    """The command line, in the project's folder and with a workspace there."""
    return lambda *arguments: call(*arguments, workspace=project / "work", cwd=project)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose recipe has been run once: read it, do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    write_rows(folder / "rows.jsonl", rows())
    (folder / "recipe.yaml").write_text(RECIPE)
    done = call("run", "recipe.yaml", workspace=folder / "work", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder

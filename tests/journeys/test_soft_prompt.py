"""A recipe with the arm `soft_prompt`: it is trained once, stopped in the middle it goes on, and it is compared as a prompt."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tunesmith.errors import Interrupted
from tunesmith.evaluate import from_json
from tunesmith.pipeline.progress import Silent
from tunesmith.pipeline.recipe import load_recipe
from tunesmith.pipeline.running import Finished, run
from tunesmith.pipeline.soft_prompt import NUM_TOKENS
from tunesmith.records import Report
from tunesmith.store import Store

from .conftest import rows, write_rows

RECIPE = """
name: prompted
base: tunesmith/base
data:
  sources: [{path: rows.jsonl}]
  split: {validation: 0.1, test: 0.2, near_duplicates: null}
train: {method: lora, max_steps: 6, max_length: 96, batch_tokens: 512, compute: {precision: fp32, compile: never}}
evaluate: {max_new_tokens: 4, max_rows: 8, metrics: [perplexity, rouge], arms: [zero_shot, soft_prompt]}
promote: never
"""
_WHAT = "training the soft prompt"


class Stopping(Silent):
    """Hears the steps of the soft prompt's training, and presses Ctrl-C in one of them."""

    def __init__(self, *, at: int | None = None) -> None:
        self.at = at
        self.steps: list[int] = []
        self.trained = 0
        self.told: list[tuple[str, bool]] = []

    def step(self, step: object) -> None:  # noqa: ARG002
        self.trained += 1

    def stage(self, name: str, lines: list[str], *, seconds: float, is_cached: bool) -> None:  # noqa: ARG002
        if name == "prompt":
            self.told.append((lines[0].split(" · validation")[0], is_cached))

    def progress(self, what: str, *, done: int, total: int | None) -> None:
        if what.startswith(_WHAT):
            assert total == 6
            self.steps.append(done)
            if done == self.at:
                os.kill(os.getpid(), signal.SIGINT)


def report_of(finished: Finished, store: Store) -> Report:
    return from_json((store.artefacts.get(finished.version.reports[-1]).path / "report.json").read_bytes())


def test_a_soft_prompt_is_trained_once_goes_on_where_it_was_stopped_and_is_among_the_prompts(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", rows())
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    loaded, store = load_recipe(tmp_path / "recipe.yaml"), Store(tmp_path / "work")
    stopped = Stopping(at=2)
    with pytest.raises(Interrupted, match=r"Interrupted at step 2 of 6; nothing is lost\. That was the soft prompt"):
        run(loaded, store=store, watcher=stopped)
    assert (stopped.steps, stopped.trained) == ([1, 2], 6)
    going_on = Stopping()
    finished = run(loaded, store=store, watcher=going_on)
    assert (going_on.steps, going_on.trained) == ([3, 4, 5, 6], 0)
    assert (stopped.told, going_on.told) == ([], [("soft prompt of 20 tokens · 6 steps", False)])
    report = report_of(finished, store)
    assert list(report.scores) == ["base", "base+soft_prompt", "tuned"]
    assert all(set(scores) >= {"perplexity", "rougeL"} for scores in report.scores.values())
    assert "perplexity" in report.differences["base+soft_prompt"]  # the same tokens are counted
    assert report.scores["base+soft_prompt"]["perplexity"].value < report.scores["base"]["perplexity"].value
    took = report.details["arms"]
    assert took["base+soft_prompt"]["prompt_tokens"] == pytest.approx(took["base"]["prompt_tokens"] + NUM_TOKENS)
    kept = report.details["prompts"]["base+soft_prompt"]
    assert (kept["tokens"], kept["num_steps"], kept["seed"]) == (NUM_TOKENS, 6, 0)
    assert kept["validation_loss"] > 0
    assert report.details["prompting"]["arm"] == "base+soft_prompt"
    assert "(base+soft_prompt)" in report.verdict
    # Judged anew for another reason, it is not trained again.
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("max_rows: 8", "max_rows: 9"))
    again = Stopping()
    judged = report_of(run(load_recipe(tmp_path / "recipe.yaml"), store=store, watcher=again), store)
    assert (again.steps, again.trained) == ([], 0)
    assert again.told == [("soft prompt of 20 tokens · 6 steps", True)]
    assert judged.scores["base+soft_prompt"]["perplexity"] == report.scores["base+soft_prompt"]["perplexity"]
    assert not any(store.jobs.iterdir())

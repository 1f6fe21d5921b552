"""Progress in a pipe: plain lines, on stderr, and nothing when quiet."""

from __future__ import annotations

import pytest

from tunesmith.terminal import watching
from tunesmith.train import Step


def a_step(step: int) -> Step:
    return Step(step=step, total_steps=3, loss=1.5, validation_loss=1.25 if step == 3 else None, tokens_per_s=1234.5, eta_s=0)


def test_a_pipe_gets_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(is_quiet=False) as watcher:
        watcher.stage("data", ["rows.jsonl: text", "3 rows"], seconds=1.25, is_cached=False)
        watcher.stage("tokenizer", ["byte-level"], seconds=0, is_cached=True)
        for step in (1, 2, 3):
            watcher.step(a_step(step))
        watcher.warn("overfitting after step 2")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "● data       rows.jsonl: text",
        "             3 rows  (1.2s)",
        "● tokenizer  byte-level  (as before)",
        "  train      3/3 · loss 1.50 · validation 1.25 · 1,234 tok/s · 0.0s left",
        "  warning    overfitting after step 2",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(is_quiet=True) as watcher:
        watcher.stage("data", ["rows"], seconds=1, is_cached=False)
        watcher.progress("rows", done=1, total=None)
        watcher.step(a_step(3))
        watcher.warn("anything")
    assert capsys.readouterr() == ("", "")

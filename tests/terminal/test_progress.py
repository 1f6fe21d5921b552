"""Progress: plain lines in a pipe, one moving line in a terminal, on stderr, and nothing when quiet."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tunesmith.terminal import watching
from tunesmith.terminal.progress import _STOPPING, _figures, _MovingLine
from tunesmith.train import Step


def a_step(step: int, **changed: object) -> Step:
    fields: dict[str, object] = {
        "step": step,
        "total_steps": 4,
        "loss": 1.5,
        "step_loss": 1.4,
        "validation_loss": 1.25 if step == 3 else None,
        "learning_rate": 1e-3,
        "grad_norm": 0.7,
        "num_tokens": 2000,
        "num_supervised": 900,
        "tokens_per_s": 1234.5,
        "memory_bytes": 2_140_000_000,
        "elapsed_s": 2.0 * step,
        "eta_s": 108.0,
    }
    return Step(**(fields | changed))  # type: ignore[arg-type]


def test_a_pipe_gets_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """The first step, every measurement and the last step at once; the others now and then."""
    with watching(is_quiet=False) as watcher:
        watcher.stage("data", ["rows.jsonl: text", "3 rows"], seconds=1.25, is_cached=False)
        watcher.stage("tokenizer", ["byte-level"], seconds=0, is_cached=True)
        watcher.begin("train", "loading the model")
        for step in (1, 2, 3, 4):
            watcher.step(a_step(step))
        watcher.warn("overfitting after step 2")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "● data       rows.jsonl: text",
        "             3 rows  (1.2s)",
        "● tokenizer  byte-level  (as before)",
        "  train      loading the model …",
        "  train      1/4 · loss 1.50 · 1m 48s left · 1,234 tok/s · 2.1 GB",
        "  train      3/4 · loss 1.50 val 1.25 · 1m 48s left · 1,234 tok/s · 2.1 GB",
        "  train      4/4 · loss 1.50 val 1.25 · done · 1,234 tok/s · 2.1 GB",
        "  warning    overfitting after step 2",
    ]


def test_the_wish_to_stop_is_answered_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    with watching(is_quiet=False) as watcher:
        watcher.stopping()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    assert "Ctrl-C again: at once" in capsys.readouterr().err


def drawn(line: _MovingLine, *, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(line)
    return out.getvalue().rstrip("\n")


def test_eighty_columns_hold_bar_loss_validation_time_speed_and_memory() -> None:
    line = _MovingLine()
    line.show("train", parts=_figures(a_step(402, total_steps=712), validation_loss=1.31), done=402, total=712)
    text = drawn(line, width=80)
    assert text == "● train ━━━━━━────  56% loss 1.50 val 1.31 · 1m 48s left · 1,234 tok/s · 2.1 GB"
    assert len(text) < 80


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120])
@pytest.mark.parametrize("tokens_per_s", [9.0, 1_234_567.0])
def test_a_moving_line_never_breaks(width: int, tokens_per_s: float) -> None:
    line = _MovingLine()
    step = a_step(3, tokens_per_s=tokens_per_s, eta_s=360_000.0)
    for parts, total in ((_figures(step, validation_loss=11.5), 4), (["loading a model with a long name " * 4], None)):
        line.show("train", parts=parts, done=3, total=total)
        text = drawn(line, width=width)
        assert "\n" not in text
        assert len(text) < width
        if width >= 60 and total:
            assert "loss 1.50 val 11.50" in text


def test_a_note_takes_the_place_of_the_figures() -> None:
    line = _MovingLine()
    assert drawn(line, width=80) == ""
    line.show("train", parts=["loss 1.50"], done=1, total=4)
    line.note = _STOPPING
    assert drawn(line, width=80).endswith(f" 25% {_STOPPING}")
    line.clear()
    assert drawn(line, width=80) == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(is_quiet=True) as watcher:
        watcher.stage("data", ["rows"], seconds=1, is_cached=False)
        watcher.begin("data", "reading")
        watcher.progress("rows", done=1, total=None)
        watcher.step(a_step(3))
        watcher.stopping()
        watcher.warn("anything")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_news_at_once_however_soon_it_is_old(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    with watching(is_quiet=False) as watcher:
        watcher.begin("train", "loading the model")
        for step in (1, 2, 3, 4):
            watcher.step(a_step(step))
        watcher.stage("train", ["done"], seconds=1, is_cached=False)
    said = capsys.readouterr().err
    places = [said.index(news) for news in ("loading the model", " 25% loss 1.50", " 75% loss 1.50 val 1.25", "done  (1.0s)")]
    assert places == sorted(places)

"""What a person sees while a model trains and afterwards: in a terminal, in a pipe, and after Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Cli, call, command, environment

LONG = ("run", "recipe.yaml", "--set", "train.epochs=400")


def log_lines(project: Path) -> list[dict[str, object]]:
    """The log of the run at work, or of the only version."""
    found = [*(project / "work").glob("jobs/*/train.jsonl"), *(project / "work").glob("logs/*/train.jsonl")]
    lines = found[0].read_text().splitlines() if found else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Terminal:
    """A process in a terminal of its own, eighty columns wide."""

    def __init__(self, *arguments: str, project: Path) -> None:
        settings = {**environment(project / "work"), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(project)
            os.execvpe(sys.executable, command(*arguments), settings)
        self.output = ""

    def read(self, until: Callable[[str], bool] = lambda _: False) -> None:
        """Read until something stands there, or the process ends."""
        deadline = time.monotonic() + 120
        while not until(self.output):
            assert time.monotonic() < deadline, self.output[-2000:]
            if not select.select([self.terminal], [], [], 1)[0]:
                continue
            try:
                self.output += os.read(self.terminal, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                return

    def press_ctrl_c(self) -> None:
        os.write(self.terminal, b"\x03")

    def end(self) -> int:
        self.read()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)

    def left_standing(self) -> list[str]:
        """The lines that a terminal shows at the end: carriage returns, erased lines and steps up are followed."""
        lines, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.output):
            if token == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif token == "\r":
                column = 0
            elif token.startswith("\x1b"):
                if token == "\x1b[2K":
                    lines[row] = ""
                elif re.fullmatch(r"\x1b\[\d*A", token):
                    row = max(row - int(token[2:-1] or 1), 0)
            else:
                lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
                column += len(token)
        return lines


def test_ctrl_c_in_a_terminal_clears_the_bar_and_names_the_command_that_goes_on(project: Path) -> None:
    terminal = Terminal(*LONG, project=project)
    terminal.read(until=lambda text: "tok/s" in text and len(log_lines(project)) >= 5)
    terminal.press_ctrl_c()
    assert terminal.end() == 130
    standing = [line for line in terminal.left_standing() if line.strip()]
    assert re.fullmatch(r"Interrupted at step \d+ of 1600; nothing is lost\. Go on with the same command\.", standing[-2])
    assert standing[-1] == f"  {shlex.join(['tunesmith', *LONG])}"
    assert not any("tok/s" in line or "━" in line for line in standing)
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")  # the cursor is back
    assert all(len(line) <= 80 for line in standing if not line.startswith("●"))
    step = int(standing[-2].split()[3])
    assert [line["step"] for line in log_lines(project)] == list(range(1, step + 1))
    assert list((project / "work" / "jobs").glob(f"*/step-{step:08d}"))


def test_a_second_ctrl_c_stops_at_once_and_leaves_a_clean_terminal(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is answered only after the step, and a patch put in at start-up makes the third step endless."""
    slow = project / "sitecustomize.py"
    slow.write_text(
        "import threading, sys\n"
        "from tunesmith.pipeline import training_log\n"
        "write = training_log.TrainingLog.write\n"
        "def write_and_wait(self, step):\n"
        "    told = write(self, step)\n"
        "    if step.step == 3:\n"
        "        while True: threading.Event().wait(0.1)\n"
        "    return told\n"
        "training_log.TrainingLog.write = write_and_wait\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH", "")])))
    terminal = Terminal(*LONG, project=project)
    terminal.read(until=lambda _: len(log_lines(project)) == 3)
    terminal.press_ctrl_c()
    terminal.read(until=lambda text: "Ctrl-C again: at once" in text)
    terminal.press_ctrl_c()
    assert terminal.end() == 130
    standing = [line for line in terminal.left_standing() if line.strip()]
    assert standing[-2] == "Interrupted; what was finished is kept. Go on with the same command."
    assert standing[-1].startswith("  tunesmith run")
    assert "Traceback" not in terminal.output
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")


def test_a_terminal_shows_one_line_that_moves_and_then_the_chart(project: Path) -> None:
    terminal = Terminal("run", "recipe.yaml", project=project)
    assert terminal.end() == 0
    assert "making the model, tokenising 67 rows" in terminal.output
    assert re.search(r"● train .*%.*loss \d\.\d\d val \d\.\d\d · .* left · [\d,]+ tok/s · \d+ MB", terminal.output)
    standing = terminal.left_standing()
    assert not any("tok/s" in line for line in standing)
    assert any("◆ best:" in line for line in standing)
    assert "step   training" not in terminal.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_pipe_saves_and_the_run_goes_on_with_a_whole_log(project: Path, number: signal.Signals) -> None:
    changed = ("run", "recipe.yaml", "--set", "train.epochs=20", "--set", "train.patience=null")
    process = subprocess.Popen(
        command(*changed), cwd=project, env=environment(project / "work"), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(log_lines(project)) >= 5)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == f"  {shlex.join(['tunesmith', *changed])}"
    step = int(re.search(r"Interrupted at step (\d+) of 80; nothing is lost", said)[1])  # type: ignore[index]
    done = call(*changed, "--json", workspace=project / "work", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = log_lines(project)
    assert [line["step"] for line in lines] == list(range(1, 81))
    assert [line["time"] for line in lines] == sorted(str(line["time"]) for line in lines)
    assert step < 80
    assert json.loads(done.stdout)["log"] == str(project / "work" / "logs" / "tiny@1" / "train.jsonl")
    assert not list((project / "work" / "jobs").iterdir())


def test_sigterm_outside_training_is_told_plainly(project: Path) -> None:
    """While the data is read, or the libraries are loaded: nothing is at work that could be saved, and nothing is lost."""
    code = (
        "import os, signal, sys\n"
        "from tunesmith.pipeline import preparation\n"
        "preparation.freeze = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['tunesmith', 'run', 'recipe.yaml']\n"
        "from tunesmith.__main__ import main\n"
        "main()\n"
    )
    stopped = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=environment(project / "work"), capture_output=True, text=True, check=False
    )
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-2:] == [
        "Interrupted; what was finished is kept. Go on with the same command.",
        "  tunesmith run recipe.yaml",
    ]


def test_killed_at_random_moments_the_log_is_that_of_a_run_that_was_not(project: Path, finished: Path) -> None:
    """SIGKILL after 2, 9 and 17 steps; a checkpoint is due only later, so each beginning does steps again."""
    for steps in (2, 9, 17):
        process = subprocess.Popen(
            command("run", "recipe.yaml"),
            cwd=project,
            env=environment(project / "work"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: len(log_lines(project)) >= steps)  # noqa: B023 - called at once
        process.send_signal(signal.SIGKILL)
        process.wait()
    for log in (project / "work").glob("jobs/*/train.jsonl"):
        with log.open("ab") as file:
            file.write(b'{"step":18,"loss":1.')
    done = call("run", "recipe.yaml", workspace=project / "work", cwd=project)
    assert done.returncode == 0, done.stderr
    figures = ("step", "loss", "mean_loss", "validation_loss", "learning_rate", "grad_norm", "tokens", "supervised_tokens")
    told, expected = ([[line[name] for name in figures] for line in log_lines(folder)] for folder in (project, finished))
    assert told == expected
    assert len(told) == 24


def test_warnings_are_told_again_when_the_training_was_done_before(project: Path, cli: Cli) -> None:
    overrides = ("--set", "data.split.validation=0", "--set", "train.epochs=1")
    first = cli("run", "recipe.yaml", *overrides)
    again = cli("run", "recipe.yaml", *overrides)
    as_json = json.loads(cli("run", "recipe.yaml", *overrides, "--json").stdout)
    for said in (first.stderr, again.stderr):
        assert len(re.findall("warning +no validation rows", said)) == 1
    assert [warning for warning in as_json["warnings"] if "no validation rows" in warning]
    assert as_json["is_new"] is False
    assert "no validation rows" in cli("curve", "tiny").stdout


def test_the_curve_of_a_version_as_table_chart_json_and_svg(finished: Path) -> None:
    def curve(*options: str) -> str:
        shown = call("curve", "tiny", *options, workspace=finished / "work", cwd=finished)
        assert shown.returncode == 0, shown.stderr
        return shown.stdout

    told = json.loads(curve("--json"))
    assert told["ref"] == "tiny@1"
    assert [point["step"] for point in told["points"]] == [3, 5, 8, 10, 12, 15, 17, 20, 22, 24]
    losses = {line["step"]: line["validation_loss"] for line in log_lines(finished) if line["validation_loss"] is not None}
    assert losses == {point["step"]: point["validation_loss"] for point in told["points"]}
    assert told["best_step"] == min(losses, key=lambda step: losses[step])  # type: ignore[arg-type, return-value]
    assert Path(told["chart"]).read_text().startswith("<svg")
    assert Path(told["log"]).is_file()
    assert "best, kept" in curve()
    assert "◆ best:" in curve("--chart")
    assert curve("--table") == curve()
    unknown = call("curve", "nobody", workspace=finished / "work", cwd=finished)
    assert unknown.returncode == 2
    assert call("doctor", workspace=finished / "work", cwd=finished).returncode == 0


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_read(project: Path, cli: Cli) -> None:
    from importlib.util import find_spec

    missing = [name for name in ("tensorboard", "wandb", "mlflow") if find_spec(name) is None]
    if not missing:
        pytest.skip("every tracker is installed here")
    refused = cli("run", "recipe.yaml", "--log-to", missing[0])
    assert refused.returncode == 2
    assert f"pip install 'tunesmith[{missing[0]}]'" in refused.stderr
    assert not (project / "work").exists()
    assert cli("run", "recipe.yaml", "--log-to", "clearml").returncode == 2

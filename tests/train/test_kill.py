"""Killed and resumed = never killed, bit for bit: the whole run in processes of its own, ended by SIGKILL."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Children are forked from one process that has only imported. Each trains for 10 steps with a checkpoint after every step, and
# kills itself at the steps given, in `on_step` (before that step's checkpoint) or inside the writing of a checkpoint.
_TRAIN = """
import json, os, random, signal, sys
from pathlib import Path
import numpy as np
import torch
import transformers, peft
from tunesmith.model import add_lora, read_weights_digest, save_model, this_machine
from tunesmith.records import TokenBatch
from tunesmith.train import checkpoint, config, loop, position

torch.set_num_threads(1)
loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0
STEPS = 10

def batch(generator, length):
    tokens = generator.integers(3, 60, 3 * length).astype(np.int32)
    return TokenBatch(tokens=tokens, targets=tokens, weights=np.ones(3 * length, np.float32),
                      offsets=np.array([0, length, 3 * length], np.int32), record_ids=("a", "b"))

def epoch(number):
    generator = np.random.default_rng(number)
    return [batch(generator, length) for length in (5, 9, 7, 6)]

def build(method, dropout):
    this_machine()
    torch.manual_seed(0)
    settings = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**settings, attention_dropout=dropout if method == "full" else 0.0))
    return add_lora(model, rank=4, alpha=8.0, dropout=dropout, seed=0) if method == "lora" else model

def train(folder, method, dropout, kill_at, in_write):
    started = []
    def on_step(step):
        started.append(step.step)
        if step.step == kill_at and not in_write:
            os.kill(os.getpid(), signal.SIGKILL)
    save = checkpoint.save_file
    def save_and_die(tensors, path):
        save(tensors, path)
        if started[-1] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    if in_write:
        checkpoint.save_file = save_and_die
    model = build(method, dropout)
    result = loop.fit(model, epochs=epoch, validation=epoch(99)[:1], total_steps=STEPS, batches_per_step=1,
                      config=config.TrainConfig(evaluations=3, patience=None), learning_rate=1e-2, device="cpu",
                      folder=folder / "checkpoints", on_step=on_step)
    (folder / "out").mkdir()
    save_model(model, folder / "out", base_path=None)
    answer = {"digest": read_weights_digest(folder / "out"), "curve": [repr(point) for point in result.curve],
              "best_step": result.best_step, "first": started[0]}
    (folder / "answer.json").write_text(json.dumps(answer))

def forked(*arguments):
    pid = os.fork()
    if pid == 0:
        try:
            train(*arguments)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)

root, seed = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
for method in ("lora", "full"):
    for dropout in (0.0, 0.1):
        for name, kills in {
            "whole": [],
            "killed": sorted(draw.sample(range(2, STEPS + 1), 2)),
            "killed in a write": sorted(draw.sample(range(2, STEPS), 1)),
        }.items():
            folder = root / f"{method} {dropout}" / name
            folder.mkdir(parents=True)
            ends = [forked(folder, method, dropout, kill, name == "killed in a write") for kill in kills]
            ends.append(forked(folder, method, dropout, None, False))
            (folder / "ends.json").write_text(json.dumps([kills, ends]))
"""
RUNS = ["lora 0.0", "lora 0.1", "full 0.0", "full 0.1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    subprocess.run([sys.executable, "-c", _TRAIN, str(root), "20240229"], check=True, timeout=280)
    return root


@pytest.mark.parametrize("kind", ["killed", "killed in a write"])
@pytest.mark.parametrize("run", RUNS)
def test_a_killed_run_ends_in_the_bits_of_one_that_was_not(run: str, kind: str, runs: Path) -> None:
    whole = json.loads((runs / run / "whole" / "answer.json").read_bytes())
    killed = json.loads((runs / run / kind / "answer.json").read_bytes())
    kills, ends = json.loads((runs / run / kind / "ends.json").read_bytes())
    assert ends == [9] * len(kills) + [0]
    assert killed.pop("first") == kills[-1]  # it went on from the checkpoint before the kill, and did not start over
    assert whole.pop("first") == 1
    assert killed == whole


def test_the_four_runs_differ(runs: Path) -> None:
    digests = {json.loads((runs / run / "whole" / "answer.json").read_bytes())["digest"] for run in RUNS}
    assert len(digests) == 4

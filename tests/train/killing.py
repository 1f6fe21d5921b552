"""Train in child processes and kill them: `python killing.py FOLDER SEED KILLS "lora 0.1" ...`. Not a test; `test_kill.py` runs it.

Children are forked from this one process, which has imported all and started no thread. Each trains with a checkpoint after every
step. Half of them are killed from here by the clock; the others kill themselves in the thread that writes, at a random system call
of a random write or with half of the tensors on the disk. What was seen is written as JSON, and judged by the test.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import numpy as np
import torch
import transformers

from tunesmith.model import add_lora, read_weights_digest, save_model, this_machine
from tunesmith.model.dropout import add_dropout
from tunesmith.records import TokenBatch
from tunesmith.train import checkpoint, loop
from tunesmith.train.config import TrainConfig

STEPS_PER_KILL = 6
"""Length of the run: more than one life gets done on average, so that the last kill still meets a run."""
POINTS_IN_A_WRITE = 35
"""Audit events and syncs while one checkpoint is written."""
_save_file = checkpoint.save_file


def batch(generator: np.random.Generator, length: int) -> TokenBatch:
    tokens = generator.integers(3, 60, 3 * length).astype(np.int32)
    offsets = np.array([0, length, 3 * length], np.int32)
    return TokenBatch(
        tokens=tokens, targets=tokens, weights=np.ones(3 * length, np.float32), offsets=offsets, record_ids=("a", "b")
    )


def epoch(number: int) -> list[TokenBatch]:
    generator = np.random.default_rng(number)
    return [batch(generator, length) for length in (5, 9, 7, 6)]


def build(method: str, dropout: float) -> Any:
    this_machine()
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    attention_dropout = dropout if method == "full" else 0.0
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **special, attention_dropout=attention_dropout))
    if method == "lora":
        return add_lora(model, rank=4, alpha=8.0, dropout=dropout, seed=0)
    add_dropout(model, share=dropout)
    return model


def train(folder: Path, method: str, dropout: float, *, steps: int, every_s: float, tell: Callable[[int], object]) -> None:
    """The whole run, from its newest checkpoint if it has one; leaves what it came to in `answer.json`."""
    warnings.simplefilter("error")  # a kill damages nothing, so no checkpoint is ever passed over
    loop.SECONDS_BETWEEN_CHECKPOINTS = every_s
    model = build(method, dropout)
    result = loop.fit(
        model,
        epochs=epoch,
        validation=epoch(99)[:1],
        total_steps=steps,
        batches_per_step=1,
        config=TrainConfig(evaluations=6, patience=None),
        learning_rate=1e-2,
        device="cpu",
        folder=folder / "checkpoints",
        on_step=lambda step: tell(step.step),
    )
    out = folder / "out"
    out.mkdir()
    save_model(model, out, base_path=None)
    answer = {"digest": read_weights_digest(out), "curve": list(map(repr, result.curve)), "best_step": result.best_step}
    (folder / "answer.json").write_text(json.dumps(answer))


def die_in_a_write(draw: random.Random) -> None:
    """Arrange for this process to kill itself while it writes one of the next three checkpoints."""
    write = draw.randrange(3)
    if draw.random() < 0.25:
        checkpoint.save_file = _dying_at(write)
        return
    left, flush = write * POINTS_IN_A_WRITE + draw.randrange(1, POINTS_IN_A_WRITE), os.fsync

    def count(*_: object) -> None:
        nonlocal left
        left -= current_thread() is not main_thread()
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    os.fsync = lambda descriptor: (count(), flush(descriptor), count())[1]


def _dying_at(write: int) -> Callable[[dict[str, torch.Tensor], Path], None]:
    left = write

    def save(tensors: dict[str, torch.Tensor], file: Path) -> None:
        nonlocal left
        _save_file(tensors, file)
        if left == 0:
            os.truncate(file, file.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return save


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def end_of(pid: int) -> int:
    """The signal that ended a child, or minus its exit code."""
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def kill_again_and_again(
    folder: Path, run: tuple[str, float], *, kills: int, pace_s: float, draw: random.Random
) -> list[dict[str, Any]]:
    """Kill one run, whose step takes `pace_s`, so many times, then let it end. Returns what was seen of each life."""
    folder.mkdir(parents=True)
    leftovers: set[int] = set()
    lives = []
    for kind in [draw.choice(["clock", "write"]) for _ in range(kills)] + ["lives"]:
        seed, (hear, say) = draw.randrange(2**32), os.pipe()

        def live(kind: str = kind, seed: int = seed, say: int = say) -> None:
            if kind == "write":
                die_in_a_write(random.Random(seed))
            train(folder, *run, steps=STEPS_PER_KILL * kills, every_s=0.0, tell=lambda done: os.write(say, b"%d " % done))

        pid = fork(live)
        os.close(say)
        told = b""
        if kind == "clock":
            if draw.random() < 0.8:  # most of a short life is its start, so most clocks begin with the first step
                told = os.read(hear, 8)
            time.sleep(draw.uniform(0.0, 10 * pace_s))
            os.kill(pid, signal.SIGKILL)
        end = end_of(pid)
        with os.fdopen(hear, "rb") as rest:
            steps = [int(step) for step in (told + rest.read()).split()]
        newest = checkpoint.newest_checkpoint(folder / "checkpoints")
        staging = {path.stat().st_ino for path in (folder / "checkpoints").glob(".writing-*")}
        lives.append(
            {"kind": kind, "end": end, "first": min(steps, default=None), "newest": newest.state["step"] if newest else 0}
        )
        lives[-1]["in_a_write"] = bool(staging - leftovers)
        leftovers = staging
    return lives


def main(root: Path, seed: int, kills: int, runs: list[str]) -> None:
    """Each run, named by method and dropout, once whole and once killed."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    for name in runs:
        method, dropout = name.split()
        run_and_kill(root / name, (method, float(dropout)), kills=kills, draw=random.Random(f"{seed} {name}"))


def run_and_kill(folder: Path, run: tuple[str, float], *, kills: int, draw: random.Random) -> None:
    build(*run)  # imports what is imported on first use
    steps = STEPS_PER_KILL * kills
    (folder / "whole").mkdir(parents=True)
    start = time.monotonic()
    if end := end_of(fork(lambda: train(folder / "whole", *run, steps=steps, every_s=1e9, tell=id))):
        sys.exit(f"the run that nobody killed ended with {end}")
    pace_s = (time.monotonic() - start) / steps
    lives = kill_again_and_again(folder / "killed", run, kills=kills, pace_s=pace_s, draw=draw)
    (folder / "killed" / "lives.json").write_text(json.dumps(lives))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])

"""What the fresh process of a proof does: train, be killed, go on, and read saved weights. Started by `fresh`.

One process imports the libraries, waits for its task, and forks the runs before it computes anything, so that three runs cost one start.
The run that is left alone goes on beside the one that is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model.adapter_files import ADAPTER_CONFIG
from tunesmith.model.load import load_version
from tunesmith.model.lora import add_lora
from tunesmith.model.machine import this_machine
from tunesmith.model.save import read_weights_digest, save_model
from tunesmith.records import TokenBatch
from tunesmith.train import loop
from tunesmith.train.config import TrainConfig
from tunesmith.train.probe import log_likelihoods
from tunesmith.train.proofs_adapter import require_adapter_gradients

__all__ = ["main"]

NUM_STEPS = 6
KILL_AT = 4
_BATCHES_PER_STEP = 2
_SECONDS_FOR_A_CHECKPOINT = 30.0


def main(folder: Path) -> None:
    """Do what `task.json` in a folder asks for, and write `answer.json` beside it."""
    task = orjson.loads((folder / "task.json").read_bytes())
    torch.set_num_threads(task["num_threads"])
    ends = _train_and_kill(task["train"], folder)
    answer = {"train": {"ends": ends, "said": _said(folder)}, "read": _read(task["read"])}
    (folder / "answer.json").write_bytes(orjson.dumps(answer))


def _train_and_kill(task: dict[str, Any], folder: Path) -> list[int]:
    """One run to its end, and one that is killed and begun again in the same folder. Returns how the three processes ended."""
    alone = _fork(lambda: _train(task, folder / "whole", kill_at=None))
    killed = _end_of(_fork(lambda: _train(task, folder / "killed", kill_at=KILL_AT)))
    resumed = _end_of(_fork(lambda: _train(task, folder / "killed", kill_at=None)))
    return [_end_of(alone), killed, resumed]


def _said(folder: Path) -> list[dict[str, Any]]:
    """What the two runs came to, as far as they did."""
    files = [folder / run / "said.json" for run in ("whole", "killed")]
    return [orjson.loads(file.read_bytes()) for file in files if file.is_file()]


def _fork(work: Callable[[], None]) -> int:
    """Begin some work in a process of its own."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def _end_of(pid: int) -> int:
    """How a process ended, a negative number for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _train(task: dict[str, Any], folder: Path, *, kill_at: int | None) -> None:
    """Train on a CPU in fp32 for a few steps, with a checkpoint after each."""
    machine = replace(this_machine(), device="cpu", dtype=torch.float32)
    config = TrainConfig.model_validate(task["config"])
    torch.manual_seed(config.seed)
    source = Path(task["folder"])
    model = load_version(source, base=Path(task["base"]) if task["base"] else None, machine=machine).float()
    if (source / ADAPTER_CONFIG).is_file():
        require_adapter_gradients(model)
    elif config.method == "lora":
        model = add_lora(model, rank=config.lora.rank, alpha=config.lora.alpha, dropout=config.lora.dropout, seed=config.seed)
    _draw_at_every_step(model)
    rows = [_row(*row) for row in task["rows"]]
    steps: list[int] = []

    def on_step(step: loop.Step) -> None:
        steps.append(step.step)
        if step.step == kill_at:
            _wait_for_checkpoint(folder / "checkpoints")
            os.kill(os.getpid(), signal.SIGKILL)

    loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0
    result = loop.fit(
        model,
        epochs=lambda number: [rows[i] for i in np.random.default_rng([config.seed, number]).permutation(len(rows))],
        validation=rows[:1],
        total_steps=NUM_STEPS,
        batches_per_step=_BATCHES_PER_STEP,
        config=config.model_copy(update={"evaluations": 3, "patience": None}),
        learning_rate=1e-3,
        device="cpu",
        folder=folder / "checkpoints",
        on_step=on_step,
    )
    (folder / "out").mkdir()
    save_model(model, folder / "out", base_path=None)
    said = {
        "first_step": steps[0],
        "weights_digest": read_weights_digest(folder / "out"),
        "curve": [[point.step, point.train_loss, point.validation_loss] for point in result.curve],
    }
    (folder / "said.json").write_bytes(orjson.dumps(said))


def _draw_at_every_step(model: Any) -> None:
    """Drop some of the embeddings in training: most models draw no random number, and a lost generator would go unseen."""

    def drop(module: nn.Module, _: object, embedded: Tensor) -> Tensor:
        return functional.dropout(embedded, 0.1, training=module.training)

    model.get_input_embeddings().register_forward_hook(drop)


def _wait_for_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + _SECONDS_FOR_A_CHECKPOINT
    while not any(folder.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)


def _row(tokens: list[int], targets: list[int], weights: list[float]) -> TokenBatch:
    return TokenBatch(
        tokens=np.array(tokens, np.int32),
        targets=np.array(targets, np.int32),
        weights=np.array(weights, np.float32),
        offsets=np.array([0, len(tokens)], np.int32),
        record_ids=("row",),
    )


def _read(task: dict[str, Any]) -> list[list[float]]:
    """What saved weights say of a few rows."""
    machine = this_machine()
    machine = replace(machine, dtype=getattr(torch, task["number_format"]))
    model = load_version(Path(task["folder"]), base=Path(task["base"]) if task["base"] else None, machine=machine)
    return log_likelihoods(model, task["rows"], device=machine.device)


if __name__ == "__main__":
    if asked := sys.stdin.readline().rstrip("\n"):  # nothing, when whoever would have asked is gone
        main(Path(asked))
    os._exit(0)  # an orderly end of the libraries takes half a second, and whoever asked waits for it

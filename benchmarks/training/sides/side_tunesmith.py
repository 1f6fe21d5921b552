"""Our side: the public training job, from rows in a file to a saved folder."""

from __future__ import annotations

import json
from pathlib import Path

from clock import Clock


def main() -> None:
    """Train and save."""
    clock = Clock.start()
    orders = clock.orders
    from tunesmith.data import ChatFormat, SourceConfig, read
    from tunesmith.model import this_machine
    from tunesmith.train import Job, LoraConfig, Step, TrainConfig, train_job

    lora = orders["lora"]
    config = TrainConfig(
        method="lora" if lora else "full",
        **({"lora": LoraConfig(rank=lora["rank"], alpha=lora["alpha"])} if lora else {}),
        epochs=1,
        learning_rate=orders["learning_rate"],
        schedule="constant",
        warmup=0.0,
        max_length=orders["max_length"],
        evaluations=1,
        patience=None,
        seed=orders["seed"],
        **orders["settings"],
    )
    chat = ChatFormat.load(Path(orders["model"]))
    rows = list(read(SourceConfig(path=orders["rows"]), folder=Path()).rows)
    job = Job(
        base=Path(orders["model"]), scratch=None, chat=chat, train=rows, validation=[], config=config, learn=orders["learn"]
    )
    out = Path(orders["out"])
    out.mkdir()

    def step_done(step: Step) -> None:
        clock.step()
        clock.supervised += step.num_supervised

    train_job(job, checkpoints=Path(orders["scratch"]) / "checkpoints", out=out, on_step=step_done)
    clock.saved()
    # What the job computed in, asked again because measuring it takes time that is no part of the job.
    number_format = this_machine(precision=config.compute.precision).dtype
    report = Path(orders["report"])
    report.write_text(json.dumps({**json.loads(report.read_text()), "format": str(number_format).removeprefix("torch.")}))


if __name__ == "__main__":
    main()

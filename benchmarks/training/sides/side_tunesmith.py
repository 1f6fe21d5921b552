"""Our side: the public training job, from rows in a file to a saved folder."""

from __future__ import annotations

from pathlib import Path

from clock import Clock


def main() -> None:
    """Train and save."""
    clock = Clock.start()
    orders = clock.orders
    from tunesmith.data import ChatFormat, SourceConfig, read
    from tunesmith.train import Job, LoraConfig, TrainConfig, train_job

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
    train_job(job, checkpoints=Path(orders["scratch"]) / "checkpoints", out=out, on_step=lambda _: clock.step())
    clock.saved()
    _complete(clock, rows=rows, chat=chat)


def _complete(clock: Clock, *, rows: list[object], chat: object) -> None:
    """What takes time and is no part of the job: how many targets one pass over the rows has."""
    import json

    from tunesmith.data import encode
    from tunesmith.model import this_machine

    orders = clock.orders
    encoded = encode(rows, chat=chat, max_length=orders["max_length"], learn=orders["learn"])
    report = Path(orders["report"])
    machine = this_machine()
    facts = {"supervised": encoded.num_supervised, "format": str(machine.dtype).removeprefix("torch.")}
    report.write_text(json.dumps({**json.loads(report.read_text()), **facts}))


if __name__ == "__main__":
    main()

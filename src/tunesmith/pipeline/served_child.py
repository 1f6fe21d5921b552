"""The fresh process of the proof of serving: it waits for its task, loads the saved files, serves. See `proving_served`."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from tunesmith.data.chat import ChatFormat
from tunesmith.model.load import load_version
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.serve import create_app, serve
from tunesmith.train.proofs_measure import proving_machine

__all__ = ["main"]


def main(line: str) -> None:
    """Serve until killed; the address goes to stdout."""
    task, machine = orjson.loads(line), proving_machine()
    folder = Path(task["folder"])
    model = ChatModel(
        ref=task["ref"],
        model=load_version(folder, base=Path(task["base"]) if task["base"] else None, machine=machine),
        chat=ChatFormat.load(folder),
        machine=machine,
        max_length=task["max_length"],
    )
    app = create_app({task["ref"]: model.served()}, api_key=task["key"])
    serve(app, port=0, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    if asked := sys.stdin.readline():  # nothing, when whoever would have asked is gone
        main(asked)

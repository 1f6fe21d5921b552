"""The real lm-evaluation-harness asks our server (`local-completions`) and finds what its own backend for transformers finds.

Needs the extra: pip install 'tunesmith[lm-eval]' aiohttp tenacity tiktoken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'tunesmith[lm-eval]'", exc_type=ImportError)
pytest.importorskip("tenacity", reason="lm-eval's extra `api` is not installed: pip install aiohttp tenacity tiktoken")

from tunesmith.serve.app import create_app
from tunesmith.serve.bind import bind, url_of
from tunesmith.serve.lifecycle import Server

from .test_lm_eval import TASKS, base_folder, by_the_harness, figures, known_tasks, no_network, opened, write_tasks

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the harness and its libraries warn of much
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bf16, and figures are compared in fp32"),
]
__all__ = ["no_network"]
MAX_LENGTH = 256


@pytest.fixture
def url() -> Iterator[str]:
    """The embedded base behind a real server."""
    is_ready = Event()
    with bind("127.0.0.1", 0, has_key=False) as sock:
        app = create_app({"base": opened(base_folder(), max_length=MAX_LENGTH).served()}, api_key=None)
        server = Server(app, sock=sock, drain_timeout_s=10, on_ready=lambda _: is_ready.set())
        thread = Thread(target=server.run)
        thread.start()
        assert is_ready.wait(60)
        yield url_of(sock)
        server.stop()
        server.stop()
        thread.join(60)


def test_our_server_is_judged_as_the_model_behind_it(tmp_path: Path, url: str) -> None:
    from lm_eval import simple_evaluate

    tasks = write_tasks(tmp_path)
    ours: dict[str, Any] = simple_evaluate(
        model="local-completions",
        model_args={"model": "base", "base_url": f"{url}/v1/completions", "max_length": MAX_LENGTH, "batch_size": 4},
        tasks=list(tasks),
        task_manager=known_tasks(include_defaults=False),
        bootstrap_iters=0,
    )
    # A served text goes on by one token, for which the harness keeps room; and it counts what a context holds otherwise in both.
    scored = by_the_harness(base_folder(), tasks[:2], max_length=MAX_LENGTH - 2)
    written = by_the_harness(base_folder(), tasks[2:], max_length=MAX_LENGTH - 1)
    for task in TASKS:
        theirs = written if task == "own_answers" else scored
        assert figures(ours, task) == pytest.approx(figures(theirs, task), rel=1e-6), task
        for mine, its in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            assert mine["doc"] == its["doc"]
            if task == "own_choices":
                for (got,), (expected,) in zip(mine["resps"], its["resps"], strict=True):
                    assert got[0] == pytest.approx(expected[0], rel=1e-6)
                    assert got[1] == expected[1]
            elif task == "own_answers":
                assert mine["resps"] == its["resps"]

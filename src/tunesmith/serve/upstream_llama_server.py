"""llama.cpp's `llama-server` as the engine behind us.

It takes adapters at its start only (`--lora`), so a new version is a new process; `/lora-adapters` tells which it has. Its own defaults
cut the choice of tokens (`top_k` 40, `top_p` 0.95, `min_p` 0.05), which is why every value is sent.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from tunesmith.serve.upstream_driver import Driver
from tunesmith.serve.upstream_link import Link

__all__ = ["LLAMA_SERVER", "LoadedAdapter", "num_slots", "read_adapters"]


class LoadedAdapter(NamedTuple):
    """One of those that it was started with."""

    id: int
    file: str
    """Its name, without the folder."""
    scale: float


def read_adapters(link: Link) -> tuple[LoadedAdapter, ...]:
    """The adapters that answer, and how much each counts.

    Raises:
        EndpointError: the server cannot be asked.
    """
    listed = orjson.loads(link.ask("GET", "/lora-adapters").text)
    return tuple(LoadedAdapter(int(one["id"]), str(one["path"]).rpartition("/")[2], float(one["scale"])) for one in listed)


def num_slots(link: Link) -> int:
    """Answers that it writes at once.

    Raises:
        EndpointError: the server cannot be asked.
    """
    return len(orjson.loads(link.ask("GET", "/slots").text))


def _max_length(link: Link) -> int | None:
    settings = link.ask("GET", "/props").json().get("default_generation_settings")
    found = settings.get("n_ctx") if isinstance(settings, dict) else None
    return found if isinstance(found, int) and found > 0 else None


LLAMA_SERVER = Driver(
    name="llama",
    understands={
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repeat_penalty",
        "logit_bias": "logit_bias",
        "seed": "seed",
        "num_logprobs": "logprobs",
        "schema": "response_format",
    },
    seed_bits=31,
    health="/health",
    paths=frozenset({"/props", "/slots", "/lora-adapters"}),
    gauges={
        "running": ("llamacpp:requests_processing",),
        "waiting": ("llamacpp:requests_deferred",),
        "cache_used": ("llamacpp:kv_cache_usage_ratio",),
    },
    max_length=_max_length,
)

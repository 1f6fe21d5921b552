"""vLLM as the engine behind us.

Start it with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`, on the loopback or a private network: many of its routes want no
key. An adapter is a model there under the name that it was loaded by. Two things of vLLM decide how we load: a relative path that does
not exist is taken for a name on the hub and downloaded, and a name that is loaded again may be answered from cached blocks of what it
stood for before. So paths are absolute, and a name stands for one version for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tunesmith.records import Message
from tunesmith.serve.upstream_driver import Adapters, Driver
from tunesmith.serve.upstream_link import Link

__all__ = ["VLLM", "text_of", "tokens_in"]

_LOAD_TIMEOUT_S = 120.0
_COUNT_TIMEOUT_S = 5.0
_NOT_FOUND = 404


def tokens_in(content: Mapping[str, object]) -> list[int] | None:
    """The token ids that `/tokenize` tells."""
    tokens = content.get("tokens")
    return tokens if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens) else None


def text_of(link: Link, model: str, tokens: Sequence[int]) -> str | None:
    """The text that ids become there."""
    text = link.ask("POST", "/detokenize", {"model": model, "tokens": list(tokens)}).json().get("prompt")
    return text if isinstance(text, str) else None


def _tokens_of(link: Link, model: str, text: str) -> list[int] | None:
    return tokens_in(link.ask("POST", "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}).json())


async def _count_prompt(link: Link, model: str, messages: Sequence[Message]) -> int | None:
    turns = [{"role": turn.role.value, "content": turn.content} for turn in messages]
    body = {"model": model, "messages": turns, "add_generation_prompt": True}
    count = (await link.reply("POST", "/tokenize", body, timeout_s=_COUNT_TIMEOUT_S)).json().get("count")
    return count if isinstance(count, int) else None


def _load(link: Link, name: str, folder: Path) -> None:
    body = {"lora_name": name, "lora_path": str(folder)}
    link.ask("POST", "/v1/load_lora_adapter", body, timeout_s=_LOAD_TIMEOUT_S)


def _unload(link: Link, name: str) -> None:
    link.ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})


def _fields(_: str, name: str) -> dict[str, str]:
    return {"model": name}


def _is_missing(status: int, _: str) -> bool:
    return status == _NOT_FOUND


VLLM = Driver(
    name="vllm",
    understands={
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repetition_penalty",
        "logit_bias": "logit_bias",
        "seed": "seed",
        "num_logprobs": "logprobs",
        "schema": "response_format",
    },
    all_tokens=-1,
    reads_tokens=True,
    tells_usage_on_the_way=True,
    health="/health",
    paths=frozenset({"/tokenize", "/detokenize", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"}),
    gauges={
        "running": ("vllm:num_requests_running",),
        "waiting": ("vllm:num_requests_waiting",),
        "cache_used": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    },
    tokens_of=_tokens_of,
    count_prompt=_count_prompt,
    adapters=Adapters(_load, _unload, _fields, _is_missing),
)

"""SGLang as the engine behind us.

Start it with `--enable-lora`, and `--max-lora-rank` and `--lora-target-modules` wide enough for every version, on the loopback or a private
network. A request names the base as its model and the adapter beside it, in `lora_path`, which is a name and no path here.
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import EndpointError
from tunesmith.serve.upstream_driver import Adapters, Driver
from tunesmith.serve.upstream_faults import cleaned
from tunesmith.serve.upstream_link import Link, Reply
from tunesmith.serve.upstream_vllm import VLLM, tokens_in

__all__ = ["SGLANG"]

_LOAD_TIMEOUT_S = 120.0
_BAD_REQUEST = 400


def _tokens_of(link: Link, model: str, text: str) -> list[int] | None:
    reply = link.try_to_ask("POST", "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
    return tokens_in(reply.json())


def _load(link: Link, name: str, folder: Path) -> None:
    body = {"lora_name": name, "lora_path": str(folder)}
    _check(link, link.ask("POST", "/load_lora_adapter", body, timeout_s=_LOAD_TIMEOUT_S), name)


def _unload(link: Link, name: str) -> None:
    _check(link, link.ask("POST", "/unload_lora_adapter", {"lora_name": name}), name)


def _check(link: Link, reply: Reply, name: str) -> None:
    """Its answer says beside the status whether it was done."""
    content = reply.json()
    if content.get("success") is False:
        said = cleaned(str(content.get("error_message") or ""), key=link.api_key)
        raise EndpointError(f"{link.address}: adapter {name}: {said or 'it was not done'}")


def _fields(base: str, name: str) -> dict[str, str]:
    return {"model": base, "lora_path": name}


def _is_missing(status: int, body: str) -> bool:
    """It says so with the status of any bad request."""
    return status == _BAD_REQUEST and "LoRA" in body and "loaded" in body


SGLANG = Driver(
    name="sglang",
    understands=VLLM.understands,
    all_tokens=-1,
    reads_tokens=True,
    tells_usage_on_the_way=True,
    health="/health_generate",
    paths=frozenset({"/tokenize", "/load_lora_adapter", "/unload_lora_adapter"}),
    gauges={
        "running": ("sglang:num_running_reqs",),
        "waiting": ("sglang:num_queue_reqs",),
        "cache_used": ("sglang:token_usage",),
    },
    tokens_of=_tokens_of,
    adapters=Adapters(_load, _unload, _fields, _is_missing),
)

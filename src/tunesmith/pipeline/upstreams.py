"""A version behind somebody else's engine: we stay what clients speak to, and vLLM or another server makes the tokens.

The version's weights are never loaded here; its tokenizer, its template and its length are. Where the server reads token ids, they are
those of training, and its tokenizer is held against the version's first: ids of one vocabulary are noise in another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tunesmith.errors import EndpointError, ModelError, UserError
from tunesmith.store import Store, sound_files_of

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.serve.upstream import UpstreamEngine
    from tunesmith.serve.upstream_ask import PromptFormat
    from tunesmith.serve.upstream_driver import Driver
    from tunesmith.serve.upstream_link import Link

__all__ = ["UPSTREAM_KEY", "Upstream", "UpstreamKind", "open_upstream", "read_upstream"]

UPSTREAM_KEY = "TUNESMITH_UPSTREAM_KEY"
"""The environment variable that holds the server's key."""
_PROBE = "Price: 1,234.50 € (–5 %), naïve café\n\tNº 7:  “two blanks”, straße, Ελλάδα, 日本語, 🙂."
_WARM_TIMEOUT_S = 120.0


class UpstreamKind(StrEnum):
    """Servers that are known; `openai` is any other of OpenAI's chat API."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMA = "llama"
    OPENAI = "openai"


class Upstream(NamedTuple):
    """A server that makes tokens for us."""

    url: str
    kind: UpstreamKind


def read_upstream(url: str | None, driver: UpstreamKind | None) -> Upstream | None:
    """What the two options say together; None where neither is given.

    Raises:
        UserError: one is given without the other.
    """
    if url is None and driver is None:
        return None
    if url is None:
        raise UserError(f"--driver {driver} says how to speak to a server, and --upstream URL which; give both")
    if driver is None:
        raise UserError(f"--upstream needs --driver, the kind of the server: {', '.join(UpstreamKind)}")
    return Upstream(url, driver)


@contextmanager
def open_upstream(ref: str, upstream: Upstream, *, store: Store) -> Iterator[UpstreamEngine]:
    """A version as a `serve.Engine` whose tokens the server makes, once it has made one. Its adapter stays loaded there at the end.

    Raises:
        NotFound: no such version.
        BrokenArtefact: its files are not what was stored.
        ModelError: the server's tokenizer is another, or it cannot serve this kind of version.
        EndpointError: the server cannot be reached, or refuses.
    """
    from tunesmith.data.chat import ChatFormat
    from tunesmith.serve.upstream_link import Link

    version = store.ledger.version(ref)
    folder = sound_files_of(version, store=store).path
    driver = _driver(upstream.kind)
    link = Link(upstream.url, paths=driver.may_ask, api_key=os.environ.get(UPSTREAM_KEY, "").strip() or None)
    try:
        yield _engine(version.ref, folder, link, driver, chat=ChatFormat.load(folder), root=store.artefacts.root)
    finally:
        link.close()


def _engine(ref: str, folder: Path, link: Link, driver: Driver, *, chat: ChatFormat, root: Path) -> UpstreamEngine:
    from tunesmith.pipeline.versions import ADAPTER_CONFIG, MODEL_FACTS
    from tunesmith.serve.upstream import UpstreamEngine
    from tunesmith.serve.upstream_adapters import UpstreamAdapters, cards, warm

    listed = cards(link)
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    by_name = driver.adapters is not None and is_adapter
    name = _base_of(listed, link) if by_name else ref if ref in listed else _base_of(listed, link)
    lengths = [
        orjson.loads((folder / MODEL_FACTS).read_bytes())["max_length"],
        listed[name].get("max_model_len"),
        driver.max_length(link) if driver.max_length else None,
    ]
    max_length = min(length for length in lengths if isinstance(length, int))
    layout = _layout(ref, link, driver, name=name, chat=chat)
    if by_name:
        _check_kind(ref, folder)
        adapters = UpstreamAdapters(link, driver, store=root, base=name, max_length=max_length)
        return adapters.open(ref, folder, max_length=max_length, layout=layout, timeout_s=_WARM_TIMEOUT_S)
    engine = UpstreamEngine(ref=ref, link=link, driver=driver, model={"model": name}, max_length=max_length, layout=layout)
    warm(engine, timeout_s=_WARM_TIMEOUT_S)
    return engine


def _base_of(listed: Mapping[str, Mapping[str, Any]], link: Link) -> str:
    """The one whole model that the server has."""
    names = [name for name, card in listed.items() if not card.get("parent")]
    if len(names) != 1:
        raise EndpointError(
            f"{link.address} has {len(names)} whole models ({', '.join(names[:5]) or 'none'}); serve one for each server"
        )
    return names[0]


def _layout(ref: str, link: Link, driver: Driver, *, name: str, chat: ChatFormat) -> PromptFormat | None:
    """The version's own layout, where the server reads token ids and is seen to have the version's tokenizer."""
    from tunesmith.serve.upstream_ask import PromptFormat

    if not driver.reads_tokens or driver.tokens_of is None:
        return None
    there, here = driver.tokens_of(link, name, _PROBE), chat.encode_text(_PROBE, begun=False)
    if there is None:
        return None
    if there != here:
        raise ModelError(
            f"{link.address} has another tokenizer than {ref}: a text of {len(here)} tokens here has {len(there)} there, or other ids. "
            "Start it with the base that the version was trained on"
        )
    return PromptFormat(chat.encode_prompt, tuple(chat.stop_tokens))


def _check_kind(ref: str, folder: Path) -> None:
    from tunesmith.pipeline.versions import ADAPTER_CONFIG

    kind = orjson.loads((folder / ADAPTER_CONFIG).read_bytes()).get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"{ref} is an adapter of the kind {kind}; servers take LoRA adapters only. `tunesmith export {ref} --to merged` "
            "makes a whole model of one that can be merged"
        )


def _driver(kind: UpstreamKind) -> Driver:
    from tunesmith.serve.upstream_driver import OPENAI
    from tunesmith.serve.upstream_llama_server import LLAMA_SERVER
    from tunesmith.serve.upstream_sglang import SGLANG
    from tunesmith.serve.upstream_vllm import VLLM

    drivers = {
        UpstreamKind.VLLM: VLLM,
        UpstreamKind.SGLANG: SGLANG,
        UpstreamKind.LLAMA: LLAMA_SERVER,
        UpstreamKind.OPENAI: OPENAI,
    }
    return drivers[kind]

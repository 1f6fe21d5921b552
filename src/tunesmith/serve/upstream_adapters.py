"""Versions as adapters of one server behind us: load, warm, flip, drain, unload.

A version's adapter is loaded under the version's own name, from its folder in our store, and answers one token before anybody is sent
to it. The name is never given to anything else: where the server has it already, from another folder, that is an error and no reason to
load over it. What was replaced is unloaded when nobody waits for it any more, and stays when somebody does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.errors import EndpointError, ModelError
from tunesmith.records import Message, Role
from tunesmith.serve.engine import SamplingParams, Wait
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.upstream import UpstreamEngine
from tunesmith.serve.upstream_ask import PromptFormat
from tunesmith.serve.upstream_driver import Adapters, Driver
from tunesmith.serve.upstream_link import Link

__all__ = ["UpstreamAdapters", "cards", "warm"]

_FILES = ("adapter_config.json", "adapter_model.safetensors")
_POLL_S = 0.05
_LOG = logging.getLogger("tunesmith.serve")


class UpstreamAdapters:
    """The adapters of one server. Its calls wait for the network; make them from one thread that answers nobody."""

    def __init__(self, link: Link, driver: Driver, *, store: Path, base: str, max_length: int) -> None:
        """Keep the parts.

        Args:
            link: to the server.
            driver: its kind; it must take adapters.
            store: the folder of our artefacts, in which every adapter lies; the server must see it under the same path.
            base: what the server calls its base.
            max_length: of its context in tokens.
        """
        if driver.adapters is None:
            raise ModelError(f"a {driver.name} server takes no adapters while it runs; start it with the adapter")
        self._adapters: Adapters = driver.adapters
        self._link = link
        self._driver = driver
        self._store = store
        self._base = base
        self._max_length = max_length
        self._folders: dict[str, Path] = {}

    def open(
        self, ref: str, folder: Path, *, max_length: int, layout: PromptFormat | None, timeout_s: float = 120.0
    ) -> UpstreamEngine:
        """Load a version, and let it answer one token.

        Args:
            ref: its name, such as `boutique@7`.
            folder: of its adapter, in the store.
            max_length: tokens that it may have in its context; the server's own limit counts too.
            layout: how training laid conversations out.
            timeout_s: for its first token.

        Raises:
            ModelError: the folder is not in the store, or holds no adapter.
            EndpointError: the server refuses it, has another one of this name, or does not answer with it.
        """
        folder = self._checked(folder)
        if self._folders.setdefault(ref, folder) != folder:
            raise EndpointError(f"{self._link.address}: the name {ref} stood for another adapter before; a name is never reused")
        is_ours = self._ensure(ref, folder)
        engine = UpstreamEngine(
            ref=ref,
            link=self._link,
            driver=self._driver,
            model=self._adapters.fields(self._base, ref),
            max_length=min(max_length, self._max_length),
            layout=layout,
        )
        try:
            warm(engine, timeout_s=timeout_s)
        except EndpointError:
            if is_ours:
                self._adapters.unload(self._link, ref)
            raise
        engine.restore = lambda: self._restore(ref, folder)
        return engine

    def swap(
        self,
        new: Callable[[], UpstreamEngine],
        *,
        flip: Callable[[UpstreamEngine], None],
        old: UpstreamEngine | None,
        num_waiting: Callable[[], int],
        patience_s: float = 600.0,
    ) -> UpstreamEngine:
        """Put a version in another's place without failing anybody.

        Args:
            new: opens it (`open`); where that fails, nothing has changed.
            flip: sends all new requests to it.
            old: what it replaces.
            num_waiting: requests that were accepted for the old one and are not answered yet, queued ones included.
            patience_s: how long to wait for these.
        """
        engine = new()
        flip(engine)
        if old is not None and old.ref != engine.ref:
            self.retire(old, num_waiting=num_waiting, patience_s=patience_s)
        return engine

    def retire(self, engine: UpstreamEngine, *, num_waiting: Callable[[], int], patience_s: float) -> bool:
        """Unload a version to which nobody is sent any more, when it has answered all.

        Returns:
            Whether it was unloaded. One that is still used after so long stays where it is.

        Raises:
            EndpointError: the server refuses.
        """
        deadline = time.monotonic() + patience_s
        while num_waiting() or engine.num_open:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        engine.restore = None
        self._adapters.unload(self._link, engine.ref)
        return True

    def _ensure(self, ref: str, folder: Path) -> bool:
        """Load it where it is not loaded. Whether that was done."""
        card = cards(self._link).get(ref)
        if card is None:
            self._adapters.load(self._link, ref, folder)
            return True
        if card.get("root") != str(folder):
            raise EndpointError(
                f"{self._link.address} has another adapter of the name {ref}. Unload it there, or start that server anew: "
                "a name that is loaded again may be answered from what it stood for before"
            )
        return False

    def _restore(self, ref: str, folder: Path) -> None:
        if self._ensure(ref, folder):
            _LOG.warning("%s had lost %s; it is loaded again", self._link.address, ref)

    def _checked(self, folder: Path) -> Path:
        """The folder as the server is told: absolute, and inside the store even after links are followed."""
        store = self._store.resolve()
        found = folder.resolve()
        if not found.is_relative_to(store) or found == store:
            raise ModelError("only adapters of this workspace's store are handed to a server behind us")
        if missing := [name for name in _FILES if not (found / name).is_file()]:
            raise ModelError(f"{found.name} is no adapter: it has no {missing[0]}")
        return found


def cards(link: Link) -> dict[str, dict[str, Any]]:
    """What the server lists as its models, by name.

    Raises:
        EndpointError: it cannot be asked, or lists none.
    """
    listed = link.ask("GET", "/v1/models").json().get("data")
    if not isinstance(listed, list):
        raise EndpointError(f"{link.address}: this does not look like a server of language models: it lists none")
    return {str(card["id"]): card for card in listed if isinstance(card, dict) and "id" in card}


def warm(engine: UpstreamEngine, *, timeout_s: float) -> None:
    """Have one token of it, as a client would.

    Raises:
        EndpointError: there is none.
    """
    deadline = time.monotonic() + timeout_s
    answer = engine.stream([Message(role=Role.USER, content="Hello")], SamplingParams(max_tokens=1, temperature=0.0))
    try:
        for news in answer:
            if not isinstance(news, Wait):
                continue
            if time.monotonic() >= deadline:
                raise EndpointError(f"{engine.ref} did not answer within {timeout_s:g} s behind us")
            engine.step()
    except Refusal as refusal:
        raise EndpointError(f"{engine.ref} does not answer behind us: {refusal.message}") from None
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()

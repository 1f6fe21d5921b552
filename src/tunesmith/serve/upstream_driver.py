"""What is known of a kind of server that answers for us: which fields it understands, and where it is asked for what.

A driver is data and a few functions; the asking itself is the same for all (`upstream`). Whatever a driver does not claim is refused
by name, because servers ignore fields that they do not know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from tunesmith.errors import EndpointError
from tunesmith.records import Message
from tunesmith.serve.upstream_link import Link

__all__ = ["OPENAI", "Adapters", "Driver", "Load", "is_ready", "read_load"]


class Load(NamedTuple):
    """How busy a server says that it is; None where it does not tell."""

    running: int | None
    waiting: int | None
    cache_used: float | None
    """Of the memory for keys and values; 0 to 1."""


class Adapters(NamedTuple):
    """How a server takes adapters while it runs."""

    load: Callable[[Link, str, Path], None]
    """Under a name, from an absolute folder."""
    unload: Callable[[Link, str], None]
    fields: Callable[[str, str], Mapping[str, str]]
    """What a request says to be answered by it: given the base's name there and the adapter's."""
    is_missing: Callable[[int, str], bool]
    """Whether a refusal (its status and body) says that the adapter is not loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """One kind of server."""

    name: str
    understands: Mapping[str, str] = field(default_factory=dict)
    """Parameters beyond temperature, top_p and the two penalties of OpenAI: our name of each, and the server's."""
    all_tokens: int = 0
    """The `top_k` that takes all."""
    reads_tokens: bool = False
    """`/v1/completions` takes a prompt as token ids, and `stop_token_ids`."""
    tells_usage_on_the_way: bool = False
    """It knows `stream_options.continuous_usage_stats`."""
    seed_bits: int = 63
    health: str = "/v1/models"
    """Answers 200 when the server can answer chats."""
    paths: frozenset[str] = frozenset()
    """What it may be asked beside models, chats and completions."""
    gauges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names in `/metrics` of each field of `Load`; names have changed over time, and the first that is there counts."""
    tokens_of: Callable[[Link, str, str], list[int] | None] | None = None
    """Ids of a plain text, as the named model reads it."""
    count_prompt: Callable[[Link, str, Sequence[Message]], Awaitable[int | None]] | None = None
    """Tokens of a conversation, as the named model reads it. On the link's own thread."""
    max_length: Callable[[Link], int | None] | None = None
    """Its context in tokens, where `/v1/models` does not tell."""
    adapters: Adapters | None = None

    @property
    def may_ask(self) -> frozenset[str]:
        """Paths for its `Link`."""
        return self.paths | {self.health} | ({"/metrics"} if self.gauges else frozenset())


OPENAI = Driver(name="openai", understands={"seed": "seed", "logit_bias": "logit_bias", "num_logprobs": "logprobs"})
"""Any other server of OpenAI's chat API. Whether it keeps to a schema is not known, so none is sent."""


def is_ready(link: Link, driver: Driver) -> bool:
    """Whether the server says that it can answer."""
    try:
        return link.try_to_ask("GET", driver.health, timeout_s=10.0).status == HTTPStatus.OK
    except EndpointError:
        return False


def read_load(link: Link, driver: Driver) -> Load:
    """How busy the server is.

    Raises:
        EndpointError: it cannot be asked.
    """
    from prometheus_client.parser import text_string_to_metric_families

    if not driver.gauges:
        return Load(None, None, None)
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(link.ask("GET", "/metrics").text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value

    def gauge(name: str) -> float | None:
        return next((found[one] for one in driver.gauges[name] if one in found), None)

    running, waiting = gauge("running"), gauge("waiting")
    return Load(
        running=None if running is None else int(running),
        waiting=None if waiting is None else int(waiting),
        cache_used=gauge("cache_used"),
    )

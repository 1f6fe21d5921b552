"""A model behind HTTP: its versions from the registry, the protocol from `serve`, the keys from the ledger."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunesmith.errors import UserError
from tunesmith.pipeline.jobs import TuningJobs
from tunesmith.pipeline.served_line import ServedLine
from tunesmith.pipeline.upstreams import Upstream, open_upstream
from tunesmith.serve import Engine, Limits, check_bind, create_app, serve
from tunesmith.store import RequestLog, Store
from tunesmith.store.api_keys import ALL_SCOPES
from tunesmith.store.jobs import Jobs
from tunesmith.store.keys import NewKey

if TYPE_CHECKING:
    from tunesmith.serve.access_log import JsonLines

__all__ = ["Access", "Listening", "Making", "Noting", "serve_version"]

Precision = Literal["auto", "fp32", "bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may come in, by which names, and where the operator does."""

    api_key: str | None = None
    """A key that opens everything, beside those of the ledger."""
    no_auth: bool = False
    """Answer whoever is on this machine."""
    allowed_hosts: tuple[str, ...] = ()
    """Names of the server beside this machine's own and the address that it listens on."""
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    """0 takes a free one; None has no such port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How the tokens are made."""

    precision: Precision = "fp32"
    """fp32 is what was evaluated; `auto` measures whether bf16 is faster here; int8 is taken only when it is asked for."""
    on_precision: Callable[[str], None] | None = None
    """Told what another precision than fp32 comes to here, and what was measured."""
    max_loaded: int = 4
    """Versions in memory at once; the champion's come first."""
    upstream: Upstream | None = None
    """Another server that makes them, in place of this process; it serves one version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noting:
    """What is written down of requests. Every answer leaves a row in the workspace's request log."""

    log_json: bool = False
    """Lines of JSON to stderr, one for each request, without texts."""
    log_content: bool = False
    """Keep questions and answers too."""
    log_days: float = 30.0
    """For how long rows are kept."""


class Listening(NamedTuple):
    """What the operator must know once connections are accepted."""

    url: str
    admin_url: str | None
    new_key: NewKey | None
    """Made now, because there was none. Its secret is told here and never again."""


def serve_version(
    ref: str,
    *,
    store: Store,
    host: str,
    port: int,
    making: Making = Making(),
    access: Access = Access(),
    request_timeout_s: float = 600.0,
    grace_s: float = 0.0,
    noting: Noting = Noting(),
    on_ready: Callable[[Listening], None] | None = None,
    ends_process: bool = False,
) -> None:
    """Serve what the registry says of a model until SIGTERM or Ctrl-C, and go on doing so when it changes.

    Clients may send files and have models tuned, which are then served too.

    Args:
        ref: as of `ServedLine`.
        store: has the versions and the keys.
        host: off this machine only where there is a key.
        port: 0 takes a free one.
        making: how the tokens are made.
        access: who may come in. On this machine a first key is made where there is none.
        request_timeout_s: for a whole request, waiting included.
        grace_s: how long requests are still let in after the first signal.
        noting: what is written down of requests.
        on_ready: told once chats are answered.
        ends_process: nothing comes after it, and no further signal is heard; only in a process's main thread.

    Raises:
        UserError: the address is off this machine and there is no key, keys are given and set aside at once, or the port is taken.
        NotFound: no such version.
        BrokenArtefact: its files are not what was stored.
        ModelError: it is an adapter, and its base is gone or has changed; int8 of a model that it does not suit.
    """
    has_key = _check(access, host=host, store=store)
    names = access.allowed_hosts if host in {"", "0.0.0.0", "::"} else (*access.allowed_hosts, host)  # noqa: S104 - compared

    def tell(url: str) -> None:
        # Not before the address is ours: a key that nobody was told would keep the next start from making one.
        new = None if has_key or access.no_auth else _first_key(store)
        if on_ready is not None:
            on_ready(Listening(url, getattr(app.state, "admin_url", None), new))

    with ExitStack() as stack:
        app = _app(
            ref, store=store, making=making, access=access, names=names, noting=noting, timeout_s=request_timeout_s, stack=stack
        )
        ports = partial(serve, host=host, port=port, admin_host=access.admin_host, admin_port=access.admin_port)
        ports(app, grace_s=grace_s, on_ready=tell, ends_process=ends_process)


def _app(
    ref: str,
    *,
    store: Store,
    making: Making,
    access: Access,
    names: Sequence[str],
    noting: Noting,
    timeout_s: float,
    stack: ExitStack,
) -> Any:
    """What `serve` takes; the framework's name stays in that room."""
    served = stack.enter_context(_served(ref, store=store, making=making))  # before anything is written: it may not be there
    notes = _notes(noting, store=store, stack=stack)
    app = create_app(
        served.engines,
        registry=served.registry,
        tuning=served.tuning,
        api_key=access.api_key,
        keys=None if access.no_auth else store.keys,
        allowed_hosts=names,
        access_log=notes.lines.write if notes.lines else None,
        on_interaction=notes.log.add,
        feedback=notes.log,
        dropped=lambda: notes.log.dropped,
        disk=store.root,
        limits=Limits(request_timeout_s=timeout_s, max_loaded=making.max_loaded),
    )
    if served.tuning is not None:
        stack.enter_context(served.tuning.running(on_finished=app.state.service.require))
    return app


def _check(access: Access, *, host: str, store: Store) -> bool:
    """Refuse what cannot be meant. Returns whether there is a key already."""
    if access.no_auth and access.api_key:
        raise UserError(
            "--no-auth serves without keys, and a key is given (--api-key or TUNESMITH_API_KEY): leave out one of the two"
        )
    if access.no_auth and access.admin_port is not None:
        raise UserError("the admin port needs keys: leave out --no-auth, or --admin-port")
    has_key = not access.no_auth and bool(access.api_key or store.keys.good())
    check_bind(host, "a key" if has_key else None)
    return has_key


class _Served(NamedTuple):
    engines: Mapping[str, Engine]
    registry: ServedLine | None
    tuning: TuningJobs | None
    """None where another server makes the tokens: it could not serve what the jobs make."""


@contextmanager
def _served(ref: str, *, store: Store, making: Making) -> Iterator[_Served]:
    """What makes the tokens."""
    if making.upstream is not None:
        with open_upstream(ref, making.upstream, store=store) as engine:
            yield _Served(dict.fromkeys((ref, engine.ref), engine), None, None)
        return
    from tunesmith.model.decode_speed import settled_decoding

    settled = settled_decoding(making.precision)
    if settled.why and making.on_precision is not None:
        making.on_precision(settled.why)
    jobs = Jobs(store.ledger)
    line = ServedLine(ref, store=store, settled=settled, also=jobs.made)
    yield _Served({}, line, TuningJobs(store, served=line.version_of))


def _first_key(store: Store) -> NewKey:
    return store.keys.create("first", scopes=ALL_SCOPES)


class _Notes(NamedTuple):
    log: RequestLog
    lines: JsonLines | None


def _notes(noting: Noting, *, store: Store, stack: ExitStack) -> _Notes:
    lines = _log_as_json(stack) if noting.log_json else None
    log = RequestLog(store.requests, with_content=noting.log_content, keep_days=noting.log_days)
    stack.callback(log.close)
    return _Notes(log, lines)


def _log_as_json(stack: ExitStack) -> JsonLines:
    from tunesmith.serve.access_log import JsonLines

    lines = JsonLines(sys.stderr)
    stack.callback(lines.drain)
    for name in ("tunesmith", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(lines)
        logger.propagate = False
    return lines

"""The proof that a version says over HTTP what it says in the library, and the check of somebody else's server.

The server is ours, in a process of its own that loads the saved files, on a free loopback port and behind a key drawn for it.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

import orjson

from tunesmith.data.contract import Contract
from tunesmith.evaluate.server import Server
from tunesmith.evaluate.server_proofs import WEIGHTS, prove_server
from tunesmith.records import Proof

if TYPE_CHECKING:
    from tunesmith.train import Subject

__all__ = ["Served", "Start", "fresh_server", "prove_served"]

COMMAND = (sys.executable, "-m", "tunesmith.pipeline.served_child")
_NAME = "served over HTTP = library"
_MEANING = "Whoever asks over HTTP gets the very tokens, likelihoods and answers of the library."
_FP32 = 1e-4
"""Nats per token: two processes sum in other orders."""
_OTHERS = 0.05
_PATIENCE_S = 120.0


class Served(NamedTuple):
    """A server of ours that is starting."""

    url: Callable[[], str]
    """Waits until connections are accepted; raises RuntimeError, with what the process said last, if it failed."""
    key: str


class Start(Protocol):
    """Gives a fresh process its model to serve."""

    def __call__(self, subject: Subject, /, *, ref: str) -> Served: ...


@contextmanager
def fresh_server() -> Iterator[Start]:
    """Start a process that will serve one model. It does not outlive the block."""
    process = subprocess.Popen(  # noqa: S603  our own module, in our own interpreter
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def start(subject: Subject, /, *, ref: str) -> Served:
        key = secrets.token_urlsafe(24)
        task = {
            "folder": str(subject.saved.folder),
            "base": str(subject.saved.base) if subject.saved.is_adapter else None,
            "ref": ref,
            "max_length": subject.context or subject.max_length,
            "key": key,
        }
        assert process.stdin is not None
        try:
            process.stdin.write(orjson.dumps(task) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has failed already, and the first question says why
        return Served(cache(lambda: _url(process)), key)

    with process:
        try:
            yield start
        finally:
            process.kill()


def prove_served(served: Served, contract: Contract | None, *, ref: str) -> Proof:
    """Hold our own server to a contract that the library has made."""
    if contract is None:
        return Proof(name=_NAME, meaning=_MEANING, compared="there are no conversations", holds=None)
    try:
        with Server(served.url(), model=ref, api_key=served.key) as server:
            tolerance = _FP32 if contract.number_format == "float32" else _OTHERS
            proofs = prove_server(contract, server, tolerance=tolerance)
    except Exception as error:  # whatever it is, the sheet must say that this claim stands on nothing
        return Proof(name=_NAME, meaning=_MEANING, compared=f"{type(error).__name__}: {error}"[:400], holds=False)
    wrong = [proof for proof in proofs if proof.holds is False]
    figure = next((proof.figure for proof in proofs if proof.name == WEIGHTS), None)
    what = "; ".join(f"{proof.name}: {proof.compared}" for proof in wrong or proofs if proof.holds is not None)
    return Proof(
        name=_NAME,
        meaning=_MEANING,
        compared=f"our server in a new process, asked over a socket: {what}"[:1000],
        figure=figure,
        tolerance=None if figure is None else tolerance,
        holds=not wrong,
    )


def _url(process: subprocess.Popen[bytes]) -> str:
    """The first line that it says; a process that says nothing for too long is ended."""
    assert process.stdout is not None
    assert process.stderr is not None
    patience = threading.Timer(_PATIENCE_S, process.kill)
    patience.start()
    try:
        line = process.stdout.readline().decode().strip()
    finally:
        patience.cancel()
    if not line:
        raise RuntimeError(f"the server did not start: {_last(process.stderr)}")
    return line


def _last(said: IO[bytes]) -> str:
    return said.read().decode(errors="replace").strip()[-300:]

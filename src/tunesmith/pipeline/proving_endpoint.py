"""`tunesmith prove NAME@N --endpoint URL`: somebody's server, held to what the version says."""

from __future__ import annotations

from tunesmith.evaluate.server import Server
from tunesmith.evaluate.server_proofs import prove_server
from tunesmith.pipeline.progress import Silent, Watcher
from tunesmith.pipeline.proving import Sheet, contract_for
from tunesmith.records import Proof
from tunesmith.store import Store

__all__ = ["prove_endpoint"]


def prove_endpoint(
    ref: str,
    *,
    url: str,
    store: Store,
    model: str | None = None,
    api_key: str | None = None,
    timeout_s: float = 60.0,
    watcher: Watcher | None = None,
) -> Sheet:
    """Check a server (vLLM, SGLang, llama.cpp's, Ollama, ours) against a version. The sheet is not stored.

    The questions are those of a few training rows, and are sent to the server.

    Args:
        ref: the version, such as `boutique@3`.
        url: of the server, with or without `/v1`.
        store: the workspace.
        model: its name there; None takes the only one.
        api_key: sent as a bearer token.
        timeout_s: for one answer.
        watcher: hears each proof as it is tried.

    Raises:
        NotFound: no such version.
        EndpointError: the server cannot be reached, is none, wants a key, or does not have the model.
    """
    watch = watcher or Silent()
    version = store.ledger.version(ref)
    proofs: list[Proof] = []

    def tell(proof: Proof) -> None:
        proofs.append(proof)
        watch.progress("proofs tried", done=len(proofs), total=None)

    with Server(url, model=model, api_key=api_key, timeout_s=timeout_s) as server:
        prove_server(contract_for(version, store=store), server, on_proof=tell)
        return Sheet(
            subject=version.ref, model=version.artefact, machine=f"{server.model} at {server.address}", proofs=tuple(proofs)
        )

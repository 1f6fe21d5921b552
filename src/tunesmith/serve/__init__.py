"""A model behind an OpenAI-compatible HTTP API: request in, whole characters out, an `Interaction` for each answer.

An `Engine` is the only thing this room knows of a model: it answers in pieces of text, blocking, and is touched by one thread. A
`TokenEngine` can also be asked for tokens and their likelihoods, and a `BatchingEngine` answers many at once. Who has no room waits in
a bounded queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

if TYPE_CHECKING:
    from tunesmith.serve.annotate import PageName, serve_annotation
    from tunesmith.serve.app import create_app
    from tunesmith.serve.arms import Route
    from tunesmith.serve.bind import check_bind
    from tunesmith.serve.engine import (
        BatchingEngine,
        DescribedEngine,
        EmbeddingEngine,
        Engine,
        MeasuredEngine,
        Piece,
        SamplingParams,
        Scored,
        TokenEngine,
        TokenLogprob,
        Unanswerable,
        Wait,
    )
    from tunesmith.serve.lifecycle import serve
    from tunesmith.serve.limits import Limits
    from tunesmith.serve.router import Registry

__all__ = [
    "BatchingEngine",
    "DescribedEngine",
    "EmbeddingEngine",
    "Engine",
    "Limits",
    "MeasuredEngine",
    "PageName",
    "Piece",
    "Registry",
    "Route",
    "SamplingParams",
    "Scored",
    "TokenEngine",
    "TokenLogprob",
    "Unanswerable",
    "Wait",
    "check_bind",
    "create_app",
    "serve",
    "serve_annotation",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "BatchingEngine": "engine",
        "DescribedEngine": "engine",
        "EmbeddingEngine": "engine",
        "Engine": "engine",
        "Limits": "limits",
        "MeasuredEngine": "engine",
        "PageName": "annotate",
        "Piece": "engine",
        "Registry": "router",
        "Route": "arms",
        "SamplingParams": "engine",
        "Scored": "engine",
        "TokenEngine": "engine",
        "TokenLogprob": "engine",
        "Unanswerable": "engine",
        "Wait": "engine",
        "check_bind": "bind",
        "create_app": "app",
        "serve": "lifecycle",
        "serve_annotation": "annotate",
    },
)

"""A version behind HTTP: the model from `versions`, the protocol from `serve`."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.pipeline.versions import open_version
from tunesmith.serve import check_bind, create_app, serve
from tunesmith.store import Store

__all__ = ["serve_version"]


def serve_version(
    ref: str, *, store: Store, host: str, port: int, api_key: str | None, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve a version until SIGTERM or Ctrl-C.

    Clients may ask for it by the name it was asked for here, or by its immutable ref.

    Raises:
        UserError: the address is off this machine and there is no key, or the port is taken.
        NotFound: no such version.
    """
    check_bind(host, api_key)
    opened = open_version(ref, store=store)
    app = create_app(dict.fromkeys((ref, opened.ref), opened.served()), api_key=api_key)
    serve(app, host=host, port=port, on_ready=on_ready)

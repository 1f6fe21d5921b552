"""`tunesmith serve`: a version behind OpenAI's own API."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunesmith.cli.common import AsJson, Workspace, open_store
from tunesmith.pipeline.upstreams import UpstreamKind

if TYPE_CHECKING:
    from tunesmith.pipeline.serving import Listening

__all__ = ["serve"]

Precision = Literal["auto", "fp32", "bf16", "int8"]
Model = Annotated[str, typer.Argument(help="A name (its champion answers), or a version such as boutique@1.")]
Host = Annotated[str, typer.Option(help="Address to listen on; off this machine only with a key.")]
Port = Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="A key that opens everything. Default: TUNESMITH_API_KEY.")]
NoAuth = Annotated[bool, typer.Option("--no-auth", help="Serve without keys, to this machine only.")]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host", metavar="NAME", envvar="TUNESMITH_ALLOWED_HOSTS", help="A name of the server; may be given often."
    ),
]
AdminPort = Annotated[
    int | None,
    typer.Option("--admin-port", help="The operator's API, on a port of its own; 0 takes a free one.", min=0, max=65535),
]
AdminHost = Annotated[str, typer.Option("--admin-host", help="Its address.")]
Timeout = Annotated[
    float, typer.Option("--request-timeout", metavar="SECONDS", help="For a whole request, waiting included.", min=1.0)
]
Grace = Annotated[
    float, typer.Option("--grace", metavar="SECONDS", help="Still let requests in for so long after SIGTERM.", min=0.0)
]
LogJson = Annotated[
    bool | None, typer.Option("--log-json/--no-log-json", help="Log lines of JSON to stderr. Default: where that is no terminal.")
]
LogContent = Annotated[
    bool, typer.Option("--log-content", help="Keep questions and answers too; without it only their figures are kept.")
]
LogDays = Annotated[float, typer.Option("--log-days", metavar="DAYS", help="For how long answers are kept.", min=0.0)]
ServedIn = Annotated[
    Precision, typer.Option(help="fp32 is what was evaluated; auto takes bf16 where it is faster; int8 is a choice.")
]
MaxLoaded = Annotated[
    int, typer.Option("--max-loaded", metavar="N", help="Versions in memory at once; the champion's come first.", min=1)
]
UpstreamUrl = Annotated[
    str | None, typer.Option("--upstream", metavar="URL", help="A server that makes the tokens; ours stays before it.")
]
DriverKind = Annotated[UpstreamKind | None, typer.Option(help="The kind of that server.")]


def serve(
    model: Model,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    no_auth: NoAuth = False,
    allowed_host: AllowedHosts = None,
    admin_port: AdminPort = None,
    admin_host: AdminHost = "127.0.0.1",
    request_timeout_s: Timeout = 600.0,
    grace: Grace = 0.0,
    log_json: LogJson = None,
    log_content: LogContent = False,
    log_days: LogDays = 30.0,
    precision: ServedIn = "fp32",
    max_loaded: MaxLoaded = 4,
    upstream: UpstreamUrl = None,
    driver: DriverKind = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Answer over HTTP in OpenAI's own format, with the versions that the registry names, as it changes."""
    from tunesmith.pipeline import serve_version
    from tunesmith.pipeline.serving import Access, Making, Noting
    from tunesmith.pipeline.upstreams import read_upstream

    serve_version(
        model,
        store=open_store(workspace),
        host=host,
        port=port,
        making=Making(
            precision=precision,
            on_precision=lambda why: typer.echo(why, err=True),
            max_loaded=max_loaded,
            upstream=read_upstream(upstream, driver),
        ),
        access=Access(
            api_key=api_key or os.environ.get("TUNESMITH_API_KEY") or None,
            no_auth=no_auth,
            allowed_hosts=tuple(allowed_host or ()),
            admin_host=admin_host,
            admin_port=admin_port,
        ),
        ends_process=threading.current_thread() is threading.main_thread(),
        request_timeout_s=request_timeout_s,
        grace_s=grace,
        noting=Noting(
            log_json=not sys.stderr.isatty() if log_json is None else log_json, log_content=log_content, log_days=log_days
        ),
        on_ready=lambda listening: _tell(model, listening, as_json=as_json),
    )


def _tell(model: str, listening: Listening, *, as_json: bool) -> None:
    new = listening.new_key
    if as_json:
        import orjson

        told = {"url": f"{listening.url}/v1", "admin_url": listening.admin_url, "api_key": new.secret if new else None}
        typer.echo(orjson.dumps(told))  # on one line: whoever started us reads it and goes on
        sys.stdout.flush()
    elif new is not None:
        typer.echo(f"key     {new.secret}  (shown this once; `tunesmith keys` makes, lists and revokes them)", err=True)
    if listening.admin_url is not None:
        typer.echo(f"admin   {listening.admin_url}/admin/v1/status", err=True)
    typer.echo(f"serving {model} at {listening.url}/v1       Ctrl-C stops", err=True)

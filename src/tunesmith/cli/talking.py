"""`tunesmith chat`: a version of the workspace, or any server that speaks OpenAI's format."""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from tunesmith.cli.common import AsJson, Workspace, open_store, show
from tunesmith.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tunesmith.terminal import Partner

__all__ = ["chat"]

_KEY = "TUNESMITH_ENDPOINT_KEY"
_OWN_KEY = "TUNESMITH_API_KEY"


def chat(
    model: Annotated[
        str | None, typer.Argument(help="A name (its champion answers), or a version such as boutique@1; left out with --url.")
    ] = None,
    message: Annotated[str | None, typer.Argument(help="One question; left out, a conversation begins.")] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Talk to a server: ours, vLLM, Ollama, llama.cpp's, OpenAI's.", metavar="URL")
    ] = None,
    served_as: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model's name there. Default: the first it lists.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest words; 1 draws freely.", min=0.0, max=2.0)] = 0.0,
    base: Annotated[bool, typer.Option("--base", help="Let the untuned base answer beside it.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a model. The key of a server comes from TUNESMITH_ENDPOINT_KEY."""
    from tunesmith.terminal import answer_once, converse, require_unicode, say_once

    if url is None:
        if model is None:
            raise UserError("name a model (`tunesmith models` lists them), or a server with --url URL")
        if served_as is not None:
            raise UserError("--model is the name at a server, and goes with --url URL")
        asked = message
    else:
        if message is not None or base or workspace is not None:
            raise UserError(
                "with --url there is one question, and the model is named by --model; --base and --workspace do not apply"
            )
        asked = model
    if asked is None and not sys.stdin.isatty():
        asked = sys.stdin.read().strip()
        if not asked:
            raise UserError("there is no question: neither an argument nor anything on stdin")
    if asked is not None:
        require_unicode(asked)
    if asked is None and as_json:
        raise UserError("--json answers one question; give it as an argument or on stdin")
    partners = _partners(model, url=url, served_as=served_as, temperature=temperature, with_base=base, workspace=workspace)
    if asked is None:
        converse(partners)
    elif len(partners) == 1 and not as_json:
        say_once(partners[0], asked)
    else:
        show(answer_once(partners, asked, as_json=as_json), as_json=as_json)


def _partners(
    model: str | None, *, url: str | None, served_as: str | None, temperature: float, with_base: bool, workspace: Path | None
) -> Sequence[Partner]:
    """Who answers; the last is the one that was asked for."""
    from tunesmith.terminal import Local, connect

    if url is not None:
        return [connect(url, model=served_as or "", api_key=_key_for(url), temperature=temperature)]
    from tunesmith.pipeline import open_version

    assert model is not None
    opened = open_version(model, store=open_store(workspace))
    arms = [opened.base(), opened] if with_base else [opened]
    return [Local(arm, temperature=temperature) for arm in arms]


def _key_for(url: str) -> str | None:
    """The key of a server. That of our own server goes to this machine only."""
    named = os.environ.get(_KEY, "").strip()
    return named or (os.environ.get(_OWN_KEY, "").strip() if _is_here(url) else "") or None


def _is_here(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"http://{url}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Bases from the Hugging Face Hub: safetensors, JSON and text alone, at a revision that cannot move.

Nothing is asked of the hub but what the user named. A repository is `owner/name`, a fixed revision of it `owner/name@<40 hex digits>`.
Knows no torch.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from tunesmith.errors import ModelError, NotFound, UserError

__all__ = ["HUB_FILES", "HubName", "download", "hub_name", "resolve_revision", "without_telemetry"]

HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "*.md")
"""What is taken from the hub, and what is given to it."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}")


class HubName(NamedTuple):
    """A repository of the hub, and the revision if one is fixed."""

    name: str
    revision: str | None

    @property
    def is_pinned(self) -> bool:
        return self.revision is not None


def hub_name(text: str) -> HubName | None:
    """Read `owner/name` or `owner/name@<revision>`; None if it is neither.

    Raises:
        ModelError: the revision is a branch, a tag or a short hash, all of which can move.

    >>> hub_name("owner/name")
    HubName(name='owner/name', revision=None)
    """
    name, mark, revision = text.partition("@")
    if not _HUB_ID.fullmatch(name) or ".." in name:
        return None
    if mark and not _REVISION.fullmatch(revision):
        raise ModelError(
            f"base: {text!r} does not fix a revision: after `@` come the 40 hex digits of a commit. "
            f"`tunesmith hub pull {name} --revision {revision or 'main'}` finds and prints them"
        )
    return HubName(name, revision or None)


def without_telemetry() -> None:
    """Keep the hub's library from telling the hub of this machine, and from asking it for what nobody named."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True  # transformers may have imported it before


def download(hub: HubName, *, cache: Path) -> Path:
    """Bring a repository into the cache, or find it there; a revision that was pulled counts for the name without one.

    Raises:
        NotFound: the hub has no such model or cannot be reached.
    """
    name, revision = hub
    folder = cache / "hub"
    pin = folder / f"{name.replace('/', '--')}.revision"
    if revision is None and pin.is_file():
        revision = pin.read_text(encoding="utf-8").strip()
    target = folder / (name.replace("/", "--") + (f"@{revision}" if revision else ""))
    if target.is_dir():
        return target
    without_telemetry()
    from huggingface_hub import snapshot_download

    unfinished = target.with_name(target.name + ".part")  # kept when the network fails: the next download goes on there
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        snapshot_download(
            name,
            revision=revision,
            local_dir=unfinished,
            allow_patterns=list(HUB_FILES),
            token=os.environ.get("HF_TOKEN") or False,
        )
    except Exception as error:  # the hub library raises many kinds, all of which mean: not to be had
        raise NotFound(
            f"base: {name!r} is not a folder here, and the hub could not give it ({type(error).__name__}: {error}). "
            "Without a network use `base: tunesmith/base` or a folder"
        ) from error
    shutil.rmtree(unfinished / ".cache", ignore_errors=True)  # the hub library's notes, with times in them
    unfinished.rename(target)
    return target


def resolve_revision(name: str, *, revision: str | None) -> str:
    """The commit that a branch or tag stands at now; a commit is returned as it is, and the hub is not asked.

    Raises:
        NotFound: the hub has no such repository or revision, or cannot be reached.
        UserError: the name is no repository's.
    """
    if hub_name(name) is None or "@" in name:
        raise UserError(f"{name!r} is no repository of the hub; write owner/name, and the revision as --revision")
    if revision and _REVISION.fullmatch(revision):
        return revision
    without_telemetry()
    from huggingface_hub import HfApi

    try:
        found: str | None = HfApi(token=os.environ.get("HF_TOKEN") or False).model_info(name, revision=revision).sha
    except Exception as error:  # see download
        raise NotFound(f"the hub has no {name} at {revision or 'main'} for us ({type(error).__name__}: {error})") from error
    if not found or not _REVISION.fullmatch(found):
        raise NotFound(f"the hub did not say which commit {name} at {revision or 'main'} is")
    return found

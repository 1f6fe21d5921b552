"""A version to the Hugging Face Hub, and a base from there. Only the repository that the user names is ever asked for.

A push is one commit on top of the revision that was seen before it (`parent_commit`): if somebody else has pushed meanwhile, the hub
refuses, and nothing of ours is half there. Files that lie there already and bear other names are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.errors import GateRefused, UserError
from tunesmith.pipeline.card import version_card
from tunesmith.pipeline.versions import ADAPTER_CONFIG, MODEL_FACTS
from tunesmith.records import ModelVersion
from tunesmith.store import Store, files_of, sound_files_of

if TYPE_CHECKING:
    from tunesmith.model import BaseFolder

__all__ = ["PushedToHub", "pull_from_hub", "push_to_hub"]

_CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedToHub:
    """Where a version lies on the hub now."""

    ref: str
    name: str
    revision: str
    is_new: bool
    """False where the hub held these very files."""
    files: tuple[str, ...]


def push_to_hub(ref: str, *, to: str, store: Store, private: bool = False, parent: str | None = None) -> PushedToHub:
    """Push a version's files in one commit.

    Args:
        ref: `boutique@3`, or a name.
        to: the repository, `owner/name`; made if need be.
        store: the workspace.
        private: whether a repository that is made is private.
        parent: the revision at which the repository must stand; None takes the one it stands at now.

    Raises:
        NotFound: no such version.
        BrokenArtefact: its files are not what was stored; nothing was pushed.
        GateRefused: somebody else has pushed to the repository.
        UserError: there is no token in HF_TOKEN, or the hub refuses.
    """
    from tunesmith.model.hub import hub_name, without_telemetry

    version = store.ledger.version(ref)
    sound_files_of(version, store=store)
    if hub_name(to) is None or "@" in to:
        raise UserError(f"--to: {to!r} is no repository of the hub; write owner/name")
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise UserError(
            "the hub needs a token that may write: set HF_TOKEN. tunesmith looks nowhere else for one, and keeps none"
        )
    files = _files(version, store=store)
    without_telemetry()
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    api = HfApi(token=token, library_name="tunesmith")
    head = None
    try:
        try:
            there = api.model_info(to)
        except RepositoryNotFoundError:
            api.create_repo(to, private=private)
            there = api.model_info(to)
        head = there.sha
        if any(file.rfilename == _CARD for file in there.siblings or ()):
            files.pop(_CARD)  # somebody may have changed it by hand
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        message = f"{version.ref}, weights {version.weights_digest[:12]}"
        made = api.create_commit(to, operations, commit_message=message, parent_commit=parent or head)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in {409, 412}:
            raise GateRefused(
                f"{to} has moved on from {parent or head}: somebody else has pushed there. Nothing of ours was written. "
                "Look at it, and push again"
            ) from error
        raise UserError(f"the hub refused {version.ref} at {to}: {_said(error, token)}") from error
    except Exception as error:  # no network, a proxy, a wrong answer: the library raises many kinds
        raise UserError(f"the hub could not take {version.ref} at {to}: {_said(error, token)}") from error
    return PushedToHub(ref=version.ref, name=to, revision=made.oid, is_new=made.oid != head, files=tuple(sorted(files)))


def pull_from_hub(name: str, *, store: Store, revision: str | None = None) -> BaseFolder:
    """Get a base at one revision; from then on `base: owner/name` means that one in this workspace.

    Args:
        name: the repository, `owner/name`.
        store: the workspace.
        revision: a commit, or a branch or tag, which is resolved; None is `main`.

    Raises:
        NotFound: the hub has no such repository or revision, or cannot be reached.
        ModelError: what came is unsafe or no model; it is not kept.
    """
    import shutil

    from tunesmith.model import open_base
    from tunesmith.model.hub import HubName, download, resolve_revision

    commit = resolve_revision(name, revision=revision)
    path = download(HubName(name, commit), cache=store.cache)
    try:
        base = open_base(f"{name}@{commit}", folder=Path("/"), cache=store.cache)
    except Exception:
        shutil.rmtree(path, ignore_errors=True)
        raise
    pin = store.cache / "hub" / f"{name.replace('/', '--')}.revision"
    half = pin.with_suffix(".half")
    half.write_text(commit + "\n", encoding="utf-8")
    half.replace(pin)
    return base


def _files(version: ModelVersion, *, store: Store) -> dict[str, bytes | str]:
    """What is pushed, by its name there: a path, or the content where it names places on this machine."""
    from tunesmith.model.hub import HUB_FILES

    folder = files_of(version, store=store).path
    files: dict[str, bytes | str] = {
        path.relative_to(folder).as_posix(): str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json" and any(fnmatch(path.name, pattern) for pattern in HUB_FILES)
    }
    if MODEL_FACTS in files:
        facts = _read(folder / MODEL_FACTS)
        files[MODEL_FACTS] = _json({key: value for key, value in facts.items() if key != "base_files"})
        if ADAPTER_CONFIG in files:
            base = str(facts.get("base"))
            is_public = "/" in base and not Path(base).is_absolute() and not base.startswith((".", "~"))
            config = _read(folder / ADAPTER_CONFIG) | {"base_model_name_or_path": base if is_public else None}
            files[ADAPTER_CONFIG] = _json(config)
    return {**files, _CARD: version_card(version, store).encode()}


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(file.read_bytes())
    return content


def _json(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def _said(error: Exception, token: str) -> str:
    """One line of an error, without the token."""
    lines = str(error).replace(token, "***").strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"

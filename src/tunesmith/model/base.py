"""Where a base model comes from: the embedded one, a folder, or a hub id; and whether its files are safe to open.

Nothing is downloaded unless the user names a hub id. Knows no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import ModelError, NotFound
from tunesmith.model.hub import download, hub_name
from tunesmith.model.intake import check_files, check_index, check_settings, read_json
from tunesmith.store.digest import digest_of, digest_of_files

__all__ = ["EMBEDDED", "BaseFolder", "check_folder", "open_base", "read_card"]

EMBEDDED = "tunesmith/base"
"""The base inside the package."""

_DOCUMENT = re.compile(r"card\.json|.*\.md|LICEN[CS]E.*|NOTICE.*|\.gitattributes", re.IGNORECASE)
"""Files for people: they may be corrected, and the model is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFolder:
    """A checked model folder. `name` is what the user wrote."""

    name: str
    path: Path
    digest: str
    """Of the files that decide what the model computes: weights, configuration, tokenizer, template. Not of its documents."""
    whole_digest: str = ""
    """Of every file, which is what the first versions kept of their base."""

    def is_the_one(self, digest: str) -> bool:
        """Whether a digest that was kept with a version, now or by an older release, is this base's."""
        return digest in {self.digest, self.whole_digest}


def open_base(name: str, *, folder: Path, cache: Path) -> BaseFolder:
    """Find and check a base model.

    Args:
        name: `tunesmith/base`, a folder (absolute, or relative to `folder`), or a hub id: `owner/name`, or
            `owner/name@<commit>`, which cannot move.
        folder: the recipe's folder.
        cache: where a hub model is kept once downloaded.

    Raises:
        NotFound: there is no such folder, and the hub has no such model or cannot be reached.
        ModelError: the folder is unsafe or holds no model.
    """
    if name == EMBEDDED:
        path = Path(__file__).parent / "embedded"
        if not (path / "model.safetensors").is_file():
            raise NotFound(f"the embedded base is not in this installation ({path}); reinstall tunesmith")
    elif _is_folder(named := folder / _expanded(name)):
        path = named.resolve()
    elif (hub := hub_name(name)) is not None:
        path = download(hub, cache=cache)
    else:
        raise NotFound(
            f"base: {name!r} is neither `{EMBEDDED}`, nor a folder (looked for {folder / name}), "
            "nor a hub id such as `owner/name`"
        )
    check_folder(path)
    if (path / "adapter_config.json").exists():  # transformers would go and load the base that it names, wherever that is
        raise ModelError(f"{path}: `adapter_config.json` makes this an adapter; a base is a whole model")
    files = digest_of_files(path)
    decisive = {file: digest for file, digest in files.items() if not _DOCUMENT.fullmatch(file.rpartition("/")[2])}
    return BaseFolder(name=name, path=path, digest=digest_of(decisive), whole_digest=digest_of(files))


def read_card() -> tuple[dict[str, Any], str]:
    """The embedded base's model card: its facts as plain values, and the card for people in Markdown.

    Raises:
        NotFound: the package was installed without it.
    """
    path = Path(__file__).parent / "embedded"
    try:
        return orjson.loads((path / "card.json").read_bytes()), (path / "README.md").read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"the embedded base has no card in this installation ({error}); reinstall tunesmith") from error


def check_folder(path: Path) -> None:
    """Refuse a model folder that could run code or lead elsewhere, or that holds no model.

    Raises:
        ModelError: naming the offending file and what to do.
    """
    files = check_files(path)
    config = read_json(path / "config.json")
    for file in files:
        if file.name.endswith("config.json"):
            check_settings(file)
        elif file.name.endswith(".index.json"):
            check_index(file)
    if not any(file.suffix == ".safetensors" and file.parent == path for file in files):
        raise ModelError(f"{path}: no *.safetensors file; a base needs its weights in safetensors")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{path}: config.json has no `model_type`, so its architecture is unknown")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for a file, or a folder that may not be looked into
        return False


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return Path(name)

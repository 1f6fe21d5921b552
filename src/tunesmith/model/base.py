"""Where a base model comes from: the embedded one, a folder, or a hub id; and whether its files are safe to open.

Nothing is downloaded unless the user names a hub id. Knows no torch.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import ModelError, NotFound
from tunesmith.store.digest import digest_of, digest_of_files

__all__ = ["EMBEDDED", "BaseFolder", "check_folder", "open_base", "read_card"]

EMBEDDED = "tunesmith/base"
"""The base inside the package."""

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
_PLAIN = (".json", ".jinja", ".txt", ".md", ".safetensors", ".model", ".jsonl")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "*.md"]
_DOCUMENT = re.compile(r"card\.json|.*\.md|LICEN[CS]E.*|NOTICE.*|\.gitattributes", re.IGNORECASE)
"""Files for people: they may be corrected, and the model is the same."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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
        name: `tunesmith/base`, a folder (absolute, or relative to `folder`), or a hub id `owner/name`.
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
    elif (named := folder / _expanded(name)).is_dir():
        path = named.resolve()
    elif _HUB_ID.fullmatch(name) and not name.startswith("."):
        path = _download(name, cache=cache)
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
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_symlink():
            raise ModelError(f"{path}: `{name}` is a symbolic link; copy the file itself into the folder")
        if file.is_file() and (file.suffix.lower() in _PICKLES or _looks_like_pickle(file)):
            raise ModelError(
                f"{path}: `{name}` can hold pickled code, which runs when it is loaded. tunesmith reads safetensors only: "
                "convert the weights and remove that file"
            )
    config = _read_json(path / "config.json")
    for settings in (path / "config.json", path / "tokenizer_config.json"):
        if settings.is_file() and "auto_map" in _read_json(settings):
            raise ModelError(
                f"{path}: `{settings.name}` has `auto_map`: the model brings its own Python code, which tunesmith never runs"
            )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{path}: no *.safetensors file; a base needs its weights in safetensors")
    for file in weights:
        _check_whole(file)
    if "model_type" not in config:
        raise ModelError(f"{path}: config.json has no `model_type`, so its architecture is unknown")


def _looks_like_pickle(file: Path) -> bool:
    """A pickle (protocol 2 and newer) or a zip, the two shapes in which torch has saved weights."""
    if file.suffix.lower() in _PLAIN:
        return False
    with file.open("rb") as stream:
        head = stream.read(4)
    return head[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"} or head == b"PK\x03\x04"


def _check_whole(file: Path) -> None:
    """Read a safetensors header, which knows how long the file must be."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ModelError(f"{file}: damaged or cut short ({error}); copy or download it again") from error


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~nobody
        return Path(name)


def _read_json(file: Path) -> dict[str, object]:
    if not file.is_file():
        raise ModelError(f"{file.parent}: no `{file.name}`; is this a model folder?")
    try:
        content = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def _download(name: str, *, cache: Path) -> Path:
    target = cache / "hub" / name.replace("/", "--")
    if target.is_dir():
        return target
    from huggingface_hub import snapshot_download

    unfinished = target.with_name(target.name + ".part")  # kept when the network fails: the next download goes on there
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        snapshot_download(name, local_dir=unfinished, allow_patterns=_HUB_FILES)
    except Exception as error:  # the hub library raises many kinds, all of which mean: not to be had
        raise NotFound(
            f"base: {name!r} is not a folder here, and the hub could not give it ({type(error).__name__}: {error}). "
            f"Without a network use `base: {EMBEDDED}` or a folder"
        ) from error
    shutil.rmtree(unfinished / ".cache", ignore_errors=True)  # the hub library's notes, with times in them
    unfinished.rename(target)
    return target

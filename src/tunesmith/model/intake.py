"""What may lie in a model folder that somebody else has made: plain files that hold no code, and safetensors that are what they say.

Everything is read by size and by bytes before any library opens it. Nothing is run, no link is followed, nothing that could block
(a FIFO, a device) is opened, and nothing outside the folder is touched. Knows no torch.
"""

from __future__ import annotations

import os
import pickletools
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from tunesmith.errors import ModelError
from tunesmith.model.safetensors_header import check_safetensors

__all__ = ["check_adapter", "check_files", "check_index", "check_settings", "read_json"]

MAX_FILES = 10_000
"""Files and folders in a model folder; the largest models come in a few hundred shards."""
MAX_JSON_BYTES = 128 << 20
"""The largest tokenizer.json of a known model has 34 MB."""
MAX_LAYERS = 1_000
"""Eight times those of the deepest models; transformers takes minutes to build ten thousand, before it looks at the weights."""
MAX_SIZE = 1 << 26
"""Of what a config calls a `size` (of the vocabulary, of a layer); the largest vocabularies have 2**18 tokens."""

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack", ".dill", ".mar")
_CODE = (".py", ".pyc", ".pyo", ".pyd", ".pyw", ".pyx", ".so", ".dll", ".dylib")
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!")
_KERNELS = ("attn_implementation", "experts_implementation", "kernel")
"""In these words of a config a name with a slash is a repository, from which transformers would load compiled code."""
_SIZES = {
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
}
_MAX_PICKLE_TEXT = 4 << 20


def check_files(folder: Path) -> list[Path]:
    """Look at every file of a folder, and refuse what is no plain file, or can hold code.

    Returns:
        The files, sorted.

    Raises:
        ModelError: naming the offending file and what to do.
    """
    files = []
    spelt: dict[str, str] = {}
    for path in _entries(folder):
        name = shown(path.relative_to(folder))
        _check_name(str(path.relative_to(folder)), spelt=spelt, folder=folder)
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ModelError(f"{folder}: `{name}` is a symbolic link; copy the file itself into the folder")
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise ModelError(f"{folder}: `{name}` is a pipe, a socket or a device, and no file; remove it")
        _check_file(path, name=name, folder=folder)
        files.append(path)
    return sorted(files)


def check_settings(file: Path) -> None:
    """Refuse a JSON file of settings that brings code, or would have transformers fetch some.

    Raises:
        ModelError: it does, or it is not readable JSON.
    """
    for key, value in _walk(read_json(file)):
        if key in {"auto_map", "custom_pipelines"} and value:
            raise ModelError(
                f"{file.parent}: `{file.name}` has `{key}`: the model brings its own Python code, which tunesmith never runs"
            )
        if key == "trust_remote_code" and value:
            raise ModelError(f"{file.parent}: `{file.name}` asks for `trust_remote_code`, which tunesmith never grants")
        if any(word in key for word in _KERNELS) and _names_a_repository(value):
            raise ModelError(f"{file.parent}: `{file.name}` names a repository of compiled code under `{shown(key)}`: {value!r}")
        if key == "transformers_weights":
            raise ModelError(f"{file.parent}: `{file.name}` leads to other weights with `{key}`; remove that key")
        if key in _SIZES and isinstance(value, int) and value < 0:
            raise ModelError(
                f"{file.parent}: `{file.name}` says `{shown(key)}: {value}`, and there is no model of less than nothing"
            )
        if isinstance(value, int) and value > (limit := _limit(key)):
            raise ModelError(
                f"{file.parent}: `{file.name}` says `{shown(key)}: {value}`, which is above {limit} and can be no model"
            )


def check_index(file: Path) -> None:
    """Refuse an index of shards that names anything but safetensors files beside it.

    Raises:
        ModelError: it does, a file that it names is not there, or it is not readable.
    """
    places = read_json(file).get("weight_map")
    if not isinstance(places, dict):
        raise ModelError(f"{file}: has no `weight_map`, which says what lies in which file")
    for name in sorted({str(name) for name in places.values()}):
        is_plain = PurePosixPath(name).name == name and not any(c in name for c in "\\\0:") and name.endswith(".safetensors")
        if not is_plain:
            raise ModelError(
                f"{file}: `weight_map` leads to {shown(name)!r}; only *.safetensors files in the same folder may be named"
            )
        if not (file.parent / name).is_file():
            raise ModelError(f"{file}: `weight_map` names `{shown(name)}`, which is not there; copy or download it again")


def check_adapter(folder: Path, *, config: str, weights: str) -> None:
    """Refuse a folder with an adapter that could run code or lead elsewhere. Where it says its base lies is never followed.

    Args:
        folder: the adapter's folder.
        config: name of its settings.
        weights: name of its weights.

    Raises:
        ModelError: it is unsafe, or a file is missing or damaged.
    """
    check_files(folder)
    for name in (config, weights):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: the adapter cannot be read: there is no `{name}`")
    check_settings(folder / config)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object, bounded in size and depth.

    Raises:
        ModelError: it is missing, too large, not valid or no object.
    """
    if not file.is_file():
        raise ModelError(f"{file.parent}: no `{file.name}`; is this a model folder?")
    try:
        content = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{file}: not valid JSON ({error})") from error
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def shown(name: object) -> str:
    """A name from a foreign file, short and without characters that would steer a terminal."""
    text = str(name)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 200 else text[:199] + "…"


def _entries(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise ModelError(f"{folder}: `{error.filename}` cannot be read ({error.strerror})") from error

    count = 0
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=False):
        for name in (*folders, *names):
            count += 1
            if count > MAX_FILES:
                raise ModelError(f"{folder}: holds more than {MAX_FILES} files; is this a model folder?")
            yield Path(parent) / name


def _check_name(name: str, *, spelt: dict[str, str], folder: Path) -> None:
    """Refuse names that mean something else on another machine. `spelt` holds those seen, by their small letters."""
    if not name.isascii() and name != name.encode("utf-8", "replace").decode("utf-8"):
        raise ModelError(f"{folder}: the name `{shown(name)}` is not UTF-8; rename that file")
    other = spelt.setdefault(name.casefold(), name)
    if other != name:
        raise ModelError(
            f"{folder}: `{shown(other)}` and `{shown(name)}` differ in capital letters alone, and on some machines one would "
            "replace the other; remove one"
        )


def _check_file(path: Path, *, name: str, folder: Path) -> None:
    suffix = path.suffix.lower()
    pickled = ModelError(
        f"{folder}: `{name}` can hold pickled code, which runs when it is loaded. tunesmith reads safetensors only: "
        "convert the weights and remove that file"
    )
    if suffix in _PICKLES:
        raise pickled
    if suffix in _CODE:
        raise ModelError(
            f"{folder}: `{name}` is program code. A model folder holds data only; tunesmith runs none of it: remove it"
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
            if suffix == ".safetensors":
                check_safetensors(path, stream)
                return
            if suffix == ".json" and os.fstat(stream.fileno()).st_size > MAX_JSON_BYTES:
                raise ModelError(f"{folder}: `{name}` has more than {MAX_JSON_BYTES >> 20} MiB, which no model's JSON has")
            if head.startswith(_ARCHIVES) or head[257:262] == b"ustar" or (head[:1] == b"\x80" and head[1:2] <= b"\x10"):
                raise pickled
            if head.lstrip()[:1] not in (b"{", b"[", b""):  # JSON begins so, and no pickle does
                stream.seek(0)
                if _is_old_pickle(stream.read(_MAX_PICKLE_TEXT)):
                    raise pickled
    except OSError as error:
        raise ModelError(f"{folder}: `{name}` cannot be read ({error.strerror})") from error


def _is_old_pickle(content: bytes) -> bool:
    """Whether bytes are a pickle of protocol 0 or 1, which bear no mark. They are taken apart and nothing of them is run."""
    end: int | None = 0
    try:
        for opcode, _, place in pickletools.genops(content):
            if opcode.name in {"GLOBAL", "INST", "REDUCE", "BUILD"}:
                return True
            end = place
    except Exception:  # it raises many kinds for what is no pickle
        return False
    return end == len(content) - 1 > 0  # "0.5" goes on after what would be its end


def _walk(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth. orjson has bounded the depth."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node.items()
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _names_a_repository(value: object) -> bool:
    if isinstance(value, dict):
        return any(_names_a_repository(inner) for inner in value.values())
    return isinstance(value, str) and "/" in value


def _limit(key: str) -> int:
    if "layers" in key or key in {"n_layer", "depth"}:
        return MAX_LAYERS
    return MAX_SIZE if key.endswith(("_size", "_heads", "n_embd", "n_head", "_dim")) else 1 << 62

"""Model folders that a stranger might send: each is made by a function, and refused with words that a regular expression knows.

A payload that ran would leave the file `ran` behind; a path that was followed would open a file below `outside`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Maker = Callable[[Path, Path], object]
"""Spoils a sound folder; the second path is `outside`."""


def sound_folder(path: Path) -> Path:
    """A folder that passes the check: no model, but nothing that speaks against one."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (path / "tokenizer_config.json").write_text("{}")
    save_file({"w": np.arange(6, dtype=np.float32)}, path / "model.safetensors")
    return path


class _Payload:
    def __init__(self, ran: Path) -> None:
        self._ran = ran

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._ran),)


def _pickled(name: str, protocol: int) -> Maker:
    return lambda folder, outside: (folder / name).write_bytes(pickle.dumps(_Payload(outside.parent / "ran"), protocol=protocol))


def _legacy_torch(folder: Path, outside: Path) -> None:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # torch.save before 1.6 begins so
    (folder / "weights").write_bytes(magic + pickle.dumps(_Payload(outside.parent / "ran"), protocol=2))


def _zip(name: str) -> Maker:
    def make(folder: Path, outside: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(_Payload(outside.parent / "ran")))

    return make


def _tar(name: str, mode: str) -> Maker:
    def make(folder: Path, outside: Path) -> None:
        with tarfile.open(folder / name, mode) as archive:  # type: ignore[call-overload]
            content = pickle.dumps(_Payload(outside.parent / "ran"))
            member = tarfile.TarInfo("../../ran/pickle")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    return make


def _json(name: str, content: object) -> Maker:
    def make(folder: Path, _outside: Path) -> None:
        file = folder / name
        old = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps({**old, **content} if isinstance(content, dict) else content))

    return make


def _text(name: str, content: str) -> Maker:
    return lambda folder, _outside: (folder / name).write_text(content)


def _link(name: str, target: str) -> Maker:
    """A link to a target below `outside`, or to an absolute one."""

    def make(folder: Path, outside: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside / target)

    return make


def _socket(folder: Path, _outside: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("talk")
    finally:
        os.chdir(here)


def _fifo(name: str) -> Maker:
    def make(folder: Path, _outside: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def _weights(header: bytes | dict[str, object], *, data: bytes = b"\0" * 24, length: int | None = None) -> Maker:
    def make(folder: Path, _outside: Path) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)

    return make


def _tensor(*offsets: int, shape: tuple[int, ...] = (6,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def _large(name: str) -> Maker:
    def make(folder: Path, _outside: Path) -> None:
        with (folder / name).open("wb") as file:
            file.write(b"{")
            file.truncate(1 << 40)  # sparse: a terabyte that takes no space

    return make


def _index(place: str) -> Maker:
    return _json("model.safetensors.index.json", {"weight_map": {"w": place}})


def _many_files(folder: Path, _outside: Path) -> None:
    for i in range(10_001):
        (folder / str(i)).touch()


def _name_of_bytes(folder: Path, _outside: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.json")).write_text("{}")


def _capitals(folder: Path, _outside: Path) -> None:
    (folder / "Config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')


_CODE = {"AutoModel": "evil.Model"}
_PICKLE = "can hold pickled code"
_DAMAGED = r"model\.safetensors: damaged or cut short"

HOSTILE: dict[str, tuple[Maker, str]] = {
    **{f"a pickle by its name, {name}": (_pickled(name, 4), _PICKLE) for name in ("pytorch_model.bin", "a.PT", "sub/x.pkl")},
    **{f"a pickle of protocol {n} by its content": (_pickled("weights.dat", n), _PICKLE) for n in range(6)},
    **{f"a pickle of protocol 0 as {name}": (_pickled(name, 0), _PICKLE) for name in ("vocab.txt", "README.md", "a.json")},
    **{f"a pickle of protocol 4 as {name}": (_pickled(name, 4), _PICKLE) for name in ("vocab.txt", "tokenizer.model", "b.json")},
    "a pickle as the weights": (_pickled("model.safetensors", 4), _DAMAGED),
    "a pickle of protocol 0 as the weights": (_pickled("model.safetensors", 0), _DAMAGED),
    "a pickle as more weights": (_pickled("more.safetensors", 2), r"more\.safetensors: damaged"),
    "a checkpoint of an old torch": (_legacy_torch, _PICKLE),
    "a zip, as torch saves": (_zip("weights"), _PICKLE),
    "a zip as the weights": (_zip("model.safetensors"), _DAMAGED),
    "a zip as a vocabulary": (_zip("vocab.txt"), _PICKLE),
    "a tar": (_tar("weights", "w"), _PICKLE),
    "a gzipped tar as a template": (_tar("chat_template.jinja", "w:gz"), _PICKLE),
    **{
        f"auto_map in {name}": (_json(name, {"auto_map": _CODE}), rf"{Path(name).name}.*auto_map")
        for name in (
            "config.json",
            "tokenizer_config.json",
            "processor_config.json",
            "preprocessor_config.json",
            "generation_config.json",
            "sub/config.json",
        )
    },
    "auto_map in the text model": (_json("config.json", {"text_config": {"auto_map": _CODE}}), "auto_map"),
    "auto_map in the quantisation": (_json("config.json", {"quantization_config": {"x": [{"auto_map": _CODE}]}}), "auto_map"),
    "auto_map spelt with an escape": (
        _text("config.json", '{"model_type": "llama", "auto\\u005fmap": {"AutoModel": "evil.Model"}}'),
        "auto_map",
    ),
    "a pipeline of its own": (_json("config.json", {"custom_pipelines": {"x": {"impl": "evil.P"}}}), "custom_pipelines"),
    "attention from a repository": (_json("config.json", {"_attn_implementation": "evil/kernel"}), "compiled code.*evil/kernel"),
    "attention of a part from a repository": (
        _json("config.json", {"text_config": {"attn_implementation": {"": "evil/kernel@main"}}}),
        "compiled code",
    ),
    "weights elsewhere": (_json("config.json", {"transformers_weights": "../outside/w.safetensors"}), "transformers_weights"),
    "Python code": (_text("modeling_evil.py", "raise SystemExit"), r"`modeling_evil\.py` is program code"),
    "compiled code": (_text("evil.so", "ELF"), "program code"),
    "a link to a file": (_link("notes.txt", "secret.json"), "symbolic link"),
    "a link as its config": (_link("config.json", "secret.json"), "symbolic link"),
    "a link to a folder": (_link("sub", "."), "symbolic link"),
    "a link to nothing": (_link("sub", "nothing"), "symbolic link"),
    "a link to itself": (_link("loop", "../base/loop"), "symbolic link"),
    "a link to the system": (_link("etc", "/etc"), "symbolic link"),
    "a link to the weights' device": (_link("model.safetensors", "/dev/zero"), "symbolic link"),
    "a pipe": (_fifo("pipe"), "pipe, a socket or a device"),
    "a pipe as its config": (_fifo("config.json"), "pipe, a socket or a device"),
    "a pipe as its weights": (_fifo("model.safetensors"), "pipe, a socket or a device"),
    "a socket": (_socket, "pipe, a socket or a device"),
    "JSON nested a million deep": (_text("config.json", '{"a":' * 1_000_000), "not valid JSON"),
    "lists nested a million deep": (_text("generation_config.json", "[" * 1_000_000), "not valid JSON"),
    "a terabyte of JSON": (_large("config.json"), "more than 128 MiB"),
    "a terabyte of tokenizer": (_large("tokenizer.json"), "more than 128 MiB"),
    "a billion layers": (_json("config.json", {"num_hidden_layers": 10**9}), "num_hidden_layers: 1000000000.*no model"),
    "a vocabulary of 10**15": (_json("config.json", {"vocab_size": 10**15}), "vocab_size.*no model"),
    "less than no layers": (_json("config.json", {"num_hidden_layers": -1}), "num_hidden_layers: -1.*less than nothing"),
    "a part of a negative size": (
        _json("config.json", {"text_config": {"hidden_size": -64}}),
        "hidden_size: -64.*less than nothing",
    ),
    "ten thousand layers": (_json("config.json", {"num_hidden_layers": 10_000}), "num_hidden_layers: 10000.*no model"),
    "code that is to be trusted": (_json("tokenizer_config.json", {"trust_remote_code": True}), "never grants"),
    "an empty config": (_text("config.json", ""), "not valid JSON"),
    "an empty index": (_text("model.safetensors.index.json", ""), "not valid JSON"),
    "a name that is no text": (_name_of_bytes, "is not UTF-8"),
    "names that differ in capitals": (_capitals, "differ in capital letters"),
    "a name that clears the screen": (_text("a\x1b[2Jb.bin", "x"), _PICKLE),
    "a name of two lines": (_text("a\nb.py", "x"), "program code"),
    "code in capitals below": (_text("sub/x.PY", "x"), "program code"),
    "GGUF as the weights": (_text("model.safetensors", "GGUF\x03" + "\0" * 100), _DAMAGED),
    "a header's length the other way round": (_weights(b"{}", length=2 << 56), _DAMAGED),
    "a negative dimension": (_weights({"a": _tensor(0, 24, shape=(-6,))}), "whole numbers from 0"),
    "two negative dimensions": (_weights({"a": _tensor(0, 24, shape=(-2, -3))}), "whole numbers from 0"),
    "a dimension that is true": (
        _weights(b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', data=b"\0" * 4),
        "whole numbers",
    ),
    "a dtype of other size": (_weights({"a": _tensor(0, 24, dtype="F64")}), "does not fill"),
    "too many files": (_many_files, "more than 10000 files"),
    "a header of 2**60 bytes": (_weights(b"{}", length=1 << 60), _DAMAGED),
    "a header of 2**64 - 1 bytes": (_weights(b"{}", length=(1 << 64) - 1), _DAMAGED),
    "a header that nests": (_weights(b'{"a":' * 200_000), _DAMAGED),
    "tensors that overlap": (_weights({"a": _tensor(0, 24), "b": _tensor(8, 16, shape=(2,))}), "overlap"),
    "tensors with a gap": (_weights({"a": _tensor(8, 24, shape=(4,))}), "gap"),
    "a negative offset": (_weights({"a": _tensor(-24, 0)}), "whole numbers from 0"),
    "an offset that is no number": (_weights(b'{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24.0]}}'), "whole numbers"),
    "a tensor larger than the file": (_weights({"a": _tensor(0, 1 << 40, shape=(1 << 38,))}), "bytes"),
    "a shape whose product overflows": (_weights({"a": _tensor(0, 0, shape=(1 << 32, 1 << 32))}), "does not fill"),
    "bytes behind the last tensor": (_weights({"a": _tensor(0, 24)}, data=b"\0" * 99), "99 are there"),
    "a tensor named twice": (
        _weights(
            b'{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]},"a":{"dtype":"I32","shape":[6],"data_offsets":[0,24]}}'
        ),
        "stands there twice",
    ),
    "an unknown dtype": (_weights({"a": _tensor(0, 24, dtype="PICKLE")}), "dtype 'PICKLE' is unknown"),
    "an empty file of weights": (_text("model.safetensors", ""), _DAMAGED),
    **{
        f"an index that leads to {place!r}": (_index(place), "weight_map` leads to")
        for place in (
            "../outside/w.safetensors",
            "/etc/passwd",
            "a\0.safetensors",
            "..\\x.safetensors",
            "C:x.safetensors",
            "sub/x.bin",
        )
    },
    "an index that names what is not there": (_index("model-2.safetensors"), "not there"),
    "an index without a map": (_json("model.safetensors.index.json", {"weight_map": [1]}), "no `weight_map`"),
    "an adapter that names a hub model": (
        _json("adapter_config.json", {"base_model_name_or_path": "evil/base", "peft_type": "LORA"}),
        "makes this an adapter",
    ),
    "a config that is a list": (_json("config.json", [1]), "JSON object, found list"),
    "a model type that is no text": (_json("config.json", {"model_type": ["llama"]}), "no `model_type`"),
}


def spoiled_folder(name: str, path: Path) -> Path:
    """The hostile folder of this name at `path / "base"`, with `path / "outside"` beside it."""
    folder = sound_folder(path / "base")
    (folder / "sub").mkdir()
    outside = path / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text('{"model_type": "secret"}')
    save_file({"w": np.arange(6, dtype=np.float32)}, outside / "w.safetensors")
    make, _ = HOSTILE[name]
    if name in {"a link to a folder", "a link to nothing"}:
        (folder / "sub").rmdir()
    make(folder, outside)
    return folder

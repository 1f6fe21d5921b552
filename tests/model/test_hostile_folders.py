"""A folder that a stranger made is refused in plain words, nothing of it runs, and nothing outside it is opened."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tunesmith.errors import ModelError, NotFound
from tunesmith.model import load_model, this_machine
from tunesmith.model.base import check_folder, open_base

from .hostile import HOSTILE, sound_folder, spoiled_folder

_ears: list[list[str]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _ears and event == "open" and isinstance(arguments[0], str | bytes):
        _ears[-1].append(os.fsdecode(arguments[0]))


sys.addaudithook(_hear)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The paths of all files that Python opens in the block."""
    _ears.append([])
    try:
        yield _ears[-1]
    finally:
        _ears.pop()


def test_the_folder_that_all_others_are_made_from_is_sound(tmp_path: Path) -> None:
    with opened_files() as opened:
        check_folder(sound_folder(tmp_path / "base"))
    assert str(tmp_path / "base" / "config.json") in opened  # so the ear that the next test trusts does hear


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused_and_nothing_of_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("must not use the network"))
    folder = spoiled_folder(name, tmp_path)
    with opened_files() as opened, pytest.raises(ModelError) as caught:
        open_base("base", folder=tmp_path, cache=tmp_path / "cache")
    message = str(caught.value)
    assert re.search(HOSTILE[name][1], message), message
    assert str(folder) in message
    assert message.isprintable()
    assert not (tmp_path / "ran").exists()
    assert not [path for path in opened if Path(path).is_relative_to(tmp_path / "outside") or path.startswith(("/etc", "/dev"))]


def test_there_are_enough_of_them_and_a_payload_would_have_been_seen(tmp_path: Path) -> None:
    import pickle

    assert len(HOSTILE) >= 25
    for protocol in range(6):
        place = tmp_path / str(protocol)
        place.mkdir()
        folder = spoiled_folder(f"a pickle of protocol {protocol} by its content", place)
        pickle.loads((folder / "weights.dat").read_bytes())
        assert (place / "ran").exists()


def test_a_name_that_is_a_loop_of_links_or_too_long_or_no_name_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "x" * 5000, "a\0b", "x/" * 3000):
        with pytest.raises(NotFound):
            open_base(name, folder=tmp_path, cache=tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["/", "/etc", "/proc", "/dev"])
def test_a_folder_of_the_system_is_no_base_and_is_not_read_through(name: str) -> None:
    with pytest.raises(ModelError):
        check_folder(Path(name))


def test_a_file_or_folder_that_may_not_be_read_is_named() -> None:
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        folder = sound_folder(place / "base")
        (folder / "model.safetensors").chmod(0o644)
        (folder / "secret").mkdir(mode=0o000)
        (folder / "notes.txt").write_text("x")
        _as_nobody(folder, "`.*secret` cannot be read")
        (folder / "secret").rmdir()
        (folder / "notes.txt").chmod(0o000)
        _as_nobody(folder, r"`notes\.txt` cannot be read")
    finally:
        shutil.rmtree(place)


def _as_nobody(folder: Path, message: str) -> None:
    """Root may read everything, so the check is made as somebody else."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        with pytest.raises(ModelError, match=message):
            check_folder(folder)
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from tunesmith.model import ScratchConfig, new_model, save_model

    config = ScratchConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2, num_kv_heads=1)
    machine = this_machine()
    folder = tmp_path / "m"
    folder.mkdir()
    save_model(new_model(config, special_tokens={}, machine=machine, seed=0), folder, base_path=None)
    (folder / "tokenizer_config.json").write_text("{}")
    load_model(folder, machine=machine)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of its tensors hold NaN or infinity: model\.layers\.0\.mlp\.up_proj\.weight"):
        load_model(folder, machine=machine)


@pytest.mark.parametrize("size", [640, 896, 1152, 1408])
def test_sound_weights_whose_first_bytes_look_like_a_pickle_pass(size: int, tmp_path: Path) -> None:
    """The length of such a header, 0x0280 and so on, is written as the two bytes with which a pickle begins."""
    folder = sound_folder(tmp_path / "base")
    entry = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
    header = json.dumps({"w": entry}).encode().ljust(size)
    (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + header + b"\0" * 24)
    assert (folder / "model.safetensors").read_bytes()[:1] == b"\x80"
    check_folder(folder)


def test_words_tables_and_pictures_are_no_pickles(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "base")
    for number, text in enumerate(
        ["I am.", "N.", ".", "", "(a)\n(b).", "#version: 0.2\na b", "[PAD]\n.", "]q.", "K.\n.", "0.5\n"]
    ):
        (folder / f"{number}.txt").write_text(text)
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    refused = []
    for file in sorted(folder.glob("*.txt")):
        copy = sound_folder(tmp_path / file.stem)
        shutil.copy(file, copy)
        try:
            check_folder(copy)
        except ModelError:
            refused.append(file.read_text())
    assert set(refused) == {"N."}  # the pickle of None


def test_an_adapter_is_read_from_its_own_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.model import ScratchConfig, add_lora, new_model, save_model
    from tunesmith.model.adapter_files import read_adapter

    config = ScratchConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2, num_kv_heads=1)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("must not use the network"))

    def build() -> object:
        return new_model(config, special_tokens={}, machine=this_machine(), seed=0)

    good = tmp_path / "good"
    good.mkdir()
    save_model(add_lora(build(), rank=2, alpha=4, seed=0), good, base_path=None)
    settings = json.loads((good / "adapter_config.json").read_text())

    def refused(message: str, **changed: object) -> None:
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        (folder / "adapter_config.json").write_text(json.dumps(settings | changed))
        with pytest.raises(ModelError, match=message):
            read_adapter(build(), folder)

    for elsewhere in ("evil/base", "../../outside", "/etc", "https://evil.example/base"):
        (good / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": elsewhere}))
        read_adapter(build(), good)
    refused("does not fit the model: no layers of the rank 1000000000000", r=10**12)
    refused("no layers of the rank x", r="x")
    refused("auto_map", auto_map={"AutoModel": "evil.Model"})
    refused("use_dora", use_dora=True)
    for file, message in [("adapter_model.bin", "pickled code"), ("hook.py", "program code")]:
        (good / file).write_text("x")
        refused(message)
        (good / file).unlink()
    (good / "adapter_model.safetensors").unlink()
    os.mkfifo(good / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="a pipe"):
        read_adapter(build(), good)

import json
import pickle
import socket
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tunesmith.errors import ModelError, NotFound
from tunesmith.model.base import check_folder, open_base


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (path / "tokenizer_config.json").write_text("{}")
    save_file({"w": np.arange(6, dtype=np.float32)}, path / "model.safetensors")
    return path


def test_a_folder_is_found_relative_to_the_recipe_absolute_and_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_folder(tmp_path / "recipes" / "base")
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ["base", str(path), "~/recipes/base"]
    opened = [open_base(name, folder=tmp_path / "recipes", cache=tmp_path) for name in names]
    assert [base.path for base in opened] == [path] * 3
    assert [base.name for base in opened] == names
    assert len({base.digest for base in opened}) == 1


@pytest.mark.parametrize("name", ["nothing", "./a/b/c", "../x", "~nobody-here/x", "a/b/c", ""])
def test_a_name_that_leads_nowhere_is_not_found(name: str, tmp_path: Path) -> None:
    with pytest.raises((NotFound, ModelError)) as caught:
        open_base(name, folder=tmp_path, cache=tmp_path)
    assert repr(name) in str(caught.value) or name == ""


def test_without_a_network_a_hub_id_is_not_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: tried.append(address))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(NotFound, match=r"owner/name.*tunesmith/base"):
        open_base("owner/name", folder=tmp_path, cache=tmp_path / "cache")
    assert time.monotonic() - start < 10
    assert tried == []


def test_a_download_that_broke_off_is_taken_up_again_and_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def snapshot_download(_name: str, *, local_dir: Path, **_: object) -> None:
        calls.append(local_dir)
        (local_dir / ".cache").mkdir(exist_ok=True)
        (local_dir / ".cache" / "note").write_text(str(time.time()))
        (local_dir / "config.json").write_text('{"model_type": "llama"}')
        save_file({"w": np.zeros(3)}, local_dir / "model-00001-of-00002.safetensors")
        if len(calls) == 1:
            raise ConnectionError("the line is dead")
        save_file({"v": np.zeros(3)}, local_dir / "model-00002-of-00002.safetensors")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(NotFound, match="the line is dead"):
        open_base("owner/name", folder=tmp_path, cache=tmp_path / "cache")
    base = open_base("owner/name", folder=tmp_path, cache=tmp_path / "cache")
    assert len(list(base.path.glob("*.safetensors"))) == 2
    assert len(set(calls)) == 1
    again = open_base("owner/name", folder=tmp_path, cache=tmp_path / "cache")
    assert (len(calls), again.digest) == (2, base.digest)
    elsewhere = open_base("owner/name", folder=tmp_path, cache=tmp_path / "other cache")
    assert elsewhere.digest == base.digest


def test_the_digest_covers_every_byte_that_the_model_computes_with(tmp_path: Path) -> None:
    first, second = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")

    def digest(name: str) -> str:
        return open_base(name, folder=tmp_path, cache=tmp_path).digest

    assert digest("a") == digest("b")
    content = bytearray((second / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (second / "model.safetensors").write_bytes(content)
    assert digest("a") != digest("b")
    (first / "config.json").write_text(json.dumps({"model_type": "llama", "x": 1}))
    assert digest("a") != digest("b")


def test_the_digest_covers_no_document(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    before = open_base("m", folder=tmp_path, cache=tmp_path)
    for name in ("README.md", "card.json", "LICENSE", "NOTICE.txt"):
        (folder / name).write_text("{}")
    after = open_base("m", folder=tmp_path, cache=tmp_path)
    assert after.digest == before.digest == before.whole_digest
    assert after.whole_digest != after.digest
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer.model", "generation_config.json"):
        (folder / name).write_text("{}")
        changed = open_base("m", folder=tmp_path, cache=tmp_path).digest
        assert changed != after.digest, name
        (folder / name).unlink()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.PT", "sub/extra.pkl", "optimizer.pth", "old.ckpt"])
def test_a_file_with_a_pickles_ending_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"harmless")
    with pytest.raises(ModelError, match=Path(name).name) as caught:
        check_folder(folder)
    assert "safetensors" in str(caught.value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_known_by_its_content(protocol: int, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "weights.dat").write_bytes(pickle.dumps({"w": 1}, protocol=protocol))
    with pytest.raises(ModelError, match=r"weights\.dat"):
        check_folder(folder)


def test_a_zip_such_as_torch_saves_is_known_by_its_content(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    with zipfile.ZipFile(folder / "weights", "w") as archive:
        archive.writestr("data.pkl", b"")
    with pytest.raises(ModelError, match="weights"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).write_text(json.dumps({"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(ModelError, match=f"{name}.*auto_map"):
        check_folder(folder)


def test_a_link_to_a_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "notes.txt").write_text("secret")
    for name, target in [("notes.txt", "notes.txt"), ("sub", ".")]:
        folder = model_folder(tmp_path / f"with {name}")
        (folder / name).symlink_to(tmp_path / "outside" / target)
        with pytest.raises(ModelError, match=f"`{name}` is a symbolic link"):
            check_folder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"no `config\.json`"), ("{", "not valid JSON"), ("[1]", "JSON object, found list"), ("{}", "model_type")],
)
def test_a_broken_config_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message) as caught:
        open_base("m", folder=tmp_path, cache=tmp_path)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_weights_that_were_cut_short_are_named(keep: int, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged"):
        open_base("m", folder=tmp_path, cache=tmp_path)


def test_a_folder_without_safetensors_is_no_base(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"\*\.safetensors"):
        check_folder(folder)


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somewhere/else"}')
    with pytest.raises(ModelError, match="adapter"):
        open_base("m", folder=tmp_path, cache=tmp_path)

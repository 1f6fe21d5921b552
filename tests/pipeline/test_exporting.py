"""A version as files for other tools: what is written, what is refused, and that each defect is seen before the folder appears."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.pipeline.exported import make_base, make_version

from tunesmith.errors import GateRefused, MissingExtra, ModelError, NotFound, UserError
from tunesmith.model import merge
from tunesmith.model.quiet import quiet_libraries
from tunesmith.pipeline import export_files, exporting
from tunesmith.pipeline.card import version_card
from tunesmith.pipeline.export_proofs import prove_export
from tunesmith.pipeline.exporting import export
from tunesmith.store import Store, digest_of_file

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A workspace with `tiny@1`, an adapter on a bf16 Llama, and `tiny@2`, a whole model."""
    folder = tmp_path_factory.mktemp("exports")
    store = Store(folder / "work")
    base = make_base(folder / "base")
    assert make_version(store, base=base) == "tiny@1"
    assert make_version(store, base=base, method="full") == "tiny@2"
    return store


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the fresh process out, where a test looks at something else."""
    monkeypatch.setattr(exporting, "prove_export", lambda *_args, **_named: [])


def test_an_adapter_is_exported_as_it_is_and_proved_with_peft(store: Store, tmp_path: Path) -> None:
    done = export("tiny@1", to="adapter", out=tmp_path / "out", store=store)
    source = store.artefacts.get(store.ledger.version("tiny@1").artefact).path
    names = {file.name for file in (tmp_path / "out").iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert names == tokenizer | {"adapter_config.json", "adapter_model.safetensors", "export.json", "README.md"}
    assert all(
        (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes() for name in names - {"export.json", "README.md"}
    )
    assert (tmp_path / "out" / "README.md").read_text() == version_card(store.ledger.version("tiny@1"), store)
    assert [proof.name for proof in done.sheet.proofs] == [
        "exported tokens = training tokens",
        "exported = library",
        "adapter ≠ base",
    ]
    assert done.sheet.holds
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (facts["ref"], facts["to"], facts["artefact"]) == ("tiny@1", "adapter", store.ledger.version("tiny@1").artefact)
    assert facts["files"] == {name: digest_of_file(tmp_path / "out" / name) for name in names - {"export.json"}}
    assert all(proof["holds"] and proof["figure"] is not None for proof in facts["proofs"])


def test_a_merged_model_is_what_peft_merges_rounded_once(store: Store, tmp_path: Path) -> None:
    done = export("tiny@1", to="merged", out=tmp_path / "out", store=store)
    assert done.sheet.holds
    assert done.type == "bf16"
    assert "rounding to bf16 costs" in done.notes[0]
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    version = store.artefacts.get(store.ledger.version("tiny@1").artefact).path
    facts = orjson.loads((version / "tunesmith.json").read_bytes())
    with quiet_libraries():
        base = AutoModelForCausalLM.from_pretrained(facts["base_files"], dtype=torch.float32)
        expected = PeftModel.from_pretrained(base, version).merge_and_unload().state_dict()
    found = load_file(tmp_path / "out" / "model.safetensors")
    same = [float((tensor == expected[name].bfloat16()).float().mean()) for name, tensor in found.items()]
    assert min(same) > 0.999
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [0, 2]


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_a_gguf_file_is_proved_by_other_readers(store: Store, tmp_path: Path, kind: Any) -> None:
    done = export("tiny@1", to="gguf", stored_as=kind, out=tmp_path / "out", store=store)
    assert done.sheet.holds
    assert len(done.sheet.proofs) == 4
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"model.gguf", "export.json", "README.md"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen2", {"tie_word_embeddings": False}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": None}),
        ("llama", {"attention_bias": True, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
    ],
    ids=["qwen2", "qwen3", "mistral", "llama3"],
)  # fmt: skip
def test_every_known_architecture_goes_through_gguf(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    store = Store(tmp_path / "work")
    make_version(store, base=make_base(tmp_path / "base", kind=kind, **changes))
    done = export("tiny", to="gguf", stored_as="f32", out=tmp_path / "out", store=store)
    assert done.sheet.holds


@pytest.mark.slow
def test_an_onnx_graph_says_what_the_library_says(store: Store, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    done = export("tiny@1", to="onnx", out=tmp_path / "out", store=store)
    assert done.sheet.holds
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_a_whole_version_is_exported_as_its_very_weights(store: Store, tmp_path: Path, unproved: None) -> None:
    export("tiny@2", to="merged", out=tmp_path / "out", store=store)
    source = store.artefacts.get(store.ledger.version("tiny@2").artefact).path
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert not (tmp_path / "out" / "tunesmith.json").exists(), "where the base lies on this machine is nobody's concern"
    with pytest.raises(ModelError, match=r"tiny@2 is trained in full .*--to merged"):
        export("tiny@2", to="adapter", out=tmp_path / "other", store=store)


def test_what_cannot_be_done_is_refused_before_anything_is_loaded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "open_exact", lambda *_args, **_named: pytest.fail("a model was loaded"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty; name a folder that is new"):
        export("tiny@1", to="merged", out=tmp_path / "full", store=store)
    with pytest.raises(UserError, match="merged is not stored as 'q8_0'"):
        export("tiny@1", to="merged", stored_as="q8_0", out=tmp_path / "out", store=store)
    with pytest.raises(NotFound):
        export("other@1", to="merged", out=tmp_path / "out", store=store)
    monkeypatch.setattr("tunesmith.model.gguf_file.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"tunesmith\[gguf\]"):
        export("tiny@1", to="gguf", out=tmp_path / "out", store=store)
    assert not (tmp_path / "out").exists()


# Defects, each put into an export before it is proved: the proof must fail, and nothing may be left


def _spoil(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]) -> None:
    write = export_files.write_files

    def written(model: Any, staged: Any) -> None:
        write(model, staged)
        spoil(staged.folder)

    monkeypatch.setattr(exporting, "write_files", written)


def _wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    right = merge.merge_adapter

    def wrong(model: Any, **named: Any) -> Any:
        for layer in merge.lora_layers(model).values():
            layer.lora_B.data *= 1.1
        return right(model, **named)

    monkeypatch.setattr(merge, "merge_adapter", wrong)


def _zeroed(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def _rounded_twice(folder: Path) -> None:
    """To 4 bits of significand first, as a careless chain of conversions would."""
    file = folder / "model.safetensors"

    def coarse(tensor: torch.Tensor) -> torch.Tensor:
        fraction, power = torch.frexp(tensor.float())
        return torch.ldexp((fraction * 16).round() / 16, power).to(tensor.dtype)

    save_file({name: coarse(tensor) for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def _swapped(folder: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = definition["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(definition))


DEFECTS = {
    "wrong scale": ("merged", _wrong_scale, "weights = the version's, rounded once"),
    "zeroed adapter": ("adapter", lambda patch: _spoil(patch, _zeroed), "exported = library"),
    "rounded twice": ("merged", lambda patch: _spoil(patch, _rounded_twice), "weights = the version's, rounded once"),
    "swapped tokenizer": ("adapter", lambda patch: _spoil(patch, _swapped), "exported tokens = training tokens"),
    "no template": (
        "adapter",
        lambda patch: _spoil(patch, lambda folder: (folder / "chat_template.jinja").unlink()),
        "exported tokens = training tokens",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_seen_and_leaves_no_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: str
) -> None:
    to, plant, proof = DEFECTS[defect]
    plant(monkeypatch)
    with pytest.raises(GateRefused) as refused:
        export("tiny@1", to=to, out=tmp_path / "out", store=store)  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"tiny@1 as {to} is not proved")
    assert f"  {proof}: found" in str(refused.value)
    assert not list(tmp_path.iterdir()), "nothing is left, not even the folder it was written in"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_kill_leaves_nothing_that_looks_done(store: Store, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tunesmith.pipeline import exporting\nfrom tunesmith.store import Store\n"
        "exporting.prove_export = lambda *a, **k: (print('written', flush=True), time.sleep(60))\n"
        "exporting.export('tiny@1', to='adapter', out=Path(sys.argv[2]), store=Store(Path(sys.argv[1])))\n"
    )
    for sent in (signal.SIGKILL, signal.SIGTERM):
        arguments = [sys.executable, "-c", code, str(store.artefacts.root.parent), str(tmp_path / "out")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"written\n"
            process.send_signal(sent)
            process.communicate()
        assert not (tmp_path / "out").exists()
        left = list(tmp_path.iterdir())
        if sent == signal.SIGKILL:
            assert [folder.name.startswith(".staging-") for folder in left] == [True]
            assert not (left[0] / "export.json").exists()
        else:
            assert not left, "the next export clears away what a kill has left, and an orderly end leaves nothing itself"


def test_the_process_that_proves_must_not_know_tunesmith(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.errors import TunesmithError
    from tunesmith.pipeline import export_proofs

    monkeypatch.setattr(export_proofs, "_ask", lambda _task: {"imports": {"tunesmith": ["tunesmith.model"]}})
    with pytest.raises(TunesmithError, match="has loaded"):
        prove_export({"to": "adapter", "type": None}, probes=export_proofs.Probes(chats=(), rows=()), log_likelihoods=[])

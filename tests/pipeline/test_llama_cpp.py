"""llama.cpp itself on what we export. Slow, and skipped where it is not at hand.

TUNESMITH_LLAMA_CPP: folder of llama.cpp's sources, for its converter. TUNESMITH_LLAMA_CPP_LIB: folder with the built libllama; it is called
through llama-cpp-python's bindings, which lie two folders above the sources in that package.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pipeline.exported import make_base, make_version

from tunesmith.data.chat import ChatFormat
from tunesmith.model.merge import open_exact
from tunesmith.model.quiet import quiet_libraries
from tunesmith.pipeline.export_proofs import _TEXTS
from tunesmith.pipeline.exporting import export
from tunesmith.records import Message, Role
from tunesmith.store import Store

gguf = pytest.importorskip("gguf")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

READ = """
import importlib, json, os, sys, types
task = json.load(sys.stdin)
package = types.ModuleType("llama_cpp")  # its own __init__ wants packages that only its server needs
package.__path__ = [task["bindings"]]
sys.modules["llama_cpp"] = package
L = importlib.import_module("llama_cpp.llama_cpp")
import numpy as np
L.llama_backend_init()
model = L.llama_model_load_from_file(task["file"].encode(), L.llama_model_default_params())
vocab = L.llama_model_get_vocab(model)
logits, tokens = {}, []
for at, row in enumerate(task["rows"]):
    settings = L.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 512
    settings.type_k = settings.type_v = settings.flash_attn_type = 0  # the cache in f32, and attention too
    context, batch = L.llama_init_from_model(model, settings), L.llama_batch_init(len(row), 0, 1)
    batch.n_tokens = len(row)
    for i, token in enumerate(row):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert L.llama_decode(context, batch) == 0
    shape = (len(row), L.llama_vocab_n_tokens(vocab))
    logits[str(at)] = np.ctypeslib.as_array(L.llama_get_logits(context), shape=shape).copy()
    L.llama_free(context)
for text in task["texts"]:
    raw, space = text.encode(), (L.llama_token * 4096)()
    tokens.append(list(space[: L.llama_tokenize(vocab, raw, len(raw), space, 4096, True, True)]))
np.savez(task["out"], **logits)
print(json.dumps({"tokens": tokens, "ends": [i for i in range(shape[1]) if L.llama_vocab_is_eog(vocab, i)]}))
"""


def sources() -> Path:
    if not (found := os.environ.get("TUNESMITH_LLAMA_CPP")):
        pytest.skip("TUNESMITH_LLAMA_CPP does not name llama.cpp's sources")
    return Path(found)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("llama")
    store = Store(folder / "work")
    make_version(store, base=make_base(folder / "base", hidden_size=64))
    return store


def test_our_merged_folder_goes_through_llama_cpps_converter_and_gives_our_file(store: Store, tmp_path: Path) -> None:
    (copy := tmp_path / "llama.cpp").mkdir()
    for name in ("convert_hf_to_gguf.py", "conversion", "gguf-py"):
        source = sources() / name
        shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
    if find_spec("sentencepiece") is None:  # imported before it is seen that there is no such tokenizer here
        (copy / "sentencepiece.py").write_text("class SentencePieceProcessor: ...\n")
    export("tiny", to="merged", stored_as="f32", out=tmp_path / "merged", store=store)
    export("tiny", to="gguf", stored_as="f32", out=tmp_path / "ours", store=store)
    command = [sys.executable, str(copy / "convert_hf_to_gguf.py"), str(tmp_path / "merged"), "--outtype", "f32"]
    command += ["--outfile", str(tmp_path / "theirs.gguf")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "BPE pre-tokenizer was not recognized" in refused.stderr, (
        "if it takes new tokenizers, docs/design/exports.md is out of date"
    )
    _register(copy / "conversion" / "base.py", tokenizer=tmp_path / "merged", name="qwen35")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = (gguf.GGUFReader(file) for file in (tmp_path / "ours" / "model.gguf", tmp_path / "theirs.gguf"))
    expected = {tensor.name: tensor for tensor in theirs.tensors}
    assert {tensor.name for tensor in ours.tensors} == set(expected)
    for tensor in ours.tensors:
        assert tensor.tensor_type == expected[tensor.name].tensor_type
        assert np.array_equal(tensor.data, expected[tensor.name].data), tensor.name
    stated = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("general.")}
    found = {name: field.contents() for name, field in ours.fields.items()}
    differing = {name for name, value in stated.items() if name in found and found[name] != value}
    assert not {name for name in differing if not name.startswith("GGUF.")}
    assert "tokenizer.ggml.merges" in stated


def _register(file: Path, *, tokenizer: Path, name: str) -> None:
    """Do in a copy what convert_hf_to_gguf_update.py does for tokenizers that llama.cpp's makers know: write down the hash."""
    from transformers import AutoTokenizer

    text = file.read_text()
    literal = re.search(r"^        chktxt = ('.*')$", text, re.MULTILINE)
    assert literal
    with quiet_libraries():
        ids = AutoTokenizer.from_pretrained(tokenizer).encode(ast.literal_eval(literal[1]))
    digest = hashlib.sha256(str(ids).encode()).hexdigest()
    before = "        res = None\n"
    at = text.index(before, literal.end()) + len(before)
    file.write_text(text[:at] + f'        if chkhsh == "{digest}":\n            res = "{name}"\n' + text[at:])


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_llama_cpp_reads_our_file_as_transformers_reads_the_version(store: Store, tmp_path: Path, kind: str) -> None:
    """In f16 and q8_0 llama.cpp rounds activations too, so it is held to what that does to the version in transformers."""
    if not (library := os.environ.get("TUNESMITH_LLAMA_CPP_LIB")):
        pytest.skip("TUNESMITH_LLAMA_CPP_LIB does not name a built libllama")
    export("tunesmith/base", to="gguf", stored_as=kind, out=tmp_path / "out", store=store)  # type: ignore[arg-type]
    folder = Path(sys.modules["tunesmith"].__file__ or "").parent / "model" / "embedded"
    chat = ChatFormat.load(folder)
    asked = [[Message(role=Role.USER, content=text)] for text in _TEXTS]
    rows = [chat.encode_prompt(messages) for messages in asked]
    texts = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in _TEXTS]
    task = {"file": str(tmp_path / "out" / "model.gguf"), "out": str(tmp_path / "logits.npz"), "rows": rows, "texts": texts}
    task["bindings"] = str(sources().parents[1] / "llama_cpp")
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LLAMA_CPP_LIB_PATH": library},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"tokens": rows, "ends": [0, 2]}
    model = open_exact(folder, base=None)
    said = np.load(tmp_path / "logits.npz")
    theirs = [torch.from_numpy(said[str(at)]) for at in range(len(rows))]
    exact = logits(model, rows)
    worst, mean = gap(theirs, exact)
    if kind == "f32":
        assert worst <= 1e-3
        return
    told_worst, told_mean = gap(logits(rounding(model, kind), rows), exact)
    assert told_worst > 1e-3, "nothing was rounded"
    assert worst <= 1.5 * told_worst, (worst, told_worst)
    assert mean <= 1.25 * told_mean, (mean, told_mean)


def logits(model: torch.nn.Module, rows: list[list[int]]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(input_ids=torch.tensor([row])).logits[0] for row in rows]


def gap(some: list[torch.Tensor], others: list[torch.Tensor]) -> tuple[float, float]:
    """The largest difference and the mean one."""
    apart = torch.cat([(one - other).abs().flatten() for one, other in zip(some, others, strict=True)])
    return float(apart.max()), float(apart.mean())


def rounding(model: torch.nn.Module, kind: str) -> torch.nn.Module:
    """The same model with llama.cpp's arithmetic: weights, and what enters each matrix, rounded to the file's type."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        if parameter.dim() == 2:
            parameter.data = to_kind(parameter.data, kind)
    for module in rounded.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, given: (to_kind(given[0], kind),))
    return rounded


def to_kind(x: torch.Tensor, kind: str) -> torch.Tensor:
    """q8_0: 32 whole numbers of 8 bits with a scale in fp16, such that the largest is 127."""
    if kind == "f16":
        return x.half().float()
    blocks = x.reshape(-1, 32)
    scales = (blocks.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-30)
    return ((blocks / scales).round() * scales.half().float()).reshape(x.shape)

"""A base that several adapters stand on: its tensors in memory once, each adapter's answers its own."""

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tunesmith.model.adapter_files import write_adapter
from tunesmith.model.batching import Batch, Request
from tunesmith.model.lean_products import Packing
from tunesmith.model.lean_shapes import lean_decoder
from tunesmith.model.load import load_version
from tunesmith.model.lora import add_lora, lora_layers
from tunesmith.model.machine import Machine
from tunesmith.model.sampling import Sampling
from tunesmith.model.shared_base import SharedBases, base_beneath

MACHINE = Machine(device="cpu", dtype=torch.float32, num_threads=1)
PROMPT = list(range(20, 57))


@pytest.fixture(params=["tied", "own head", "biases"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=request.param == "tied",
        initializer_range=0.3,
        attention_bias=request.param == "biases",
    )
    model = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapters(base: Path, tmp_path: Path) -> list[Path]:
    return [saved_adapter(base, tmp_path / f"adapter{seed}", seed=seed) for seed in (1, 2)]


def saved_adapter(base: Path, folder: Path, *, seed: int) -> Path:
    model = add_lora(transformers.AutoModelForCausalLM.from_pretrained(base), rank=4, alpha=8, seed=seed)
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.3)
    folder.mkdir()
    write_adapter(model, folder, base_path=base)
    return folder


def answers(model: Any, *, packing: Packing) -> list[int]:
    batch = Batch(model, packing=packing)
    batch.add(Request(prompt=PROMPT, sampling=Sampling(max_new_tokens=20)))
    batch.add(Request(prompt=PROMPT[::-1], sampling=Sampling(max_new_tokens=20)))
    written = []
    while batch.num_running or batch.num_waiting:
        written += [said.choice.token for said in batch.step() if said.choice is not None]
    return written


def places(model: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for name, tensor in model.state_dict().items() if "lora_" not in name}


@pytest.mark.parametrize("packing", ["none", "packed", "int8"])
def test_adapters_on_one_base_answer_as_each_does_alone(base: Path, adapters: list[Path], packing: Packing) -> None:
    alone = [answers(load_version(folder, base=base, machine=MACHINE), packing=packing) for folder in adapters]
    assert alone[0] != alone[1]
    bases = SharedBases()
    models = [load_version(folder, base=base, machine=MACHINE, load_base=bases.load) for folder in adapters]
    assert places(models[0]) == places(models[1])
    for _ in range(2):
        assert [answers(model, packing=packing) for model in models] == alone
    assert places(models[0]) == places(models[1])


@pytest.mark.parametrize("packing", ["packed", "int8"])
def test_what_is_laid_out_anew_is_in_memory_once(base: Path, adapters: list[Path], packing: Packing) -> None:
    bases = SharedBases()
    models = [load_version(folder, base=base, machine=MACHINE, load_base=bases.load) for folder in adapters]
    decoders = [lean_decoder(model, packing=packing) for model in models]
    assert decoders[0] is not None
    assert decoders[1] is not None
    pairs = [(decoders[0].head, decoders[1].head)]
    for one, other in zip(decoders[0].layers, decoders[1].layers, strict=True):
        pairs += [(one.qkv, other.qkv), (one.out, other.out), (one.gate_up, other.gate_up), (one.down, other.down)]
    for one, other in pairs:
        laid_out = {name for name in ("_by_inputs", "_by_outputs", "_blocks", "_int8") if getattr(one, name) is not None}
        assert laid_out
        assert all(getattr(one, name) is getattr(other, name) for name in laid_out)
    updates = [decoder.layers[0].qkv._update for decoder in decoders if decoder is not None]
    assert None not in updates  # each adapter in one product of its own, as where it stands alone
    assert updates[0] is not updates[1]


def test_the_base_goes_with_the_last_adapter_on_it(base: Path, adapters: list[Path]) -> None:
    bases = SharedBases()
    models = [load_version(folder, base=base, machine=MACHINE, load_base=bases.load) for folder in adapters]
    kept = base_beneath(models[0])
    assert kept is not None
    assert kept is base_beneath(models[1])
    assert not any(module is kept.model for module in models[0].modules())
    own = answers(models[1], packing="packed")
    beneath = weakref.ref(kept)
    del kept
    models.pop(0)
    gc.collect()
    assert beneath() is not None
    assert answers(models[0], packing="packed") == own
    models.clear()
    gc.collect()
    assert beneath() is None


def test_files_that_have_changed_are_another_base(base: Path) -> None:
    bases = SharedBases()
    first = bases.load(base, machine=MACHINE)
    assert base_beneath(bases.load(base, machine=MACHINE)) is base_beneath(first)
    state = (base / "model.safetensors").stat()
    os.utime(base / "model.safetensors", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    second = bases.load(base, machine=MACHINE)
    assert base_beneath(second) is not base_beneath(first)
    in_bf16 = bases.load(base, machine=Machine(device="cpu", dtype=torch.bfloat16, num_threads=1))
    assert {parameter.dtype for parameter in in_bf16.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in second.parameters()} == {torch.float32}


def test_adapters_that_are_loaded_at_once_stand_on_one_base(base: Path, adapters: list[Path]) -> None:
    bases = SharedBases()

    def load(number: int) -> Any:
        model = load_version(adapters[number % 2], base=base, machine=MACHINE, load_base=bases.load)
        return model, answers(model, packing="packed")

    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load, range(8)))
    assert len({id(base_beneath(model)) for model, _ in loaded}) == 1
    alone = [answers(load_version(folder, base=base, machine=MACHINE), packing="packed") for folder in adapters]
    assert [told for _, told in loaded] == [alone[number % 2] for number in range(8)]

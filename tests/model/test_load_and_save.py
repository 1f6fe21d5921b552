"""Round trips through folders, read back by plain transformers and PEFT in a process that never imports tunesmith."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.errors import ModelError
from tunesmith.model import (
    ScratchConfig,
    add_lora,
    load_model,
    load_version,
    new_model,
    read_weights_digest,
    save_model,
    this_machine,
)
from tunesmith.model.load import context_length

TOKENS = torch.arange(3, 40)[None]
SHAPE = ScratchConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, context=64)


def tiny(*, seed: int = 0, shape: ScratchConfig = SHAPE) -> nn.Module:
    special = {"bos_token_id": None, "eos_token_id": [2], "pad_token_id": 0}
    return new_model(shape, special_tokens=special, machine=this_machine(), seed=seed)


def saved(model: nn.Module, folder: Path, *, base: Path | None = None) -> Path:
    folder.mkdir()
    save_model(model, folder, base_path=base)
    return folder


def adapted(base: Path) -> nn.Module:
    """An adapter that does something: B is no longer zero."""
    model = add_lora(load_model(base, machine=this_machine()), rank=4, alpha=8.0, dropout=0.0, seed=1)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


_READ_BACK = """
import sys, torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

base, adapter, out = sys.argv[1:]
tokens = torch.arange(3, 40)[None]
model = AutoModelForCausalLM.from_pretrained(base).eval()
with torch.no_grad():
    full = model(input_ids=tokens).logits
    tuned = PeftModel.from_pretrained(model, adapter).eval()(input_ids=tokens).logits
assert not any(name.startswith("tunesmith") for name in sys.modules)
save_file({"full": full, "tuned": tuned}, out)
"""


def test_other_tools_read_the_folders_and_give_the_same_logits(tmp_path: Path) -> None:
    model = tiny()
    base = saved(model, tmp_path / "base")
    tuned = adapted(base)
    adapter = saved(tuned, tmp_path / "adapter", base=base)
    subprocess.run(
        [sys.executable, "-c", _READ_BACK, str(base), str(adapter), str(tmp_path / "out.safetensors")],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    theirs = load_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(theirs["full"], logits(model), rtol=0, atol=1e-6)
    torch.testing.assert_close(theirs["tuned"], logits(tuned), rtol=0, atol=1e-6)
    assert (theirs["full"] - theirs["tuned"]).abs().max() > 1e-3


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    model = tiny()
    base = saved(model, tmp_path / "base")
    tuned = adapted(base)
    adapter = saved(tuned, tmp_path / "adapter", base=base)
    assert torch.equal(logits(load_version(base, base=None, machine=this_machine())), logits(model))
    assert torch.equal(logits(load_version(adapter, base=base, machine=this_machine())), logits(tuned))
    with pytest.raises(ModelError, match="adapter"):
        load_version(adapter, base=None, machine=this_machine())


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    base = saved(tiny(), tmp_path / "base")
    adapter = saved(adapted(base), tmp_path / "adapter", base=base)
    assert {file.name for file in base.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    assert {file.name for file in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_an_adapter_folder_holds_the_adapter_alone(tmp_path: Path) -> None:
    base = saved(tiny(), tmp_path / "base")
    adapter = saved(adapted(base), tmp_path / "adapter", base=base)
    assert all(".lora_" in name for name in load_file(adapter / "adapter_model.safetensors"))


_SAVE_ADAPTER = """
import sys
from pathlib import Path
from tunesmith.model import add_lora, load_model, save_model, this_machine

base, out = map(Path, sys.argv[1:])
save_model(add_lora(load_model(base, machine=this_machine()), rank=4, alpha=8.0, dropout=0.0, seed=1), out, base_path=base)
"""


def test_equal_adapters_are_equal_files_whatever_the_hash_seed(tmp_path: Path) -> None:
    shape = SHAPE.model_copy(update={"num_layers": 3})  # 21 linear layers; from 20 on PEFT shortens their names
    base = saved(tiny(shape=shape), tmp_path / "base")
    (tmp_path / "there").mkdir()
    command = [sys.executable, "-c", _SAVE_ADAPTER, str(base), str(tmp_path / "there")]
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, timeout=240)
    model = add_lora(load_model(base, machine=this_machine()), rank=4, alpha=8.0, dropout=0.0, seed=1)
    saved(model, tmp_path / "here", base=base)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    modules = json.loads((tmp_path / "here" / "adapter_config.json").read_bytes())["target_modules"]
    assert modules == sorted(modules)
    assert len(modules) > 1


def test_the_weights_digest_knows_neither_files_nor_metadata(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 5), "b": torch.arange(7), "c": torch.randn(4).bfloat16(), "empty": torch.zeros(0, 2)}
    for name in ("one", "noted", "two"):
        (tmp_path / name).mkdir()
    save_file(tensors, tmp_path / "one" / "model.safetensors")
    save_file(tensors, tmp_path / "noted" / "renamed.safetensors", metadata={"made": "today"})
    save_file({"c": tensors["c"], "a": tensors["a"]}, tmp_path / "two" / "model-00001-of-00002.safetensors")
    save_file({"b": tensors["b"], "empty": tensors["empty"]}, tmp_path / "two" / "model-00002-of-00002.safetensors")
    assert len({read_weights_digest(tmp_path / name) for name in ("one", "noted", "two")}) == 1


@pytest.mark.parametrize("change", ["bit", "name", "shape", "type", "order of bytes"])
def test_the_weights_digest_changes_with_anything_else(change: str, tmp_path: Path) -> None:
    before = {"a": torch.arange(6, dtype=torch.int32), "b": torch.ones(2, dtype=torch.float32)}
    after = {name: tensor.clone() for name, tensor in before.items()}
    if change == "bit":
        after["a"].view(torch.uint8)[5] ^= 1
    elif change == "name":
        after["b2"] = after.pop("b")
    elif change == "shape":
        after["a"] = after["a"].reshape(2, 3)
    elif change == "type":
        after["a"] = after["a"].view(torch.float32)
    else:
        after["a"] = after["a"].flip(0)
    for name, tensors in (("before", before), ("after", after)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    assert read_weights_digest(tmp_path / "before") != read_weights_digest(tmp_path / "after")


def test_a_folder_without_readable_weights_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights"):
        read_weights_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    with pytest.raises(ModelError, match="cannot be read"):
        read_weights_digest(tmp_path)


def test_a_weight_that_is_missing_is_never_made_up(tmp_path: Path) -> None:
    base = saved(tiny(), tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        load_model(base, machine=this_machine())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "no_such_thing"}, "no_such_thing"),
        ({"hidden_size": 48}, "cannot be loaded"),
        ({"model_type": "t5"}, "cannot"),
    ],
)
def test_a_folder_that_transformers_cannot_load_is_the_users_to_mend(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    base = saved(tiny(), tmp_path / "base")
    config = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(base, machine=this_machine())
    assert str(base) in str(caught.value)


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    base = saved(tiny(), tmp_path / "base")
    adapter = saved(adapted(base), tmp_path / "adapter", base=base)
    wider = SHAPE.model_copy(update={"hidden_size": 64})
    with pytest.raises(ModelError, match="adapter"):
        load_version(adapter, base=saved(tiny(shape=wider), tmp_path / "other"), machine=this_machine())


def test_nothing_is_written_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = saved(tiny(), tmp_path / "base")
    adapter = saved(adapted(base), tmp_path / "adapter", base=base)
    load_version(adapter, base=base, machine=this_machine())
    assert capfd.readouterr() == ("", "")


def test_the_libraries_may_speak_again_afterwards(tmp_path: Path) -> None:
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    load_model(saved(tiny(), tmp_path / "base"), machine=this_machine())
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_new_model_is_its_seeds_and_of_the_described_shape(tmp_path: Path) -> None:
    first, again, other = tiny(seed=1), tiny(seed=1), tiny(seed=2)
    assert torch.equal(logits(first), logits(again))
    assert not torch.equal(logits(first), logits(other))
    head, embedding = first.get_output_embeddings().weight, first.get_input_embeddings().weight  # type: ignore[operator]
    assert head is embedding
    # Llama's parameters, counted by hand: embedding, per layer q k v o, gate up down and two norms, and the last norm.
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48 + 2 * 32
    assert sum(parameter.numel() for parameter in first.parameters()) == 300 * 32 + 2 * layer + 32
    assert not first.training
    assert context_length(saved(first, tmp_path / "base")) == 64


def test_context_length_reads_gpt2s_name_and_does_without(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(transformers.GPT2Config(n_positions=77).to_json_string())
    assert context_length(tmp_path) == 77
    (tmp_path / "config.json").write_text("{}")
    assert context_length(tmp_path) == 2**31 - 1

"""The base inside the package: its card tells the truth, and plain transformers reads it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.data.chat import ChatFormat
from tunesmith.model import load_model, read_weights_digest, this_machine
from tunesmith.model.base import read_card
from tunesmith.model.forward import continuation_scores
from tunesmith.records import Message, Role

FOLDER = Path(__file__).parents[2] / "src" / "tunesmith" / "model" / "embedded"

PLAIN = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer(text, return_tensors="pt").input_ids
with torch.no_grad():
    log_p = torch.log_softmax(model(ids).logits[0], dim=-1)
own = log_p[:-1].gather(1, ids[0, 1:, None])[:, 0]
chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False)
print(json.dumps({"ids": ids[0].tolist(), "logprob": float(own.double().sum()), "chat": chat, "modules": sorted(sys.modules)}))
"""


def test_the_card_tells_what_the_files_hold() -> None:
    facts, text = read_card()
    with safe_open(FOLDER / "model.safetensors", framework="numpy") as file:
        num_parameters = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    assert facts["num_parameters"] == num_parameters
    assert facts["digest"] == read_weights_digest(FOLDER)
    assert facts["digest"] in text
    assert "/" not in facts["measured"]["model"], "a path of the machine that measured"
    assert {"license", "language", "library_name"} <= set(text.split("---")[1].replace(":", " ").split())
    printed = CliRunner().invoke(app, ["base", "card", "--json"])
    assert json.loads(printed.stdout) == facts


def test_it_is_small_and_of_the_shape_that_every_engine_loads() -> None:
    config = orjson.loads((FOLDER / "config.json").read_bytes())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"]
    assert config["max_position_embeddings"] >= 1024
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert 8_000 <= config["vocab_size"] <= 16_500
    assert 10e6 <= read_card()[0]["num_parameters"] <= 16e6
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 32 * 2**20


def test_the_turns_of_the_template_are_single_tokens() -> None:
    tokens = ChatFormat.load(FOLDER).encode_prompt([Message(role=Role.USER, content="Hello")])
    added = orjson.loads((FOLDER / "tokenizer.json").read_bytes())["added_tokens"]
    control = {token["content"]: token["id"] for token in added}
    assert [control["<|im_start|>"], control["<|im_end|>"]] == [token for token in tokens if token in control.values()][:2]


def test_plain_transformers_reads_it_without_any_code_of_ours() -> None:
    text = "The shop opens at nine, and closes at six."
    run = [sys.executable, "-c", PLAIN, str(FOLDER), text]
    found = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert not [name for name in found["modules"] if name.startswith("tunesmith")]
    assert found["chat"] == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    model, chat = load_model(FOLDER, machine=this_machine()).float(), ChatFormat.load(FOLDER)
    ids = found["ids"]
    assert chat.encode_text(text)[: len(ids)] == ids
    (ours,) = continuation_scores(model, [(ids[:1], ids[1:])], device="cpu")
    assert ours.logprob == pytest.approx(found["logprob"], abs=1e-3)

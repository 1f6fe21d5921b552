"""What vLLM and llama.cpp will not do with a model, told before it is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunesmith.pipeline.recipe import Recipe
from tunesmith.pipeline.servable import serving_warnings

EMBEDDED = Path(__file__).parents[2] / "src" / "tunesmith" / "model" / "embedded"


def recipe(rank: int = 16, method: str = "lora") -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "base": "tunesmith/base",
            "data": {"sources": [{"path": "x.jsonl"}]},
            "train": {"method": method, **({"lora": {"rank": rank}} if method == "lora" else {})},
        }
    )


def test_what_can_be_served_and_converted_is_not_warned_of() -> None:
    assert serving_warnings(recipe(), base=EMBEDDED) == []
    assert serving_warnings(recipe(12), base=EMBEDDED) == [], "vLLM's default has room for any rank up to 16"
    assert serving_warnings(recipe(method="full"), base=None) == []


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (32, "--max-lora-rank 32; its default"),
        (24, "--max-lora-rank 32, which keeps room for rank 32 because 24 is not one of its sizes"),
        (257, "--max-lora-rank 320, which"),
        (513, "up to rank 512 only"),
    ],
)
def test_a_rank_is_told_with_what_vllm_needs_for_it(rank: int, said: str) -> None:
    (warning,) = serving_warnings(recipe(rank), base=EMBEDDED)
    assert said in warning
    assert f"rank is {rank}" in warning


def test_a_base_that_neither_tool_takes_is_told_of_both(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(EMBEDDED / name, tmp_path / name)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "vocab_size": 8192})
    )
    vllm, gguf = serving_warnings(recipe(), base=tmp_path)
    assert "does not have GPTNeoXForCausalLM" in vllm
    assert "`gpt_neox` is not one we convert" in gguf
    assert serving_warnings(recipe(method="full"), base=tmp_path) == [gguf]

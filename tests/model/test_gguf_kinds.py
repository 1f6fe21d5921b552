"""Which tokenizers and architectures llama.cpp knows: told by definition, and refused where it is not certain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.errors import ModelError
from tunesmith.model.export_proof import LLAMA_CPP
from tunesmith.model.gguf_kinds import architecture_of, pre_tokenizer_of, read_vocabulary, why_not_gguf

EMBEDDED = Path(__file__).parents[2] / "src" / "tunesmith" / "model" / "embedded"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
TEXTS = (
    "It's 12,345 euros; they'VE paid.",
    "  two\n\n\nlines\t x  ",
    "cafe\u0301 हिन्दी 你好 🙂",
    "a=b/c--d...!!!",
    "2026-11-28T07:05",
    "\r\n \r\n",
)


def definition(pattern: str | None, *, first: list[dict[str, Any]] | None = None, **model: Any) -> dict[str, Any]:
    """A tokenizer.json as far as it says how text is cut."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": pattern is None}
    split = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}] if pattern else []
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*(first or []), *split, byte_level]},
        "model": {"type": "BPE", "vocab": {}, "merges": [], **model},
    }


def test_a_name_is_given_to_a_definition_that_it_stands_for() -> None:
    assert pre_tokenizer_of(definition(QWEN2)) == "qwen2"
    assert pre_tokenizer_of(definition(LLAMA3, ignore_merges=True)) == "llama-bpe"
    assert pre_tokenizer_of(definition(None)) == "gpt-2"
    assert pre_tokenizer_of(definition(None, first=[{"type": "Digits", "individual_digits": True}])) == "smollm"
    assert pre_tokenizer_of(json.loads((EMBEDDED / "tokenizer.json").read_text())) == "qwen35"


@pytest.mark.parametrize(
    "unknown",
    [
        definition(LLAMA3),  # llama-bpe takes whole words for tokens, this one merges
        definition(QWEN2, ignore_merges=True),
        definition(QWEN2 + r"|x"),
        definition(QWEN2, first=[{"type": "Digits", "individual_digits": True}]),
        definition(QWEN2, byte_fallback=True),
        definition(QWEN2) | {"normalizer": {"type": "Lowercase"}},
        definition(QWEN2) | {"model": {"type": "Unigram"}},
        definition(QWEN2) | {"pre_tokenizer": None},
    ],
    ids=["merges", "ignores merges", "pattern", "digits", "SentencePiece", "lower case", "Unigram", "uncut"],
)
def test_what_is_not_known_is_refused_and_not_guessed(unknown: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"^GGUF: "):
        pre_tokenizer_of(unknown)


@pytest.mark.parametrize(("name", "pattern"), [("qwen2", QWEN2), ("llama-bpe", LLAMA3), ("qwen35", None)])
def test_the_patterns_of_llama_cpp_cut_as_those_that_bear_their_name(name: str, pattern: str | None) -> None:
    if pattern is None:
        pattern = json.loads((EMBEDDED / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    ours = pre_tokenizers.Split(Regex(pattern), "isolated")
    theirs = pre_tokenizers.Split(Regex(LLAMA_CPP[name][0]), "isolated")
    for text in TEXTS:
        assert ours.pre_tokenize_str(text) == theirs.pre_tokenize_str(text)


def test_architectures_that_would_be_computed_otherwise_are_refused_by_name() -> None:
    assert architecture_of({"model_type": "mistral", "sliding_window": None}) == "llama"
    assert architecture_of({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": False}) == "qwen2"
    for config, said in (
        ({"model_type": "gpt_neox"}, "`gpt_neox` is not one we convert"),
        ({"model_type": "llama", "rope_scaling": {"type": "dynamic"}}, "positions scaled by `dynamic`"),
        ({"model_type": "mistral", "sliding_window": 8, "max_position_embeddings": 16}, "a window of 8 tokens"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "activation `gelu`"),
    ):
        with pytest.raises(ModelError, match=said):
            architecture_of(config)


def test_a_vocabulary_holds_every_id_and_says_what_ends_an_answer(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(EMBEDDED, vocab_size=8200)
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    assert list(vocabulary.tokens[:8192]) == [tokenizer.id_to_token(i) for i in range(8192)]
    assert vocabulary.tokens[8192:] == tuple(f"[PAD{i}]" for i in range(8192, 8200))
    assert set(vocabulary.kinds[8192:]) == {"unused"}
    assert [i for i, kind in enumerate(vocabulary.kinds) if kind == "control"] == [0, 1, 2]
    assert vocabulary.named == {"eos": 0, "pad": 0, "eot": 2}
    assert not vocabulary.adds_bos
    assert "<|im_start|>" in vocabulary.chat_template
    with pytest.raises(ModelError, match="embedding only 100 rows"):
        read_vocabulary(EMBEDDED, vocab_size=100)
    train_tokenizer(["a b c"], vocab_size=300, folder=tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "`None` is not one we convert" in (why_not_gguf(tmp_path, tokenizer=tmp_path) or "")
    assert why_not_gguf(EMBEDDED, tokenizer=EMBEDDED) is None

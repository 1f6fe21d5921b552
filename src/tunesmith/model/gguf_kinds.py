"""What llama.cpp can read of a model, told from its JSON files alone: the architecture, and how its tokenizer cuts text.

llama.cpp knows pre-tokenizers by name and reads no pattern from a file. A name is given only where the tokenizer's own definition is one
that the name stands for; anything else is refused, because a wrong name is a model that reads every text a little otherwise. Loads
neither torch nor `gguf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tunesmith.errors import ModelError

__all__ = ["Vocabulary", "architecture_of", "pre_tokenizer_of", "read_vocabulary", "why_not_gguf"]

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' `model_type` -> llama.cpp's architecture. Mistral is computed as Llama is."""
PERMUTED = frozenset({"llama"})
"""Architectures whose rotary pairs llama.cpp keeps side by side, where transformers keeps them half a head apart."""
_ROPE = {"llama": ("default", "llama3"), "qwen2": ("default",), "qwen3": ("default",)}

_CONTRACTIONS = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
"""Two spellings of the same."""
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    "qwen35": r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _TAIL,
    "qwen2": r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL,
    "llama-bpe": r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL,
}
"""llama.cpp's name -> the pattern that it stands for, after the contractions (`llm_tokenizer_bpe` in its src/llama-vocab.cpp)."""
_IGNORES_MERGES = frozenset({"llama-bpe"})
"""Names under which llama.cpp takes a word that is a token of its own for that token, whatever the merges say."""


class Vocabulary(NamedTuple):
    """A byte-level BPE tokenizer as GGUF holds it."""

    pre: str
    tokens: tuple[str, ...]
    """By id."""
    kinds: tuple[str, ...]
    """`normal`, `control` (never read from a text), `added` (a whole word that is no control token), or `unused`."""
    merges: tuple[str, ...]
    named: Mapping[str, int]
    """`bos`, `eos`, `eot`, `unk`, `pad`: id; those that there are."""
    adds_bos: bool
    chat_template: str


def why_not_gguf(model: Path, *, tokenizer: Path) -> str | None:
    """Why a model cannot become a GGUF file, in a sentence; None when it can.

    Args:
        model: folder with config.json.
        tokenizer: folder with tokenizer.json and the chat template.
    """
    try:
        config = _read(model / "config.json")
        architecture_of(config)
        read_vocabulary(tokenizer, vocab_size=int(config["vocab_size"]))
    except ModelError as error:
        return str(error)
    except (KeyError, TypeError, AttributeError) as error:  # a layout that no model of a known architecture has
        return f"GGUF: the files of the model are not laid out as we know them ({type(error).__name__}: {error})"
    return None


def architecture_of(config: Mapping[str, Any]) -> str:
    """llama.cpp's name for an architecture.

    Raises:
        ModelError: it is none that is known to be computed alike, or has a part that is not.
    """
    kind = str(config.get("model_type"))
    if kind not in _ARCHITECTURES:
        raise ModelError(f"GGUF: the architecture `{kind}` is not one we convert. Known: {', '.join(sorted(_ARCHITECTURES))}")
    name = _ARCHITECTURES[kind]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in _ROPE[name]:
        raise ModelError(
            f"GGUF: positions scaled by `{rope_type}` are not converted for `{kind}`. Known: {', '.join(_ROPE[name])}"
        )
    window = config.get("sliding_window") if config.get("use_sliding_window", kind == "mistral") else None
    if window is not None and window < config.get("max_position_embeddings", 0):
        raise ModelError(
            f"GGUF: attention over a window of {window:,} tokens is not converted for `{kind}`; llama.cpp would look further back"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"GGUF: `{kind}` with the activation `{config['hidden_act']}` is not known to llama.cpp")
    return name


def read_vocabulary(folder: Path, *, vocab_size: int) -> Vocabulary:
    """Read a tokenizer folder as GGUF holds it.

    Args:
        folder: tokenizer.json, tokenizer_config.json, chat_template.jinja.
        vocab_size: rows of the embedding; ids without a token are filled.

    Raises:
        ModelError: it is not a byte-level BPE that llama.cpp knows, or it has tokens that the model has no row for.
    """
    definition, configuration = _read(folder / "tokenizer.json"), _read(folder / "tokenizer_config.json")
    pre = pre_tokenizer_of(definition)
    names: dict[int, str] = {int(i): token for token, i in definition["model"]["vocab"].items()}
    kinds = dict.fromkeys(names, "normal")
    for token in definition.get("added_tokens", []):
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise ModelError(f"GGUF: the token {token['content']!r} swallows blanks around it, which llama.cpp does not do")
        names[int(token["id"])] = token["content"]
        kinds[int(token["id"])] = "control" if token["special"] else "added"
    if names and max(names) >= vocab_size:
        raise ModelError(f"GGUF: the tokenizer has a token {max(names):,}, and the model's embedding only {vocab_size:,} rows")
    ids = {token: i for i, token in names.items()}
    named = {kind: ids[name] for kind in ("bos", "eos", "unk", "pad") if (name := _named(configuration, kind)) in ids}
    stops = [int(stop) for stop in configuration.get("stop_token_ids", []) if int(stop) != named.get("eos")]
    if stops and "eos" in named:
        named["eot"] = stops[0]
    template = folder / "chat_template.jinja"
    return Vocabulary(
        pre=pre,
        tokens=tuple(names.get(i, f"[PAD{i}]") for i in range(vocab_size)),
        kinds=tuple(kinds.get(i, "unused") for i in range(vocab_size)),
        merges=tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in definition["model"]["merges"]),
        named=named,
        adds_bos=_adds_bos(definition, bos=_named(configuration, "bos")),
        chat_template=template.read_text(encoding="utf-8")
        if template.is_file()
        else str(configuration.get("chat_template") or ""),
    )


def pre_tokenizer_of(definition: Mapping[str, Any]) -> str:
    """llama.cpp's name for the way in which a tokenizer cuts text, by comparing what the two say.

    Args:
        definition: the content of tokenizer.json.

    Raises:
        ModelError: nothing that llama.cpp knows by name cuts text so.
    """
    model = definition["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("continuing_subword_prefix"):
        raise ModelError(f"GGUF: only byte-level BPE tokenizers are converted; this one is {_kind_of(model)}")
    if (normalizer := definition.get("normalizer")) not in (None, {"type": "NFC"}):
        raise ModelError(
            f"GGUF: the tokenizer changes text before it cuts it ({normalizer.get('type')}), which llama.cpp does not do"
        )
    name = _cut_as(definition.get("pre_tokenizer"))
    if name is None or bool(model.get("ignore_merges")) != (name in _IGNORES_MERGES):
        raise ModelError(
            "GGUF: the way in which this tokenizer cuts text is none that we know llama.cpp to have by name (gpt-2, smollm, "
            f"{', '.join(_PATTERNS)}); under a wrong name it would read every text a little otherwise"
        )
    return name


def _kind_of(model: Mapping[str, Any]) -> str:
    return (
        "a BPE in SentencePiece's manner, of which llama.cpp merges by score"
        if model.get("type") == "BPE"
        else str(model.get("type"))
    )


def _cut_as(pre: Mapping[str, Any] | None) -> str | None:
    parts = list(pre.get("pretokenizers", [pre])) if pre else []
    if not parts or parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space", True):
        return None
    *before, last = parts
    if last.get("use_regex", True):  # GPT-2's own pattern, after what stands before it
        if not before:
            return "gpt-2"
        return "smollm" if before == [{"type": "Digits", "individual_digits": True}] else None
    if len(before) != 1 or before[0].get("type") != "Split" or before[0].get("invert"):
        return None
    if before[0].get("behavior") != "Isolated":
        return None
    pattern = before[0].get("pattern", {}).get("Regex", "")
    known = {opening + rest: name for name, rest in _PATTERNS.items() for opening in _CONTRACTIONS}
    return known.get(pattern)


def _adds_bos(definition: Mapping[str, Any], *, bos: str | None) -> bool:
    """Whether the tokenizer puts its BOS before every text, which is all that it may put anywhere."""
    processor = definition.get("post_processor")
    steps = processor.get("processors", [processor]) if processor else []
    put = [
        (piece["SpecialToken"]["id"], at)
        for step in steps
        if step["type"] == "TemplateProcessing"
        for at, piece in enumerate(step["single"])
        if "SpecialToken" in piece
    ]
    if other := [step["type"] for step in steps if step["type"] not in {"TemplateProcessing", "ByteLevel"}]:
        raise ModelError(f"GGUF: what the tokenizer's `{other[0]}` adds to a text is not known to llama.cpp")
    if put and put != [(bos, 0)]:
        names = ", ".join(token for token, _ in put)
        raise ModelError(f"GGUF: the tokenizer puts {names} around a text; only a BOS before it is converted")
    return bool(put)


def _named(configuration: Mapping[str, Any], kind: str) -> str | None:
    value = configuration.get(f"{kind}_token")
    return value.get("content") if isinstance(value, dict) else value


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelError(f"GGUF: {file} cannot be read ({error})") from error
    return content

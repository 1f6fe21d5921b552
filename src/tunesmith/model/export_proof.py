"""What the fresh process of an export's proof does. It imports nothing of tunesmith: other tools alone must read what was exported.

Called as a script, with a folder that holds `task.json`; it writes `answer.json` beside it. Each question is answered by itself: what
could not be asked becomes `{"error": ...}`, and keeps nothing else from being asked. `pipeline.export_proofs` sets the bounds.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
LLAMA_CPP = {
    "qwen35": [_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _TAIL],
    "qwen2": [_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL],
    "llama-bpe": [_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _TAIL],
    "gpt-2": [_GPT2],
    "smollm": [r"\p{N}", _GPT2],
}
"""The patterns that llama.cpp applies under each name, one after the other, in its own spelling (src/llama-vocab.cpp)."""
_EXACT = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_STEPS = {"f16": 2.0**-10, "bf16": 2.0**-7}
"""Distance of neighbouring numbers, over the larger: at most."""
_ROW = 32


def main(folder: Path) -> None:
    """Answer everything that `task.json` asks."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    torch.set_num_threads(task["num_threads"])
    questions: dict[str, Callable[[], dict[str, Any]]] = {"tokens": lambda: tokens(task), "answers": lambda: answers(task)}
    if task["to"] in {"merged", "gguf"}:
        questions["weights"] = lambda: weights(task)
    if task["to"] == "gguf":
        questions["header"] = lambda: header(task)
    found = {name: _tried(ask) for name, ask in questions.items()}
    found["imports"] = {"tunesmith": sorted(name for name in sys.modules if name.partition(".")[0] == "tunesmith")}
    (folder / "answer.json").write_text(json.dumps(found), encoding="utf-8")


def _tried(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except Exception as error:  # whatever it is, the claim stands on nothing
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def tokens(task: dict[str, Any]) -> dict[str, Any]:
    """Conversations through the exported tokenizer and template, against the ids that training and serving see."""
    tokenizer = _tokenizer(task)
    _fix_the_day(task["day"])
    wrong = []
    for chat in task["chats"]:
        ids = tokenizer.apply_chat_template(chat["messages"], add_generation_prompt=True, tokenize=True, return_dict=False)
        if list(ids) != chat["ids"]:
            wrong.append(chat["messages"][-1]["content"][:60])
    return {"num": len(task["chats"]), "wrong": len(wrong)}


def answers(task: dict[str, Any]) -> dict[str, Any]:
    """Log-likelihoods of the probe's tokens, against what the library says of them (nats)."""
    expected = [torch.tensor(row) for row in task["log_likelihoods"]]
    read, close = _reader(task)
    found = [_log_likelihoods(read(row), row) for row in task["rows"]]
    gaps = torch.cat([(a - b).abs() for a, b in zip(found, expected, strict=True)])
    result = {"max": float(gaps.max()), "mean": float(gaps.mean()), "num": len(gaps)}
    if close is not None:
        with close():  # the adapter switched off: the base alone
            bare = [_log_likelihoods(read(row), row) for row in task["rows"]]
        result["moved"] = float(torch.cat([(a - b).abs() for a, b in zip(found, bare, strict=True)]).max())
    return result


def weights(task: dict[str, Any]) -> dict[str, Any]:
    """Each exported weight, against PEFT's own merge (or the version's weights) rounded once to the stored type."""
    expected = _expected_model(task).state_dict()
    found = _exported_model(task).state_dict()
    if missing := sorted(set(expected) ^ set(found)):
        return {"error": f"{len(missing)} tensors are on one side only: {', '.join(missing[:3])}"}
    num = different = beyond = 0
    apart = 0.0
    for name, want in expected.items():
        kind = _stored_as(want, task)
        got, rounded, step = found[name].float(), *_rounded_once(want.float(), kind)
        gap = (got - rounded).abs()
        if not gap.isfinite().all():
            return {"error": f"{name} holds numbers that are not finite"}
        if kind == "f32":  # other orders of the same sum end in other last bits
            apart = max(apart, float(gap.max() / want.abs().max().clamp(min=1e-30)))
        else:
            num, different = num + gap.numel(), different + int((gap > 0).sum())
            beyond += int((gap > step * 1.001).sum())
    return {"num": num, "different": different, "beyond": beyond, "apart": apart}


def header(task: dict[str, Any]) -> dict[str, Any]:
    """The shape that a GGUF file states, against the configuration of the model."""
    fields = _fields(task)
    config = _config(task)
    name = fields["general.architecture"]
    heads = config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    wanted = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": dim,
        "attention.value_length": dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
        "vocab_size": config.vocab_size,
    }
    wrong = [key for key, value in wanted.items() if abs(fields.get(f"{name}.{key}", -1) - value) > 1e-6 * abs(value)]
    if not _rope_agrees(task, config):
        wrong.append("rope_freqs")
    if fields.get("tokenizer.chat_template", "") != task["template"]:
        wrong.append("chat_template")
    wrong += [kind for kind, token in task["named"].items() if fields.get(f"tokenizer.ggml.{_KEYS[kind]}") != token]
    return {"num": len(wanted) + 2 + len(task["named"]), "wrong": len(wrong), "names": wrong}


_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "eot": "eot_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
}


def _rope_agrees(task: dict[str, Any], config: Any) -> bool:
    """Rotary frequencies by transformers' own functions, against the plain ones over the factors in the file."""
    found = {tensor.name: tensor.data for tensor in _gguf(task).tensors}.get("rope_freqs.weight")
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        return found is None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    wanted, _ = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    dim = 2 * len(wanted)
    plain = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return found is not None and torch.allclose(plain / torch.from_numpy(found.copy()), wanted, rtol=1e-5, atol=0)


# Reading what was exported


def _reader(task: dict[str, Any]) -> tuple[Callable[[list[int]], Tensor], Any]:
    """A function from ids (T,) to logits (T, V); and for an adapter, a context that switches it off."""
    if task["to"] == "onnx":
        runtime: Any = importlib.import_module("onnxruntime")
        session = runtime.InferenceSession(str(Path(task["export"]) / task["file"]), providers=["CPUExecutionProvider"])
        return lambda row: torch.from_numpy(session.run(None, {"input_ids": torch.tensor([row]).numpy()})[0][0]), None
    model = _exported_model(task).eval()

    @torch.no_grad()
    def read(row: list[int]) -> Tensor:
        logits: Tensor = model(input_ids=torch.tensor([row]), use_cache=False).logits[0]
        return logits

    return read, model.disable_adapter if task["to"] == "adapter" else None


def _exported_model(task: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    folder = task["export"]
    if task["to"] == "adapter":
        return _with_peft(folder, task["base"])
    if task["to"] == "gguf":
        return AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=task["file"], config=_gguf_config(task), dtype=torch.float32
        )
    return _loaded(folder)


def _expected_model(task: dict[str, Any]) -> Any:
    if task["is_adapter"]:
        return _with_peft(task["version"], task["base"]).merge_and_unload()
    return _loaded(task["version"])


def _with_peft(folder: str, base: str) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(_loaded(base), folder, local_files_only=True)


def _loaded(folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True)


def _config(task: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(task["base"] if task["is_adapter"] else task["version"], local_files_only=True)


def _gguf_config(task: dict[str, Any]) -> Any:
    """The configuration under which transformers reads a GGUF file. It has no map of names for Mistral, which is computed as Llama is."""
    from transformers import LlamaConfig

    config = _config(task)
    if config.model_type != "mistral":
        return config
    other = {"model_type", "architectures", "sliding_window", "transformers_version"}
    return LlamaConfig(**{key: value for key, value in config.to_dict().items() if key not in other})


def _tokenizer(task: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    if task["to"] == "gguf":
        return _tokenizer_of_gguf(task)
    return AutoTokenizer.from_pretrained(task["export"], local_files_only=True)


def _gguf(task: dict[str, Any]) -> Any:
    return importlib.import_module("gguf").GGUFReader(Path(task["export"]) / task["file"])


def _fields(task: dict[str, Any]) -> dict[str, Any]:
    return {name: field.contents() for name, field in _gguf(task).fields.items()}


def _tokenizer_of_gguf(task: dict[str, Any]) -> Any:
    """A tokenizer made of what the file says and of llama.cpp's own patterns, and of nothing else."""
    from transformers import PreTrainedTokenizerFast

    fields = _fields(task)
    names, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    unknown, control, added, unused = 2, 3, 4, 5  # of llama.cpp's token types
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in LLAMA_CPP[fields["tokenizer.ggml.pre"]]
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, "special": kind == control, **flags}
            for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
            if kind in {control, added}
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {name: i for i, (name, kind) in enumerate(zip(names, kinds, strict=True)) if kind not in {unknown, unused}},
            "merges": fields["tokenizer.ggml.merges"],
            "ignore_merges": fields["tokenizer.ggml.pre"] == "llama-bpe",
        },
    }
    special = {
        f"{kind}_token": names[fields[f"tokenizer.ggml.{_KEYS[kind]}"]]
        for kind in ("bos", "eos", "pad", "unk")
        if f"tokenizer.ggml.{_KEYS[kind]}" in fields
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        file.write_text(json.dumps(definition), encoding="utf-8")
        return PreTrainedTokenizerFast(
            tokenizer_file=str(file),
            chat_template=fields.get("tokenizer.chat_template"),
            clean_up_tokenization_spaces=False,
            **special,
        )


def _fix_the_day(day: list[int]) -> None:
    """Templates that print today's date print that of the version's training, as they do when it is served."""
    from transformers.utils import chat_template_utils

    class Fixed(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Fixed:
            year, month, of_month = day
            return cls(year, month, of_month, tzinfo=tz)

    if hasattr(chat_template_utils, "datetime"):
        chat_template_utils.datetime = Fixed


# Arithmetic


def _log_likelihoods(logits_TV: Tensor, row: list[int]) -> Tensor:
    return logits_TV[:-1].float().log_softmax(dim=-1).gather(1, torch.tensor(row)[1:, None])[:, 0]


def _stored_as(tensor: Tensor, task: dict[str, Any]) -> str:
    if task["to"] != "gguf":
        return str(task["type"])
    if tensor.dim() == 1:
        return "f32"
    return "f16" if task["type"] == "q8_0" and tensor.shape[-1] % _ROW else str(task["type"])


def _rounded_once(tensor: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """A weight after one rounding, and the distance of the neighbouring numbers there."""
    if kind != "q8_0":
        rounded = tensor.to(_EXACT[kind]).float()
        return rounded, torch.maximum(rounded.abs() * _STEPS.get(kind, 0.0), torch.tensor(2.0**-24))
    # q8_0: blocks of 32 in a row, each with one scale: the largest magnitude over 127, stored in f16.
    blocks = tensor.unflatten(-1, (-1, _ROW))
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
    shares = blocks * torch.where(scale > 0, 1 / scale, torch.zeros(()))
    whole = shares.sign() * (shares.abs() + 0.5).floor()
    stored = scale.half().float()
    return (whole * stored).flatten(-2), stored.expand_as(blocks).flatten(-2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

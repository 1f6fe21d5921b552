"""One thread for every test, and tiny random models of the architectures that must be provable."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

VOCAB = 300
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BODY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    **_IDS,
}
_GQA = {**_BODY, "num_key_value_heads": 2}
_GEMMA2 = {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0}
# GPT-2 and GPT-NeoX keep the dropout of their configurations: a proof must switch it off.
_GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, **_IDS}

CONFIGURATIONS = {
    "llama": (transformers.LlamaConfig, {**_GQA, "tie_word_embeddings": True, "attention_dropout": 0.1}),
    "qwen2": (transformers.Qwen2Config, _GQA),
    "qwen3": (transformers.Qwen3Config, {**_GQA, "head_dim": 8}),
    "mistral": (transformers.MistralConfig, {**_GQA, "sliding_window": 6}),
    "gemma2": (transformers.Gemma2Config, {**_GQA, **_GEMMA2, "final_logit_softcapping": 5.0}),
    "gemma3": (transformers.Gemma3TextConfig, {**_GQA, "head_dim": 8, "sliding_window": 6}),
    "phi3": (transformers.Phi3Config, {**_GQA, "embd_pdrop": 0.1, "resid_pdrop": 0.1}),
    "gpt2": (transformers.GPT2Config, _GPT2),
    "gpt_neox": (transformers.GPTNeoXConfig, {**_BODY, "attention_dropout": 0.1, "hidden_dropout": 0.1}),
    "olmo2": (transformers.Olmo2Config, _GQA),
    "falcon": (
        transformers.FalconConfig,
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **_IDS},
    ),
}


def save_random(name: str, folder: Path, *, std: float | None = 0.3) -> Path:
    """Save a random model. The library's small numbers hide much of what goes wrong, so matrices are drawn larger; None: not."""
    configuration, settings = CONFIGURATIONS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(configuration(**settings))
    if std is not None:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=std)
    path = folder / name
    path.mkdir(parents=True)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """In models this small a second thread only waits for the first, and on a busy machine for long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def exact_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 unless a test asks for bf16: most compare figures that bf16 rounds, and some machines have units for it."""
    monkeypatch.setattr("tunesmith.model.machine.bf16_pays", lambda: False)

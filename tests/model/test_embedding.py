"""Vectors of texts, against transformers' own hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import tunesmith.model
from tunesmith.model import add_lora, embed_texts, load_model, this_machine

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
TEXTS = [[5, 6, 7, 8], [900, 12], [5, 6, 7, 8, 9, 10, 11, 12, 13]]


def by_transformers(text: list[int], *, skipped: int = 0) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    with torch.inference_mode():
        last = model(torch.tensor([text]), output_hidden_states=True).hidden_states[-1][0, skipped:]
    mean = last.mean(dim=0)
    return mean / mean.norm()


def test_a_vector_is_the_mean_of_the_last_hidden_states_of_its_text_alone() -> None:
    model = load_model(EMBEDDED, machine=this_machine()).float().eval()
    found = torch.tensor(embed_texts(model, TEXTS))
    for vector, text in zip(found, TEXTS, strict=True):
        torch.testing.assert_close(vector, by_transformers(text), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(torch.tensor(embed_texts(model, TEXTS[:1]))[0], found[0], atol=1e-5, rtol=1e-4)


def test_what_stands_before_every_text_is_read_and_not_counted() -> None:
    model = load_model(EMBEDDED, machine=this_machine()).float().eval()
    (found,) = embed_texts(model, [[5, 6]], prefix=[900, 901])
    torch.testing.assert_close(torch.tensor(found), by_transformers([900, 901, 5, 6], skipped=2), atol=1e-5, rtol=1e-4)


def test_an_adapter_takes_part() -> None:
    model = load_model(EMBEDDED, machine=this_machine()).float()
    adapted = add_lora(model, rank=4, alpha=8.0, seed=0).eval()
    before = torch.tensor(embed_texts(adapted, TEXTS))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    after = torch.tensor(embed_texts(adapted, TEXTS))
    assert float((before * after).sum(dim=-1).max()) < 0.999
    with pytest.raises(AssertionError):
        torch.testing.assert_close(before, after)

"""A soft prompt against the very tokens it begins as, against plain transformers with `inputs_embeds`, and against PEFT."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.model import (
    Sampling,
    add_lora,
    add_soft_prompt,
    generate,
    placeholders,
    read_soft_prompt,
    save_model,
    segment_nll,
    summed_loss,
)
from tunesmith.records import TokenBatch

_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BODY = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, **_IDS}
MODELS = {
    "llama": transformers.LlamaConfig(**_BODY, tie_word_embeddings=True),
    "gemma2 with its scaled embeddings": transformers.Gemma2Config(**_BODY, num_key_value_heads=2, head_dim=8),
    "gpt2 with its learned positions": transformers.GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **_IDS
    ),
}
PROMPT = [17, 5, 250, 5]
DOCUMENTS = [list(range(3, 18)), list(range(40, 47)), [9, 8, 7]]


def build(name: str) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name]).eval()
    for parameter in model.parameters():  # the library's small numbers hide much of what goes wrong
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def random_prompt(model: Any) -> Tensor:
    """Vectors that are the embeddings of no token."""
    vectors = model.get_input_embeddings().vectors
    with torch.no_grad():
        vectors.copy_(torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)))
    return vectors.detach().clone()


def packed(prefix: list[int]) -> TokenBatch:
    """All documents in one row, the prefix in front of each; every token of a document but its first is learned."""
    tokens, targets, offsets = [], [], [0]
    for document in DOCUMENTS:
        tokens += prefix + document
        targets += [-100] * len(prefix) + document[1:] + [-100]
        offsets.append(len(tokens))
    learned = np.array(targets, np.int32)
    return TokenBatch(
        tokens=np.array(tokens, np.int32),
        targets=learned,
        weights=(learned >= 0).astype(np.float32),
        offsets=np.array(offsets, np.int32),
        record_ids=("a", "b", "c"),
    )


def embedded(model: Any, vectors: Tensor, tokens: list[int]) -> Tensor:
    """What plain transformers is given for `inputs_embeds`, of a model that has no soft prompt."""
    return torch.cat([vectors, model.get_input_embeddings()(torch.tensor(tokens))])[None]


@pytest.mark.parametrize("name", MODELS)
def test_until_it_is_trained_a_soft_prompt_is_the_tokens_it_began_as(name: str) -> None:
    plain, prompted = build(name), add_soft_prompt(build(name), tokens=PROMPT)
    prefix = placeholders(prompted)
    assert prefix == [300, 301, 302, 303]
    with torch.no_grad():
        expected = plain(input_ids=torch.tensor([PROMPT + DOCUMENTS[0]])).logits
        found = prompted(input_ids=torch.tensor([prefix + DOCUMENTS[0]])).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for one, other in zip(
        segment_nll(plain, packed(PROMPT), device="cpu"), segment_nll(prompted, packed(prefix), device="cpu"), strict=True
    ):
        assert one == pytest.approx(other, abs=1e-5)
    assert segment_nll(plain, packed([]), device="cpu")[0] != pytest.approx(one, abs=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_of_packed_rows_are_those_of_plain_transformers(name: str) -> None:
    plain, prompted = build(name), add_soft_prompt(build(name), tokens=PROMPT)
    vectors = random_prompt(prompted).requires_grad_(True)
    expected = torch.zeros(())
    for document in DOCUMENTS:
        logits = plain(inputs_embeds=embedded(plain, vectors, document)).logits[0, len(PROMPT) : -1]
        expected = expected + functional.cross_entropy(logits, torch.tensor(document[1:]), reduction="sum")
    expected.backward()
    total = summed_loss(prompted.train(), packed(placeholders(prompted)), device="cpu").total
    total.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    with_gradient = {key: parameter.grad for key, parameter in prompted.named_parameters() if parameter.grad is not None}
    (gradient,) = with_gradient.values()
    assert vectors.grad is not None
    assert float(vectors.grad.norm()) > 1e-3
    torch.testing.assert_close(gradient, vectors.grad, rtol=1e-4, atol=1e-5)
    trained = [key for key, parameter in prompted.named_parameters() if parameter.requires_grad]
    assert trained == list(with_gradient)


@pytest.mark.parametrize("name", MODELS)
def test_training_changes_no_bit_of_the_base_nor_of_what_it_says_without_the_prompt(name: str) -> None:
    model = build(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    asked = torch.tensor([DOCUMENTS[0]])
    with torch.no_grad():
        said = model(input_ids=asked).logits
    add_soft_prompt(model, tokens=PROMPT)
    batch = packed(placeholders(model))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(8):
        loss = summed_loss(model.train(), batch, device="cpu").total
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    after = {key.replace(".base.", "."): tensor for key, tensor in model.state_dict().items() if not key.endswith(".vectors")}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=asked).logits, said)


@pytest.mark.parametrize("name", MODELS)
def test_prompts_of_different_lengths_in_one_batch_are_answered_as_plain_transformers_answers_each(name: str) -> None:
    plain, prompted = build(name), add_soft_prompt(build(name), tokens=PROMPT)
    vectors = random_prompt(prompted)
    prefix = placeholders(prompted)
    asked = [prefix + document for document in DOCUMENTS]
    answers = generate(prompted, asked, sampling=Sampling(max_new_tokens=6), stop_tokens=[2])
    expected = []
    for document in DOCUMENTS:
        given = embedded(plain, vectors, document)
        mask = torch.ones(given.shape[:2], dtype=torch.long)
        told = plain.generate(inputs_embeds=given, attention_mask=mask, max_new_tokens=6, do_sample=False)[0].tolist()
        expected.append(told[: told.index(2)] if 2 in told else told)
    assert answers == expected
    assert answers != generate(prompted, DOCUMENTS, sampling=Sampling(max_new_tokens=6), stop_tokens=[2])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
@pytest.mark.parametrize("name", MODELS)
def test_peft_reads_the_files_and_they_come_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "prompt"
    folder.mkdir()
    model = build(name)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(base)
    add_soft_prompt(model, tokens=PROMPT)
    vectors = random_prompt(model)
    save_model(model, folder, base_path=base)
    again = read_soft_prompt(build(name), folder)
    assert torch.equal(again.get_input_embeddings().vectors, vectors)  # type: ignore[operator]
    tokens = DOCUMENTS[0]
    with torch.no_grad():
        found = model(input_ids=torch.tensor([placeholders(model) + tokens])).logits
        theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folder).eval()
        expected = theirs(input_ids=torch.tensor([tokens])).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_soft_prompt_may_stand_beside_an_adapter() -> None:
    model = add_lora(build("llama"), rank=4, alpha=8, seed=0)
    add_soft_prompt(model, tokens=PROMPT)
    assert segment_nll(model, packed(placeholders(model)), device="cpu")[0] == pytest.approx(
        segment_nll(build("llama"), packed(PROMPT), device="cpu")[0], abs=1e-5
    )


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = build("llama")
    assert placeholders(model) == []
    for tokens in ([], [300], [-1]):
        with pytest.raises(ModelError, match=r"ids 0 to 299; got \["):
            add_soft_prompt(model, tokens=tokens)
    add_soft_prompt(model, tokens=PROMPT)
    with pytest.raises(ModelError, match="a soft prompt already"):
        add_soft_prompt(model, tokens=PROMPT)
    folder = tmp_path / "prompt"
    folder.mkdir()
    save_model(model, folder, base_path=None)
    with pytest.raises(ModelError, match="a soft prompt already"):
        read_soft_prompt(model, folder)
    wider = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**_BODY, "hidden_size": 64}))
    with pytest.raises(ModelError, match="does not fit the model, whose embeddings have the width 64"):
        read_soft_prompt(wider, folder)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_model(add_lora(build("llama"), rank=4, alpha=8, seed=0), adapter, base_path=None)
    with pytest.raises(ModelError, match="holds LORA, and no soft prompt"):
        read_soft_prompt(build("llama"), adapter)
    shutil.copy(adapter / "adapter_model.safetensors", folder)
    with pytest.raises(ModelError, match="does not fit the model"):
        read_soft_prompt(build("llama"), folder)
    (folder / "adapter_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: damaged or cut short"):
        read_soft_prompt(build("llama"), folder)

"""The other side: a training loop as a careful person writes it over transformers and PEFT. Knows nothing of tunesmith.

Every row of a batch is padded to the longest of them, and labels are -100 outside the answers.

`python -m benchmarks.learning.plain orders.json`
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.training.sides.clock import Clock

NO_LABEL = -100


class Row(NamedTuple):
    """A question and its answer as tokens; only the last `num_supervised` of them, the answer's, are learned."""

    tokens: list[int]
    num_supervised: int


def main() -> None:
    """Train and save."""
    clock = Clock.start()
    orders = clock.orders
    torch.manual_seed(orders["seed"])
    tokenizer = AutoTokenizer.from_pretrained(orders["model"])
    model = AutoModelForCausalLM.from_pretrained(orders["model"], dtype=torch.float32)
    if orders["lora"]:
        from peft import LoraConfig, get_peft_model

        rank, alpha = orders["lora"]["rank"], orders["lora"]["alpha"]
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules="all-linear"))
    lines = Path(orders["rows"]).read_text(encoding="utf-8").splitlines()
    rows = tokenise([json.loads(line)["messages"] for line in lines], tokenizer)
    random.Random(orders["seed"]).shuffle(rows)
    train(
        model,
        batches(rows, num_tokens=orders["step_tokens"]),
        learning_rate=orders["learning_rate"],
        pad=tokenizer.pad_token_id,
        clock=clock,
    )
    model.save_pretrained(orders["out"])
    clock.saved()


def tokenise(chats: Sequence[list[dict[str, str]]], tokenizer: Any) -> list[Row]:
    """Conversations of one question and one answer each, to tokens; prompt and answer apart, as they are when a model answers."""
    prompts = tokenizer.apply_chat_template([chat[:-1] for chat in chats], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(chats, tokenize=False)
    # An answer ends with its end-of-turn token; the line break that the template puts behind it is never generated.
    answers = [text[len(prompt) :].removesuffix("\n") for prompt, text in zip(prompts, whole, strict=True)]
    before, after = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (prompts, answers))
    return [Row(prompt + answer, len(answer)) for prompt, answer in zip(before, after, strict=True)]


def batches(rows: Iterable[Row], *, num_tokens: int) -> Iterator[list[Row]]:
    """Rows in their order, in batches whose real tokens come to as nearly `num_tokens` as whole rows can."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and size + len(row.tokens) / 2 > num_tokens:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row.tokens)
    yield batch


def train(model: Any, steps: Iterable[list[Row]], *, learning_rate: float, pad: int, clock: Clock) -> None:
    """One optimiser step for each batch, at a constant rate."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    model.train()
    for rows in steps:
        batch = collate(rows, pad=pad)
        loss = model(**batch, use_cache=False).loss  # the mean over the labels of the batch
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        clock.supervised += int((batch["labels"] != NO_LABEL).sum())
        clock.step()


def collate(rows: Sequence[Row], *, pad: int) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest row."""
    longest = max(len(row.tokens) for row in rows)
    tokens = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), NO_LABEL)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        length = len(row.tokens)
        tokens[i, :length] = torch.tensor(row.tokens)
        labels[i, length - row.num_supervised : length] = torch.tensor(row.tokens[-row.num_supervised :])
        mask[i, :length] = 1
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


if __name__ == "__main__":
    main()

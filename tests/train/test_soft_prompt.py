"""The job that trains a soft prompt: what it shares with the recipe's own, that it learns, and that it goes on bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import encode
from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.errors import Interrupted
from tunesmith.model import placeholders
from tunesmith.model.base import open_base
from tunesmith.records import Message, Record, Role, Source
from tunesmith.train import Job, Outcome, Step, TrainConfig, train_job
from tunesmith.train.methods import soft_prompt
from tunesmith.train.preparation import prepare
from tunesmith.train.soft_prompt import soft_prompt_job

CONTEXT = 48


def row(number: int) -> Record:
    messages = (
        Message(role=Role.USER, content=f"Where is parcel {number}?"),
        Message(role=Role.ASSISTANT, content=f"Parcel {number} has left."),
    )
    return Record(id=f"c{number}", source=Source(path="chats.jsonl", line=number), messages=messages)


ROWS = [row(number) for number in range(20)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    train_tokenizer([message.content for record in ROWS for message in record.messages], vocab_size=300, folder=folder)
    torch.manual_seed(0)
    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**shape, max_position_embeddings=CONTEXT, initializer_range=0.2, pad_token_id=0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def job(base: Path, **settings: object) -> Job:
    config = TrainConfig.model_validate({"method": "full", "epochs": 6.0, "batch_tokens": 128, "evaluations": 3} | settings)
    return Job(base=base, scratch=None, chat=ChatFormat.load(base), train=ROWS, validation=ROWS[:3], config=config)


def train(
    it: Job, folder: Path, *, on_step: Callable[[Step], None] = lambda _: None, stop_at: int = -1
) -> tuple[Outcome, torch.Tensor]:
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    seen: list[int] = []

    def tell(step: Step) -> None:
        seen.append(step.step)
        on_step(step)

    outcome = train_job(it, checkpoints=folder / "checkpoints", out=out, on_step=tell, should_stop=lambda: seen[-1] == stop_at)
    return outcome, load_file(out / "adapter_model.safetensors")["prompt_embeddings"]


def test_it_shares_rows_passes_and_steps_with_the_recipe_but_not_its_method(base: Path) -> None:
    own = job(base, epochs=2.0, learning_rate=1e-4, schedule="linear", batch_tokens=64, seed=7, optimiser={"weight_decay": 0.1})
    found = soft_prompt_job(own, num_tokens=5)
    assert (found.train, found.validation, found.base, found.num_prompt_tokens) == (own.train, own.validation, own.base, 5)
    assert (found.config.epochs, found.config.batch_tokens, found.config.seed) == (2.0, 64, 7)
    assert (found.config.learning_rate, found.config.schedule) == (None, "cosine")
    assert found.config.optimiser == TrainConfig().optimiser
    assert [soft_prompt_job(replace(own, overlong=way), num_tokens=5).overlong for way in ("error", "drop")] == ["right", "drop"]


def test_it_begins_as_tokens_that_the_rows_teach_and_leaves_them_room(base: Path) -> None:
    it = soft_prompt_job(job(base), num_tokens=8)
    prepared = prepare(it, folder=None)
    embedding = prepared.model.get_input_embeddings()  # type: ignore[operator]
    alone = encode(ROWS, chat=it.chat, max_length=CONTEXT)
    taught = Counter(alone.targets[alone.targets >= 0].tolist())
    begun = [int((embedding.weight == vector).all(dim=1).nonzero()) for vector in embedding.vectors]
    assert len(set(begun)) == 8
    assert set(begun) <= set(taught)
    other = soft_prompt(alone, num_tokens=8).make_trainable(
        transformers.AutoModelForCausalLM.from_pretrained(base), TrainConfig(seed=1)
    )
    assert not torch.equal(other.get_input_embeddings().vectors, embedding.vectors)  # type: ignore[operator]
    assert prepared.learning_rate == pytest.approx(0.3 * float((embedding.weight[begun] ** 2).mean() ** 0.5), rel=1e-5)
    assert prepared.max_length == CONTEXT - 8
    for batch in prepared.epoch(0):
        assert all(batch.tokens[start : start + 8].tolist() == placeholders(prepared.model) for start in batch.offsets[:-1])
    assert prepared.encoded.num_supervised == alone.num_supervised
    assert prepared.encoded.ledger.total == alone.ledger.total
    few = soft_prompt(encode(ROWS[:1], chat=it.chat, max_length=CONTEXT), num_tokens=30)  # more vectors than tokens
    model = few.make_trainable(transformers.AutoModelForCausalLM.from_pretrained(base), TrainConfig())
    assert len(placeholders(model)) == 30


def test_it_learns_and_the_base_on_the_disk_stays(base: Path, tmp_path: Path) -> None:
    before = open_base(str(base), folder=Path("/"), cache=Path("/")).digest
    outcome, vectors = train(soft_prompt_job(job(base), num_tokens=4), tmp_path)
    assert vectors.shape == (4, 32)
    last = outcome.curve[-1].validation_loss
    assert last is not None
    idle, _ = train(
        soft_prompt_job(replace(job(base), config=job(base).config.model_copy(update={"max_steps": 1})), num_tokens=4),
        tmp_path / "idle",
    )
    assert idle.curve[0].validation_loss is not None
    assert last < 0.9 * idle.curve[0].validation_loss
    assert open_base(str(base), folder=Path("/"), cache=Path("/")).digest == before


def test_stopped_and_gone_on_with_it_ends_in_the_same_bits(base: Path, tmp_path: Path) -> None:
    it = soft_prompt_job(job(base), num_tokens=4)
    _, whole = train(it, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(it, tmp_path / "stopped", stop_at=5)
    steps: list[int] = []
    _, gone_on = train(it, tmp_path / "stopped", on_step=lambda step: steps.append(step.step))
    assert steps[0] == 6
    assert torch.equal(gone_on, whole)

"""When there is no soft prompt, and what is said when it cannot be trained; the arm itself: tokens, context, the base beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunesmith.data.chat import ChatFormat
from tunesmith.errors import UserError
from tunesmith.evaluate import EvaluateConfig
from tunesmith.model import add_lora, add_soft_prompt, load_model, open_base, save_model, this_machine
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.progress import Silent
from tunesmith.pipeline.soft_prompt import trained_soft_prompt
from tunesmith.records import Message, Record, Role, Source
from tunesmith.store import Store
from tunesmith.train import Job, TrainConfig

BASE = open_base("tunesmith/base", folder=Path("/"), cache=Path("/")).path
TOKENS = list(range(300, 320))
ROW = Record(
    id="r",
    source=Source(path="x", line=1),
    messages=(
        Message(role=Role.USER, content="What do the hats cost?"),
        Message(role=Role.ASSISTANT, content="They cost nine euros."),
    ),
)


class Warned(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


def prepared(*, base: Path | None = BASE, arms: tuple[str, ...] = ("soft_prompt",), max_length: int = 512) -> Any:
    """As much of a prepared recipe, without a row to train on, as is read of it."""
    config = EvaluateConfig(arms=arms)  # type: ignore[arg-type]
    job = Job(base=base, scratch=None, chat=ChatFormat.load(BASE), train=[], validation=[], config=TrainConfig())
    return SimpleNamespace(
        loaded=SimpleNamespace(recipe=SimpleNamespace(evaluate=config)),
        job=job,
        max_length=max_length,
        snapshot=SimpleNamespace(id="s"),
        base_digest="b",
        machine_kind="cpu",
    )


def chat_model(*, max_length: int = 512) -> ChatModel:
    machine = this_machine(precision="fp32", num_threads=None)
    model = load_model(BASE, machine=machine)
    return ChatModel(
        ref="base", model=model, chat=ChatFormat.load(BASE), machine=machine, max_length=max_length, max_new_tokens=8
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A soft prompt that is still the tokens it began as."""
    path = tmp_path / "prompt"
    path.mkdir()
    model = load_model(BASE, machine=this_machine(precision="fp32", num_threads=None))
    save_model(add_soft_prompt(model, tokens=TOKENS), path, base_path=BASE)
    return path


def test_there_is_none_where_it_is_not_asked_for_or_cannot_be(tmp_path: Path) -> None:
    store, watcher = Store(tmp_path / "work"), Warned()
    assert trained_soft_prompt(prepared(arms=("few_shot",)), store=store, watcher=watcher) is None
    assert trained_soft_prompt(prepared(base=None), store=store, watcher=watcher) is None
    assert watcher.said == []
    assert trained_soft_prompt(prepared(max_length=39), store=store, watcher=watcher) is None
    assert watcher.said == [
        "the base reads 39 tokens, of which a soft prompt of 20 would leave too few: the arm soft_prompt is left out"
    ]


def test_what_cannot_be_trained_is_told_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"soft_prompt cannot be trained: nothing is left to train on.*take `soft_prompt` out of"):
        trained_soft_prompt(prepared(), store=Store(tmp_path / "work"), watcher=Silent())


def test_the_arm_counts_its_tokens_and_the_base_beside_it_is_as_before(folder: Path) -> None:
    base = chat_model()
    asked = ROW.messages[:1]
    before = (base.likelihood([ROW]), base.generate([asked]), base.count_prompt(asked))
    arm = base.soft_prompted(folder)
    assert arm.ref == "base+soft_prompt"
    assert arm.count_prompt(asked) == before[2] + 20
    (found,), (alone,) = arm.likelihood([ROW]), before[0]
    assert (found.num_tokens, found.num_bytes) == (alone.num_tokens, alone.num_bytes)
    assert found.nll != pytest.approx(alone.nll, abs=1e-3)
    arm.generate([asked])
    assert arm.last_usage[0].prompt_tokens == before[2] + 20
    assert "".join(piece.text for piece in arm.stream(asked, max_tokens=8, temperature=0)).strip() == arm.generate([asked])[0]
    assert (base.likelihood([ROW]), base.generate([asked]), base.count_prompt(asked)) == before


def test_base_adapter_and_prompt_share_one_model_and_do_not_hear_each_other(folder: Path) -> None:
    (alone,) = chat_model().soft_prompted(folder).likelihood([ROW])
    machine = this_machine(precision="fp32", num_threads=None)
    model = add_lora(load_model(BASE, machine=machine), rank=4, alpha=8, seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.1)
    chat = ChatFormat.load(BASE)
    tuned = ChatModel(ref="tuned", model=model, chat=chat, machine=machine, max_length=512, base_folder=BASE)
    base = tuned.base()
    before = (tuned.likelihood([ROW]), base.likelihood([ROW]))
    assert before[0] != before[1]
    (found,) = base.soft_prompted(folder).likelihood([ROW])
    assert found.nll == pytest.approx(alone.nll, abs=1e-4)
    assert (tuned.likelihood([ROW]), base.likelihood([ROW])) == before


def test_prompt_conversation_and_answer_fit_into_the_context_together(folder: Path) -> None:
    arm = chat_model(max_length=48).soft_prompted(folder)
    long = (Message(role=Role.USER, content="Please say what the hats cost. " * 20),)
    arm.generate([long])
    assert arm.num_cut_prompts == 1
    assert arm.last_usage[0].prompt_tokens == 48 - 8

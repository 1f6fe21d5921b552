"""Each method through a whole job, and the gradient of weighed messages against an independent computation."""

import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
import transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import encode, pack
from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.model import ScratchConfig, segment_nll, this_machine
from tunesmith.model.load import load_version
from tunesmith.records import Message, Record, Role, Source
from tunesmith.train import Job, Step, TrainConfig, train_job
from tunesmith.train.methods import METHODS

SHAPE = ScratchConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, context=96)
ADAPTERS = {
    "lora": {"method": "lora", "lora": {"rank": 4}},
    "rslora": {"method": "lora", "lora": {"rank": 4, "scaling": "rslora"}},
}
WAYS = {"full": {"method": "full"}} | ADAPTERS


def chat_row(number: int, *, weights: tuple[float, ...] = (1.0,)) -> Record:
    messages = []
    for turn, weight in enumerate(weights):
        messages.append(Message(role=Role.USER, content=f"Where is parcel {number}{turn}?"))
        messages.append(Message(role=Role.ASSISTANT, content=f"Parcel {number} has left, turn {turn}.", weight=weight))
    return Record(id=f"c{number}", source=Source(path="chats.jsonl", line=number), messages=tuple(messages))


def text_row(number: int) -> Record:
    text = f"Our shop sends parcel {number} out by post on every day but Sunday. " * 3
    return Record(id=f"t{number}", source=Source(path="texts.jsonl", line=number), text=text)


ROWS = {"chats": chat_row, "texts": text_row}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random weights, large enough to be heard through an adapter."""
    folder = tmp_path_factory.mktemp("base")
    texts = [message.content for number in range(30) for message in chat_row(number).messages]
    train_tokenizer([*texts, text_row(0).text or ""], vocab_size=300, folder=folder)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    return folder


def job(base: Path | None, chat: ChatFormat, rows: list[Record], **settings: object) -> Job:
    config = {"epochs": 4.0, "batch_tokens": 128, "max_length": 90, "evaluations": 2, "learning_rate": 0.01} | settings
    return Job(
        base=base,
        scratch=None if base else SHAPE,
        chat=chat,
        train=rows,
        validation=rows[:3],
        config=TrainConfig.model_validate(config),
    )


def train(it: Job, folder: Path, *, seen: list[Step] | None = None) -> Path:
    out = folder / "out"
    out.mkdir(parents=True)
    train_job(it, checkpoints=folder / "checkpoints", out=out, on_step=([] if seen is None else seen).append)
    return out


def loss_of(model: nn.Module, rows: list[Record], chat: ChatFormat) -> float:
    batches = pack(encode(rows, chat=chat, max_length=90), batch_tokens=512, seed=0, epoch=0)
    pairs = [pair for batch in batches for pair in segment_nll(model, batch, device="cpu")]
    return sum(nll for nll, _ in pairs) / sum(count for _, count in pairs)


def test_every_method_of_the_recipe_is_known_and_no_other() -> None:
    assert set(METHODS) == set(get_args(TrainConfig.model_fields["method"].annotation))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_a_base_learns_chats_and_texts_in_each_way(way: str, rows: str, base: Path, tmp_path: Path) -> None:
    chat = ChatFormat.load(base)
    records = [ROWS[rows](number) for number in range(20)]
    out = train(job(base, chat, records, **WAYS[way]), tmp_path)
    before = loss_of(load_version(base, base=None, machine=this_machine()), records, chat)
    after = loss_of(load_version(out, base=base, machine=this_machine()), records, chat)
    assert after < 0.8 * before
    assert (out / "adapter_config.json").is_file() == (way != "full")


@pytest.mark.parametrize("rows", ROWS)
def test_random_weights_learn_chats_and_texts_from_scratch(rows: str, base: Path, tmp_path: Path) -> None:
    chat = ChatFormat.load(base)
    records = [ROWS[rows](number) for number in range(20)]
    out = train(job(None, chat, records, method="full"), tmp_path)
    assert loss_of(load_version(out, base=None, machine=this_machine()), records, chat) < 0.8 * math.log(300)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
@pytest.mark.parametrize(("way", "scale"), [("lora", 8 / 4), ("rslora", 8 / math.sqrt(4))])
def test_peft_reads_the_adapter_with_the_scale_that_it_was_trained_with(
    way: str, scale: float, base: Path, tmp_path: Path
) -> None:
    chat = ChatFormat.load(base)
    lora = ADAPTERS[way]["lora"] | {"alpha": 8.0}  # type: ignore[operator]
    out = train(job(base, chat, [chat_row(n) for n in range(8)], lora=lora, max_steps=3), tmp_path)
    written = json.loads((out / "adapter_config.json").read_bytes())
    assert (written["use_rslora"], written["r"], written["lora_alpha"]) == (way == "rslora", 4, 8.0)
    tuned = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), out)
    scales = {module.scaling["default"] for module in tuned.modules() if isinstance(module, LoraLayer)}
    assert scales == {scale}


def test_full_trains_every_weight_in_fp32(base: Path) -> None:
    model = METHODS["full"].make_trainable(transformers.AutoModelForCausalLM.from_pretrained(base).half(), TrainConfig())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())


WEIGHTS = [(0.0, 2.0), (0.5,), (2.0, 0.0, 0.5), (1.0, 1.0), (0.25, 0.0)]


def independently(base: Path, records: list[Record], chat: ChatFormat) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of each conversation alone in float64, each token weighed: the sum over all, over the sum of weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64, attn_implementation="eager")
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for record in records:
        (rendered,) = chat.render(record)
        tokens = torch.tensor([rendered.tokens])
        weights = torch.tensor(rendered.weights[1:], dtype=torch.float64)
        log_p = torch.log_softmax(model(input_ids=tokens).logits[0, :-1], dim=-1)
        total = total - (log_p[torch.arange(len(weights)), tokens[0, 1:]] * weights).sum()
        weight += float(weights.sum())
    (total / weight).backward()
    return float(total.detach()) / weight, {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def test_message_weights_give_the_gradient_of_the_weighed_mean(base: Path, tmp_path: Path) -> None:
    chat = ChatFormat.load(base)
    records = [chat_row(number, weights=weights) for number, weights in enumerate(WEIGHTS)]
    # The gradient is clipped far below Adam's epsilon (1e-8), so the one step is the gradient itself, scaled:
    # rate x g / |g| x 1e-11 / 1e-8.
    settings = {"method": "full", "max_steps": 1, "learning_rate": 1.0, "optimiser": {"max_grad_norm": 1e-11}}
    seen: list[Step] = []
    out = train(job(base, chat, records, batch_tokens=1024, max_length=512, **settings), tmp_path, seen=seen)
    loss, expected = independently(base, records, chat)
    assert seen[0].loss == pytest.approx(loss, rel=1e-5)  # the size of the gradient, of which the step keeps the direction
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in expected.values()))
    before, after = (transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (base, out))
    assert expected.keys() <= before.keys()
    for name, gradient in expected.items():
        step = 1e3 * (before[name].double() - after[name].double())
        torch.testing.assert_close(step, gradient / norm, rtol=1e-2, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}")

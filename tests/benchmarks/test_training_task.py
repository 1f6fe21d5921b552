"""What the training benchmark gives to every side: rows, tokens, held-out loss."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
import transformers
from benchmarks.training import evaluator
from benchmarks.training.rows import default_chats, read_chats
from benchmarks.training.task import MAX_LENGTH, TEMPLATE, choose_rows
from tokenizers import Tokenizer

from tunesmith.data import ChatFormat, SourceConfig, encode, read

NOWHERE = Path("no such folder")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_default_rows_are_the_same_each_time_skewed_and_not_held_out_as_well(tmp_path: Path) -> None:
    first, again = (list(islice(default_chats(NOWHERE), 150)) for _ in range(2))
    assert first == again
    held_out, train = choose_rows(first, wanted_tokens=12_000, num_held_out=10, tokenizer_folder=tmp_path)
    lengths = sorted(len(row["tokens"]) for row in train)
    assert 12_000 <= sum(lengths) < 12_000 + MAX_LENGTH
    assert lengths[-1] <= MAX_LENGTH
    assert lengths[-1] > 3 * lengths[len(lengths) // 2]
    assert not [row for row in held_out if row["messages"] in [other["messages"] for other in train]]


def test_too_few_rows_are_refused_with_the_number_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"hold \d+ tokens beside those held out; 1000000 are needed"):
        choose_rows(list(islice(default_chats(NOWHERE), 20)), wanted_tokens=1_000_000, num_held_out=2, tokenizer_folder=tmp_path)


def test_a_line_without_a_conversation_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": " hi "}]}\n{"text": "x"}\n')
    with pytest.raises(SystemExit, match=r"rows.jsonl:2: .*messages"):
        read_chats(file)
    file.write_text('{"messages": [{"role": "user", "content": " hi "}]}\n')
    assert read_chats(file) == [[{"role": "user", "content": "hi"}]]


def test_tunesmith_and_transformers_read_the_same_tokens_and_targets(tmp_path: Path) -> None:
    _, train = choose_rows(
        list(islice(default_chats(NOWHERE), 40)), wanted_tokens=3000, num_held_out=2, tokenizer_folder=tmp_path
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == TEMPLATE
    for row in train:
        read_by_theirs = theirs.apply_chat_template(row["messages"], return_assistant_tokens_mask=True, return_dict=True)
        assert read_by_theirs["input_ids"] == row["tokens"]
        assert read_by_theirs["assistant_masks"] == [int(learned) for learned in row["supervised"]]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in train))
    ours = encode(read(SourceConfig(path=str(file)), folder=tmp_path).rows, chat=ChatFormat.load(tmp_path), max_length=MAX_LENGTH)
    assert ours.tokens.tolist() == [token for row in train for token in row["tokens"]]
    assert ours.num_supervised == sum(sum(row["supervised"]) for row in train)


def test_the_evaluator_gives_the_entropy_of_a_model_that_knows_nothing(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=False
    )
    model = transformers.LlamaForCausalLM(config)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path)
    loaded = evaluator.load(tmp_path, tmp_path)
    total, count = evaluator.score(loaded, torch.tensor([3, 4, 5, 6]), torch.tensor([True, False, True, True]))
    assert count == 2, "the first token is predicted by nothing"
    assert total == pytest.approx(2 * math.log(50))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_the_evaluator_sees_an_adapter(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    base = transformers.LlamaForCausalLM(config)
    base.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    row = torch.arange(10), torch.ones(10, dtype=torch.bool)
    plain = evaluator.score(evaluator.load(tmp_path / "base", tmp_path / "base"), *row)[0]
    tuned = evaluator.score(evaluator.load(tmp_path / "base", tmp_path / "adapter"), *row)[0]
    with torch.no_grad():
        expected = -torch.log_softmax(adapted.eval()(row[0][None]).logits[0, :-1], -1)[torch.arange(9), row[0][1:]].sum()
    assert tuned == pytest.approx(float(expected), rel=1e-5)
    assert abs(tuned - plain) > 0.01


def test_the_tokenizer_keeps_the_marks_of_a_turn_whole(tmp_path: Path) -> None:
    choose_rows(list(islice(default_chats(NOWHERE), 20)), wanted_tokens=500, num_held_out=2, tokenizer_folder=tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("<|im_start|><|im_end|>").tokens == ["<|im_start|>", "<|im_end|>"]

"""The learning benchmark: both sides train the same targets and learn, and the plain loop is what it says it is."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from benchmarks.learning import __main__ as learning
from benchmarks.learning.plain import NO_LABEL, Row, batches, collate, tokenise, train
from benchmarks.learning.sets import SETS, read_set
from benchmarks.learning.task import Task, make_task
from benchmarks.training.rows import Chat, as_chat
from benchmarks.training.sides.clock import Clock

from tunesmith.data import ChatFormat, SourceConfig, encode, read
from tunesmith.data.pack import pack
from tunesmith.model import open_base
from tunesmith.train import ComputeConfig, Job, TrainConfig, train_job

BASE = open_base("tunesmith/base", folder=Path(), cache=Path()).path
CONTEXT = json.loads((BASE / "config.json").read_text())["max_position_embeddings"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def chats(numbers: range) -> list[Chat]:
    return [
        as_chat(
            [
                ("user", f"Is shelf {i} open?" + " Please tell me." * (i % 7)),
                ("assistant", f"Shelf {i} opens at ten." * (1 + i % 3)),
            ]
        )
        for i in numbers
    ]


def a_task(folder: Path, **wanted: int) -> Task:
    return make_task(chats(range(60)), chats(range(100, 108)), base=BASE, folder=folder, **wanted)


def test_rows_fill_the_steps_and_those_that_are_too_long_are_counted(tmp_path: Path) -> None:
    too_long = as_chat([("user", "why? " * 600), ("assistant", "so")])
    task = make_task([too_long, *chats(range(60))], [too_long, *chats(range(4))], base=BASE, folder=tmp_path, num_tokens=500)
    assert task.num_too_long == 2
    assert 500 <= task.num_tokens < 500 + 100
    assert len(task.rows.read_text().splitlines()) == task.num_rows < 60
    held_out = json.loads(task.held_out.read_text())
    assert len(held_out) == 4
    assert max(len(row["tokens"]) for row in held_out) <= task.max_length == CONTEXT
    assert a_task(tmp_path, num_rows=7).num_rows == 7


def test_plain_transformers_reads_the_tokens_and_targets_that_tunesmith_reads(tmp_path: Path) -> None:
    task = a_task(tmp_path)
    rows = tokenise(chats(range(60)), transformers.AutoTokenizer.from_pretrained(BASE))
    ours = encode(read(SourceConfig(path=str(task.rows)), folder=tmp_path).rows, chat=ChatFormat.load(BASE), max_length=CONTEXT)
    assert ours.tokens.tolist() == [token for row in rows for token in row.tokens]
    assert [int((sequence.targets >= 0).sum()) for sequence in ours.sequences] == [row.num_supervised for row in rows]
    assert ours.num_supervised == task.num_supervised


def test_batches_come_to_about_the_same_number_of_real_tokens_and_leave_no_row_out() -> None:
    rows = [Row([1] * length, 1) for length in (30, 500, 70, 90, 200, 10, 400, 60, 300, 20, 5)]
    made = list(batches(rows, num_tokens=400))
    assert [row for batch in made for row in batch] == rows
    sizes = [sum(len(row.tokens) for row in batch) for batch in made]
    assert sizes == [30 + 500, 70 + 90 + 200 + 10, 400, 60 + 300 + 20 + 5], "each as near to 400 as with or without its next row"


def test_a_padded_batch_has_the_loss_of_its_rows_one_by_one() -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    rows = [Row(list(range(5, 5 + length)), learned) for length, learned in ((30, 4), (9, 8), (17, 1))]
    batch = collate(rows, pad=0)
    total = 0.0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.tokens])).logits[0, :-1].double()
        nll = -torch.log_softmax(logits, -1)[torch.arange(len(row.tokens) - 1), row.tokens[1:]]
        total += float(nll[-row.num_supervised :].sum())
    assert int((batch["labels"] != NO_LABEL).sum()) == 13
    with torch.no_grad():
        assert float(model(**batch).loss) == pytest.approx(total / 13, rel=1e-5)


def test_the_plain_loop_learns_and_counts_its_steps_and_targets() -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    steps = [[Row(list(range(5, 25)), 6)]] * 5
    with torch.no_grad():
        before = float(model(**collate(steps[0], pad=0)).loss)
    clock = Clock({})
    train(model, steps, learning_rate=1e-3, pad=0, clock=clock)
    with torch.no_grad():
        assert float(model(**collate(steps[0], pad=0)).loss) < before - 0.5
    assert (len(clock.step_ends), clock.supervised) == (5, 30)


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().double() for parameter in model.parameters()])


def test_with_our_batches_the_plain_loop_ends_at_our_weights(tmp_path: Path) -> None:
    """So where the sides differ in the benchmark, it is by which rows share a step."""
    task = a_task(tmp_path)
    records = list(read(SourceConfig(path=str(task.rows)), folder=tmp_path).rows)
    chat = ChatFormat.load(BASE)
    config = TrainConfig(
        method="full",
        epochs=1,
        learning_rate=5e-4,
        schedule="constant",
        warmup=0.0,
        batch_tokens=512,
        evaluations=1,
        compute=ComputeConfig(precision="fp32"),
    )
    job = Job(base=BASE, scratch=None, chat=chat, train=records, validation=[], config=config)
    out = tmp_path / "out"
    out.mkdir()
    train_job(job, checkpoints=tmp_path / "checkpoints", out=out, on_step=lambda _: None)
    ours = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)

    tokenised = tokenise(chats(range(60)), transformers.AutoTokenizer.from_pretrained(BASE))
    rows = {record.id: row for record, row in zip(records, tokenised, strict=True)}
    packed = pack(encode(records, chat=chat, max_length=CONTEXT), batch_tokens=512, seed=0, epoch=0)
    plain = transformers.AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    start = flat(plain)
    train(plain, [[rows[i] for i in batch.record_ids] for batch in packed], learning_rate=5e-4, pad=0, clock=Clock({}))
    assert float((flat(ours) - flat(plain)).norm()) < 1e-4 * float((flat(plain) - start).norm())


def test_both_sides_train_the_same_targets_and_improve_alike(tmp_path: Path) -> None:
    (run,) = learning.compare(a_task(tmp_path), methods=["full"], seed=0, threads=1)
    ours, plain = run["ours"], run["plain"]
    assert ours["supervised"] == plain["supervised"] == run["supervised"] > 0
    assert ours["num_steps"] == plain["num_steps"] > 1
    assert max(ours["held_out"], plain["held_out"]) < run["before"] - 0.1
    assert ours["held_out"] == pytest.approx(plain["held_out"], abs=0.3 * (run["before"] - plain["held_out"]))


def test_sides_that_trained_different_targets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = a_task(tmp_path)
    monkeypatch.setattr(learning, "_held_out", lambda *_: 1.0)
    monkeypatch.setattr(learning, "_run", lambda side, task, **_: {"supervised": task.num_supervised - (side == "plain")})
    count = task.num_supervised
    with pytest.raises(SystemExit, match=rf"the rows have {count}, ours trained {count}, plain trained {count - 1}"):
        list(learning.compare(task, methods=["lora"], seed=0))


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_an_answer_of_many_questions_is_trained_on_or_held_out_and_never_both(tmp_path: Path) -> None:
    rows = [{"instruction": f"question {i}", "response": f"answer {i % 40}"} for i in range(400)]
    write(tmp_path / SETS["bitext"].file, rows)
    parts = read_set("bitext", data=tmp_path)
    answers = [{chat[1]["content"] for chat in part} for part in parts]
    assert all(answers)
    assert not answers[0] & answers[1]
    assert sum(map(len, parts)) == 400


def test_the_official_held_out_rows_are_held_out(tmp_path: Path) -> None:
    tales = [
        {"split": split, "context": "Once.", "question": split, "answers": ["first", "second"]} for split in ("train", "val")
    ]
    write(tmp_path / SETS["fairytaleqa"].file, tales)
    papers = [{"split": split, "document": split, "summaries": ["in short", "shorter"]} for split in ("train", "dev")]
    write(tmp_path / SETS["scitldr"].file, papers)
    assert read_set("fairytaleqa", data=tmp_path) == (
        [as_chat([("user", "Once.\n\ntrain"), ("assistant", "first")])],
        [as_chat([("user", "Once.\n\nval"), ("assistant", "first")])],
    )
    assert [part[0][0]["content"] for part in read_set("scitldr", data=tmp_path)] == ["train", "dev"]


def test_where_the_data_is_not_there_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["learning", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"bitext_customer_support.jsonl.gz is not there.*--data"):
        learning.main()


def test_interrupted_it_shows_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    side = {"held_out": 2.5, "wall_s": 10.0, "num_steps": 7}

    def interrupted(name: str, **_: object) -> Iterator[dict[str, Any]]:
        yield {"method": "lora", "before": 4.0, "supervised": 1234, "ours": side, "plain": side}
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "_compare_on", interrupted)
    monkeypatch.setattr(learning.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["learning"])
    with pytest.raises(SystemExit, match="130"):
        learning.main()
    shown = capsys.readouterr()
    assert "bitext lora" in shown.err
    assert shown.out == ""


def test_options_have_defaults_and_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert (parsed := learning.parse([])).sets == list(SETS)
    assert (parsed.methods, parsed.rows, parsed.seed) == (["lora", "full"], None, 0)
    mistakes = [(["--sets", "squad"], "'squad' is unknown"), (["--seed", "-1"], "not a whole number from 0")]
    for arguments, words in [*mistakes, (["--rows", "0"], "not a whole number from 1")]:
        with pytest.raises(SystemExit):
            learning.parse(arguments)
        assert words in capsys.readouterr().err


def test_the_table_has_both_sides_and_their_ratio() -> None:
    side = {"held_out": 2.5, "wall_s": 10.0, "num_steps": 7}
    run = {"set": "bitext", "method": "lora", "before": 4.0, "supervised": 1234, "ours": side, "plain": {**side, "wall_s": 25.0}}
    line = learning.table([run]).splitlines()[1].split()
    assert line == ["bitext", "lora", "4.000", "2.500", "2.500", "10.0", "25.0", "2.50", "7", "7", "1,234"]

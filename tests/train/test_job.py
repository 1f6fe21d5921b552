"""Whole jobs from records to a folder that other tools load: from scratch, then an adapter on that."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tunesmith.data.chat import ChatFormat
from tunesmith.data.config import MixConfig
from tunesmith.data.pack import encode
from tunesmith.data.tokenizer import train_tokenizer
from tunesmith.errors import DataError, Interrupted, UserError
from tunesmith.model import ScratchConfig, read_weights_digest
from tunesmith.records import Message, Record, Role, Source
from tunesmith.store.digest import digest_of_files
from tunesmith.train import CheckpointWarning, Job, Step, TrainConfig, plan_job, train_job
from tunesmith.train.preparation import prepare

SHAPE = ScratchConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, context=96)


def conversation(number: int) -> Record:
    question = Message(role=Role.USER, content=f"Where is parcel {number}?")
    answer = Message(role=Role.ASSISTANT, content=f"Parcel {number} is on its way." + " It left our shop." * (number % 3))
    return Record(id=f"r{number}", source=Source(path="chats.jsonl", line=number), messages=(question, answer))


def records(start: int, end: int) -> list[Record]:
    return [conversation(number) for number in range(start, end)]


def chat_format(folder: Path) -> ChatFormat:
    texts = [message.content for record in records(0, 20) for message in record.messages]
    train_tokenizer(texts, vocab_size=300, folder=folder)
    return ChatFormat.load(folder)


def scratch_job(folder: Path, **settings: object) -> Job:
    config = {"method": "full", "epochs": 2.0, "batch_tokens": 128, "max_length": 90, "evaluations": 3} | settings
    return Job(
        base=None,
        scratch=SHAPE,
        chat=chat_format(folder),
        train=records(0, 20),
        validation=records(20, 24),
        config=TrainConfig.model_validate(config),
    )


def run(job: Job, folder: Path) -> tuple[Path, list[Step], object]:
    out = folder / "out"
    out.mkdir(parents=True)
    steps: list[Step] = []
    outcome = train_job(job, checkpoints=folder / "checkpoints", out=out, on_step=steps.append)
    return out, steps, outcome


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own, called here by name
def test_from_scratch_then_an_adapter_on_it(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", learning_rate=5e-3)
    plan = plan_job(job)
    base, steps, outcome = run(job, tmp_path / "scratch")
    encoded = encode(job.train, chat=job.chat, max_length=90)
    assert (plan.num_rows, plan.num_tokens, plan.num_supervised_tokens) == (20, encoded.num_tokens, encoded.num_supervised)
    assert (plan.ledger.num_cut_rows, plan.ledger.num_lost, plan.dropped) == (0, 0, ())
    assert plan.num_steps == outcome.num_steps == len(steps) >= 2 * encoded.num_tokens / 128  # type: ignore[attr-defined]
    assert plan.learning_rate == outcome.learning_rate == 5e-3  # type: ignore[attr-defined]
    assert plan.num_trained_parameters == plan.num_parameters
    assert plan.seconds > 0
    assert plan.peak_bytes > 0
    curve = outcome.curve  # type: ignore[attr-defined]
    assert curve[-1].validation_loss < curve[0].validation_loss

    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    messages = [{"role": "user", "content": "Where is parcel 5?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == job.chat.encode_prompt([Message(role=Role.USER, content="Where is parcel 5?")])
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    assert model.config.eos_token_id == list(job.chat.stop_tokens)
    assert model.config.pad_token_id == job.chat.pad_token

    before = digest_of_files(base)
    tuning = Job(
        base=base,
        scratch=None,
        chat=ChatFormat.load(base),
        train=job.train,
        validation=job.validation,
        config=TrainConfig.model_validate({"epochs": 1.0, "batch_tokens": 128, "max_length": 90, "lora": {"rank": 4}}),
    )
    plan = plan_job(tuning)
    adapter, steps, outcome = run(tuning, tmp_path / "lora")
    assert plan.num_steps == outcome.num_steps == len(steps)
    # A and B of rank 4 on q, k, v, o and gate, up, down of both layers: the sum of their widths, times 4.
    assert plan.num_trained_parameters == 2 * 4 * (64 + 48 + 48 + 64 + 3 * 80)
    assert digest_of_files(base) == before
    tuned = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        assert torch.isfinite(tuned(input_ids=torch.tensor([ids])).logits).all()
    assert transformers.AutoTokenizer.from_pretrained(adapter).chat_template == tokenizer.chat_template


def test_dropout_changes_what_is_learned_the_same_way_each_time(tmp_path: Path) -> None:
    digests = {}
    for name, share in (("none", 0.0), ("some", 0.2), ("again", 0.2)):
        job = scratch_job(tmp_path / name / "tokenizer", epochs=0.5, optimiser={"dropout": share})
        out, steps, _ = run(job, tmp_path / name)
        digests[name] = read_weights_digest(out)
        assert all(step.step_loss > 0 for step in steps)
    assert digests["some"] == digests["again"] != digests["none"]


def test_a_soft_prompt_is_trained_without_the_recipes_dropout(tmp_path: Path) -> None:
    base, _, _ = run(scratch_job(tmp_path / "tokenizer", epochs=0.5), tmp_path / "base")
    job = dataclasses.replace(
        scratch_job(tmp_path / "again", optimiser={"dropout": 0.2}), base=base, scratch=None, chat=ChatFormat.load(base)
    )
    for num_prompt_tokens, is_dropped in ((4, False), (0, True)):
        model = prepare(dataclasses.replace(job, num_prompt_tokens=num_prompt_tokens), folder=None).model
        assert any(hasattr(module, "residual_dropout") for module in model.modules()) is is_dropped


def test_a_plan_leaves_no_trace_in_the_run_that_follows(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", epochs=0.5)
    alone, _, _ = run(job, tmp_path / "alone")
    plan_job(job)
    after, _, _ = run(job, tmp_path / "after")
    assert read_weights_digest(alone) == read_weights_digest(after)
    assert digest_of_files(alone) == digest_of_files(after)


def test_a_stopped_job_goes_on_with_the_same_call(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", epochs=1.0)
    whole, steps, outcome = run(job, tmp_path / "whole")
    out = tmp_path / "out"
    out.mkdir()
    seen: list[Step] = []
    with pytest.raises(Interrupted):
        train_job(job, checkpoints=tmp_path / "c", out=out, on_step=seen.append, should_stop=lambda: len(seen) == 3)
    assert list(out.iterdir()) == []
    assert train_job(job, checkpoints=tmp_path / "c", out=out, on_step=seen.append) == outcome
    assert [step.step for step in seen] == [step.step for step in steps]
    assert read_weights_digest(out) == read_weights_digest(whole)


def test_a_job_goes_on_in_the_number_format_that_it_began_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = scratch_job(tmp_path / "tokenizer", epochs=1.0)
    monkeypatch.setattr("tunesmith.model.machine.bf16_pays", lambda: True)
    whole, _, outcome = run(job, tmp_path / "whole")
    out, seen = tmp_path / "out", []
    out.mkdir()
    with pytest.raises(Interrupted):
        train_job(job, checkpoints=tmp_path / "c", out=out, on_step=seen.append, should_stop=lambda: len(seen) == 3)
    # On a busier machine the measurement comes out otherwise.
    monkeypatch.setattr("tunesmith.model.machine.bf16_pays", lambda: False)
    assert train_job(job, checkpoints=tmp_path / "c", out=out, on_step=seen.append) == outcome
    assert read_weights_digest(out) == read_weights_digest(whole)
    exact, _, _ = run(job, tmp_path / "exact")
    assert read_weights_digest(exact) != read_weights_digest(whole)


def test_a_mixed_job_stopped_in_a_later_epoch_goes_on_to_the_same_weights_and_says_what_it_read(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", epochs=3.0)
    rows = [
        dataclasses.replace(row, source=Source(path="few.jsonl" if i < 5 else "many.jsonl", line=i))
        for i, row in enumerate(job.train)
    ]
    job = dataclasses.replace(job, train=rows, mix=MixConfig(by="ratio"), weights={"few.jsonl": 1.0, "many.jsonl": 1.0})
    whole, steps, outcome = run(job, tmp_path / "whole")
    out = tmp_path / "out"
    out.mkdir()
    seen: list[Step] = []
    last = 2 * len(steps) // 3
    with pytest.raises(Interrupted):
        train_job(job, checkpoints=tmp_path / "c", out=out, on_step=seen.append, should_stop=lambda: len(seen) == last)
    assert train_job(job, checkpoints=tmp_path / "c", out=out, on_step=seen.append) == outcome
    assert read_weights_digest(out) == read_weights_digest(whole)
    sources = outcome.sources  # type: ignore[attr-defined]
    assert plan_job(job).sources == sources
    assert sources["few.jsonl"].epochs > 2 * sources["many.jsonl"].epochs
    assert sources["few.jsonl"].tokens == pytest.approx(sources["many.jsonl"].tokens, rel=0.15)


def test_a_job_goes_on_only_from_its_own_checkpoints(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", epochs=1.0)
    reweighed = [dataclasses.replace(m, weight=0.5) for m in job.train[0].messages]
    others = {
        "other data": dataclasses.replace(job, train=[dataclasses.replace(job.train[0], messages=reweighed), *job.train[1:]]),
        "other data ": dataclasses.replace(job, validation=job.validation[1:]),
        "other configuration": dataclasses.replace(job, config=job.config.model_copy(update={"warmup": 0.5})),
        "other configuration and other model": dataclasses.replace(job, config=job.config.model_copy(update={"seed": 1})),
        "other model": dataclasses.replace(job, scratch=SHAPE.model_copy(update={"intermediate_size": 64})),
    }

    def first_step(job: Job, checkpoints: Path) -> int:
        seen: list[Step] = []
        with pytest.raises(Interrupted):
            train_job(job, checkpoints=checkpoints, out=tmp_path, on_step=seen.append, should_stop=lambda: True)
        return seen[0].step

    assert first_step(job, tmp_path / "own") == 1
    assert first_step(job, tmp_path / "own") == 2
    for what, other in others.items():
        shutil.copytree(tmp_path / "own", tmp_path / what)
        with pytest.warns(CheckpointWarning, match=rf"step-0000000\d is of another run \({what.strip()}\)"):
            assert first_step(other, tmp_path / what) == 1


def test_a_folder_decided_for_short_rows_is_decided_anew_for_longer_ones(tmp_path: Path) -> None:
    job = scratch_job(tmp_path, batch_tokens=16, max_steps=2)
    decided = []
    for repeats in (1, 3):
        longer = tuple(dataclasses.replace(message, content=message.content * repeats) for message in job.train[0].messages)
        prepared = prepare(
            dataclasses.replace(job, train=[dataclasses.replace(job.train[0], messages=longer)]), folder=tmp_path / "c"
        )
        decided.append(prepared.choices.pass_tokens)
        assert len(prepared.epoch(0)) == 1
    assert decided[0] < decided[1]


def test_micro_batches_keep_the_tokens_of_a_step(tmp_path: Path) -> None:
    whole = plan_job(scratch_job(tmp_path / "tokenizer", batch_tokens=256, epochs=4.0))
    micro = plan_job(scratch_job(tmp_path / "tokenizer", batch_tokens=256, epochs=4.0, micro_batch_tokens=128))
    assert abs(whole.num_steps - micro.num_steps) <= 0.25 * whole.num_steps


def test_a_loss_that_is_not_finite_is_an_error_the_user_can_mend(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", epochs=0.2)
    base, _, _ = run(job, tmp_path / "scratch")
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"].fill_(3e38)  # finite, and nothing that it multiplies is
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"loss became nan.*before anything was learned: a weight of the base is not finite"):
        run(dataclasses.replace(job, base=base, scratch=None), tmp_path / "tuned")
    assert list((tmp_path / "tuned" / "out").iterdir()) == []


def test_without_validation_rows_the_outcome_says_so_plainly(tmp_path: Path) -> None:
    job = dataclasses.replace(scratch_job(tmp_path / "tokenizer", epochs=0.2), validation=[])
    _, steps, outcome = run(job, tmp_path / "run")
    assert outcome.best_step == len(steps)  # type: ignore[attr-defined]
    assert any("no validation rows" in warning for warning in outcome.warnings)  # type: ignore[attr-defined]


def warnings_of(job: Job, folder: Path) -> tuple[str, ...]:
    return run(job, folder)[2].warnings  # type: ignore[attr-defined,no-any-return]


def test_a_run_that_is_as_it_should_be_has_no_warning(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", learning_rate=5e-3, epochs=6.0)
    assert warnings_of(dataclasses.replace(job, train=records(0, 40), validation=records(40, 60)), tmp_path / "run") == ()


def test_a_run_that_learns_its_rows_by_heart_is_told_so(tmp_path: Path) -> None:
    answers = ["Blue.", "At nine o'clock.", "Never on Sundays, sorry.", "Ask Lisa."]
    rows = [
        dataclasses.replace(row, messages=(row.messages[0], Message(role=Role.ASSISTANT, content=answers[number * 7 % 11 % 4])))
        for number, row in enumerate(records(0, 30))
    ]
    job = scratch_job(tmp_path / "tokenizer", learning_rate=1e-2, epochs=60.0, evaluations=12)
    found = warnings_of(dataclasses.replace(job, train=rows[:8], validation=rows[8:]), tmp_path / "run")
    assert [warning.split(" after")[0] for warning in found] == ["overfitting"]


def test_a_learning_rate_far_too_high_is_told(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", learning_rate=1.0, epochs=6.0, patience=None)
    found = warnings_of(dataclasses.replace(job, train=records(0, 40), validation=records(40, 60)), tmp_path / "run")
    assert "the learning rate 1.0e+00 looks too high" in found[0]


def test_a_learning_rate_far_too_low_is_told(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", learning_rate=1e-12, epochs=20.0)
    found = warnings_of(dataclasses.replace(job, train=records(0, 1)), tmp_path / "run")
    assert "did not fall" in found[0]
    assert "set train.learning_rate to 3.0e-12" in found[0]


def test_short_runs_cut_rows_and_few_validation_rows_are_told(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", epochs=0.5, max_length=40, batch_tokens=256)
    few, cut, validation = warnings_of(job, tmp_path / "run")
    assert few.startswith("only ")
    assert " of 20 rows were cut at 40 tokens" in cut
    assert cut.endswith("Raise train.max_length (now 40)")
    assert validation.startswith("only 4 validation rows")


def test_nothing_to_train_on_is_a_data_error(tmp_path: Path) -> None:
    silent = [
        dataclasses.replace(record, messages=tuple(dataclasses.replace(m, weight=0.0) for m in record.messages))
        for record in records(0, 3)
    ]
    for rows, words in (([], "nothing is left to train on"), (silent, "3 of 7 rows would teach nothing")):
        with pytest.raises(DataError, match=words):
            plan_job(dataclasses.replace(scratch_job(tmp_path / "tokenizer"), train=rows))


def test_rows_are_cut_at_the_models_context_and_counted(tmp_path: Path) -> None:
    job = scratch_job(tmp_path / "tokenizer", max_length=512, batch_tokens=512)
    long = dataclasses.replace(
        conversation(1), messages=(conversation(1).messages[0], Message(role=Role.ASSISTANT, content="On its way. " * 60))
    )
    plan = plan_job(dataclasses.replace(job, train=[long]))
    assert plan.num_tokens == 96
    assert plan.ledger.num_cut_rows == 1
    assert plan.ledger.num_lost > 100


def test_a_job_writes_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base, _, _ = run(scratch_job(tmp_path / "tokenizer", epochs=0.2), tmp_path / "scratch")
    job = scratch_job(tmp_path / "tokenizer", epochs=0.2, method="lora")
    run(dataclasses.replace(job, base=base, scratch=None), tmp_path / "lora")
    assert capfd.readouterr() == ("", "")

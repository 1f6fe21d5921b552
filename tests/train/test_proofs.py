"""Every proof holds on every architecture, and on the base inside the package."""

from pathlib import Path

import pytest
import torch
from torch import nn

import tunesmith.model
from tunesmith.data.chat import ChatFormat
from tunesmith.model import add_lora, load_model, load_version, save_model, this_machine
from tunesmith.model.compiled import can_compile
from tunesmith.model.reference import load_with_peft
from tunesmith.records import Message, Proof, Record, Role, Source, TokenBatch
from tunesmith.train import Saved, Subject, TrainConfig, prove_training
from tunesmith.train.probe import write_probe
from tunesmith.train.proofs_adapter import prove_changed, prove_merged, prove_peft, require_adapter_gradients, trial_adapter
from tunesmith.train.proofs_data import prove_tokens
from tunesmith.train.proofs_exact import prove_compiled, prove_step
from tunesmith.train.proofs_rows import choose_rows

from .conftest import CONFIGURATIONS, VOCAB, save_random

COMPILED = ["llama", "gemma2", "phi3", "gpt2"]
EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
NAMES = [
    "packed = unpacked",
    "accumulated = one batch",
    "supervised-only head = full head",
    "compiled = eager",
    "fused LoRA = PEFT's own",
    "merged = adapter",
    "adapter on ≠ adapter off",
    "ends its turn",
    "tokens at training = tokens at serving",
    "reloaded in a fresh process = in memory",
    "killed and resumed = uninterrupted",
]


def rows() -> TokenBatch:
    return choose_rows([], chat=None, vocabulary=VOCAB, max_length=96)


def conversation(n: int) -> Record:
    turns = (
        (Role.USER, "Where is it? " * (n % 3 + 1), 1.0),
        (Role.ASSISTANT, f"In aisle {n}.", 1.0),
        (Role.USER, "And the hats?", 1.0),
        (Role.ASSISTANT, f"Beside it, {'left ' * n}.", 0.0 if n == 2 else 0.5),
    )
    messages = tuple(Message(role=role, content=content, weight=weight) for role, content, weight in turns)
    return Record(id=str(n), source=Source(path="rows.jsonl", line=n), messages=messages)


def subject(folder: Path, **settings: object) -> Subject:
    given = {"saved": Saved(folder=folder, base=None), "is_tuned": False, "chat": None, "records": (), "max_length": 96}
    return Subject(**{**given, **settings})  # type: ignore[arg-type]


def assert_all_hold(proofs: list[Proof]) -> None:
    for proof in proofs:
        assert proof.holds is not False, proof
        if proof.holds:
            assert proof.figure is not None
            assert proof.tolerance is not None
            assert proof.figure <= proof.tolerance if proof.rule == "at most" else proof.figure >= proof.tolerance


@pytest.mark.parametrize("std", [None, 0.3], ids=["as initialised", "large weights"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_training_step_and_the_adapter_are_proved_on_every_architecture(name: str, std: float | None, tmp_path: Path) -> None:
    machine, base = this_machine(), save_random(name, tmp_path, std=std)
    model = load_model(base, machine=machine)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    proofs = prove_step(model, rows(), device="cpu")
    assert all(torch.equal(before[key], parameter) for key, parameter in model.named_parameters())
    adapted = trial_adapter(model, config=TrainConfig().lora)
    saved = Saved(folder=tmp_path / "adapter", base=base)
    saved.folder.mkdir()
    save_model(adapted, saved.folder, base_path=base)
    proofs += [
        prove_peft(adapted, saved, rows(), machine=machine),
        prove_changed(adapted, None, rows(), device="cpu"),
        prove_merged(adapted, load_with_peft(saved.folder, base=base, machine=machine), rows(), device="cpu"),
    ]
    require_adapter_gradients(adapted)
    proofs += prove_step(adapted, rows(), device="cpu")
    assert_all_hold(proofs)
    assert len(proofs) == 9
    assert all(proof.holds for proof in proofs)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_the_whole_sheet_holds_on_a_folder_without_a_tokenizer(name: str, tmp_path: Path) -> None:
    heard: list[Proof] = []
    proofs = prove_training(subject(save_random(name, tmp_path)), on_proof=heard.append)
    assert proofs == heard
    assert [proof.name for proof in proofs] == NAMES
    assert_all_hold(proofs)
    unused = {proof.name for proof in proofs if proof.holds is None}
    assert unused == {"compiled = eager", "ends its turn", "tokens at training = tokens at serving"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_whole_sheet_holds_on_every_architecture(name: str, tmp_path: Path) -> None:
    assert_all_hold(prove_training(subject(save_random(name, tmp_path))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecations when it is loaded
@pytest.mark.skipif(not can_compile(), reason="there is no C++ compiler (g++, or what CXX names)")
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_layers_are_proved(name: str, tmp_path: Path) -> None:
    model = load_model(save_random(name, tmp_path), machine=this_machine())
    whole = prove_compiled(model, rows(), device="cpu", is_used=True)
    adapted = prove_compiled(trial_adapter(model, config=TrainConfig().lora), rows(), device="cpu", is_used=True)
    assert (whole.holds, adapted.holds) == (True, True), (whole, adapted)
    assert whole.figure, "compiled layers round otherwise than plain ones"


def test_the_whole_sheet_holds_on_the_embedded_base_with_rows() -> None:
    chat, records = ChatFormat.load(EMBEDDED), [conversation(n) for n in range(8)]
    proofs = prove_training(subject(EMBEDDED, chat=chat, records=records, max_length=512))
    assert [proof.name for proof in proofs] == NAMES
    assert_all_hold(proofs)
    assert "8 conversations" in next(proof.compared for proof in proofs if proof.name.startswith("tokens"))


def test_a_saved_adapter_is_proved_on_its_own_base_and_against_what_it_said_in_memory(tmp_path: Path) -> None:
    base, folder, machine = save_random("llama", tmp_path), tmp_path / "tuned", this_machine()
    config = TrainConfig.model_validate({"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}})
    model = trial_adapter(load_model(base, machine=machine), config=config.lora)
    folder.mkdir()
    save_model(model, folder, base_path=base)
    write_probe(model, [rows()], folder, device="cpu")
    proofs = prove_training(subject(folder, saved=Saved(folder=folder, base=base), is_tuned=True, config=config))
    assert_all_hold(proofs)
    compared = {proof.name: proof.compared for proof in proofs}
    assert "when training ended" in compared["reloaded in a fresh process = in memory"]
    assert compared["killed and resumed = uninterrupted"].startswith("this adapter")


def test_a_whole_tuned_model_is_held_against_its_base(tmp_path: Path) -> None:
    base, folder, machine = save_random("llama", tmp_path / "base"), tmp_path / "tuned", this_machine()
    model = load_model(base, machine=machine)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    folder.mkdir()
    save_model(model, folder, base_path=None)
    write_probe(model, [rows()], folder, device="cpu")
    tuned = subject(folder, saved=Saved(folder=folder, base=base), is_tuned=True)
    proofs = {proof.name: proof for proof in prove_training(tuned)}
    assert_all_hold(list(proofs.values()))
    assert proofs["tuned ≠ base"].holds
    assert proofs["killed and resumed = uninterrupted"].compared.startswith("this model, every weight")


def test_conversations_are_learned_as_they_are_asked() -> None:
    proof = prove_tokens([conversation(n) for n in range(5)], chat=ChatFormat.load(EMBEDDED))
    assert (proof.holds, proof.figure) == (True, 0.0)


def test_rows_differ_in_what_is_learned_and_what_it_weighs() -> None:
    batch = choose_rows([conversation(n) for n in range(8)], chat=ChatFormat.load(EMBEDDED), vocabulary=8192, max_length=512)
    assert set(batch.record_ids) <= {str(n) for n in range(8)}
    assert len(batch.record_ids) > 2
    assert len(set(batch.weights[batch.weights > 0].tolist())) > 1
    assert ((batch.weights > 0) == (batch.targets >= 0)).all()


def test_an_adapter_that_is_loaded_takes_gradients_in_its_matrices_alone(tmp_path: Path) -> None:
    base, machine = save_random("llama", tmp_path), this_machine()
    model = add_lora(load_model(base, machine=machine), rank=4, alpha=8.0, dropout=0.0, seed=0)
    trained = [parameter.requires_grad for parameter in model.parameters()]
    (tmp_path / "adapter").mkdir()
    save_model(model, tmp_path / "adapter", base_path=base)
    loaded = load_version(tmp_path / "adapter", base=base, machine=machine)
    require_adapter_gradients(loaded)
    assert sum(p.numel() for p in loaded.parameters() if p.requires_grad) == sum(
        p.numel() for p, is_trained in zip(model.parameters(), trained, strict=True) if is_trained
    )

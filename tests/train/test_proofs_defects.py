"""Every proof fails when its defect is planted. The engine is replaced by a plain one in which one thing at a time goes wrong."""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import tunesmith.model
from tunesmith.data import contract as contracts
from tunesmith.data.chat import ChatFormat
from tunesmith.model import load_model, save_model, this_machine
from tunesmith.model.forward import SummedLoss
from tunesmith.model.reference import load_with_peft
from tunesmith.records import Message, Proof, Record, Role, Source, TokenBatch
from tunesmith.train import Saved, TrainConfig, fresh
from tunesmith.train.fresh import fresh_process
from tunesmith.train.loop import fit
from tunesmith.train.probe import Probe, log_likelihoods
from tunesmith.train.proofs import _tried
from tunesmith.train.proofs_adapter import prove_changed, prove_merged, prove_peft, trial_adapter
from tunesmith.train.proofs_data import prove_tokens
from tunesmith.train.proofs_exact import prove_compiled, prove_step
from tunesmith.train.proofs_process import prove_reloaded, prove_resumed, read_task, train_task
from tunesmith.train.proofs_rows import choose_rows
from tunesmith.train.proofs_turn import prove_ends

from .conftest import VOCAB, save_random

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
PACKED, ACCUMULATED, HEAD = "packed = unpacked", "accumulated = one batch", "supervised-only head = full head"


def rows() -> TokenBatch:
    return choose_rows([], chat=None, vocabulary=VOCAB, max_length=96)


def built(name: str, folder: Path) -> nn.Module:
    return load_model(save_random(name, folder), machine=this_machine())


def engine(  # a training engine as plain as can be, with a place for each defect
    model: Any,
    batch: TokenBatch,
    *,
    device: str,
    bleeds: bool = False,
    restarts: bool = True,
    drop: int = 0,
    shift: int = 0,
    ignores_weights: bool = False,
    mean_over_passes: int = 0,
) -> SummedLoss:
    offsets = [0, batch.num_tokens] if bleeds else batch.offsets.tolist()
    own_positions = np.concatenate([np.arange(n) for n in np.diff(batch.offsets)])
    positions = torch.from_numpy(own_positions if restarts else np.minimum(np.arange(batch.num_tokens), 95))
    tokens, targets = torch.from_numpy(batch.tokens).long(), torch.from_numpy(batch.targets).long()
    whole_T = torch.ones(batch.num_tokens, dtype=torch.long)  # without a mask transformers keeps restarted positions apart itself
    logits = torch.cat(
        [
            model(
                input_ids=tokens[None, a:b], attention_mask=whole_T[None, a:b], position_ids=positions[None, a:b], use_cache=False
            ).logits[0]
            for a, b in pairwise(offsets)
        ]
    )
    places = torch.from_numpy(np.flatnonzero(batch.targets >= 0))[: -drop or None]
    nll = functional.cross_entropy(logits[places], targets[places].roll(shift), reduction="none")
    weights = torch.ones(len(places)) if ignores_weights else torch.from_numpy(batch.weights)[places]
    total, weight = (nll * weights).sum(), float(batch.weights.sum())
    if mean_over_passes:
        step = rows()
        passes = 1 if batch.num_tokens == step.num_tokens else mean_over_passes
        total = total / weight * float(step.weights.sum()) / passes
    return SummedLoss(total, weight)


def failing(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **defect: object) -> set[str]:
    """The proofs that fail when the engine has a defect."""

    def defective(model: nn.Module, batch: TokenBatch, *, device: str) -> SummedLoss:
        return engine(model, batch, device=device, **defect)  # type: ignore[arg-type]

    monkeypatch.setattr("tunesmith.train.proofs_exact.summed_loss", defective)
    monkeypatch.setitem(fit.__kwdefaults__, "loss", defective)
    return {proof.name for proof in prove_step(built(name, folder), rows(), device="cpu") if not proof.holds}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_engine_without_a_defect_passes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(name, tmp_path, monkeypatch) == set()


@pytest.mark.parametrize(
    ("name", "defect", "fails"),
    [
        ("llama", {"bleeds": True}, PACKED),
        ("gpt2", {"restarts": False}, PACKED),
        ("llama", {"drop": 1}, HEAD),
        ("gemma2", {"shift": 1}, HEAD),
        ("llama", {"ignores_weights": True}, PACKED),
        ("llama", {"mean_over_passes": 3}, ACCUMULATED),
    ],
    ids=str,
)
def test_a_defect_of_the_training_step_is_found(
    name: str, defect: dict[str, object], fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fails in failing(name, tmp_path, monkeypatch, **defect)


def test_a_mean_of_means_is_found_by_its_own_proof_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_the_loop(model: nn.Module, batch: TokenBatch, *, device: str) -> SummedLoss:
        return engine(model, batch, device=device, mean_over_passes=3)

    monkeypatch.setitem(fit.__kwdefaults__, "loss", of_the_loop)
    failed = [proof.name for proof in prove_step(built("llama", tmp_path), rows(), device="cpu") if not proof.holds]
    assert failed == [ACCUMULATED]


def test_a_gradient_that_is_lost_between_the_passes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = Tensor.backward

    def forgetful(loss: Tensor, *arguments: object, **options: object) -> None:
        for parameter in model.parameters():
            parameter.grad = None
        backward(loss, *arguments, **options)  # type: ignore[arg-type]

    model = built("llama", tmp_path)
    monkeypatch.setattr(Tensor, "backward", forgetful)
    failed = {proof.name for proof in prove_step(model, rows(), device="cpu") if not proof.holds}
    assert ACCUMULATED in failed


def compiling_with(replaced: Callable[[Tensor], Tensor] | None) -> Callable[..., None]:
    """torch's real compiler up to its last step, which takes no C++: the graph runs as it is, or with another activation."""

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        for node in graph.graph.nodes if replaced else ():
            if node.target is functional.silu:
                node.target, node.kwargs = replaced, {}
        graph.recompile()
        return graph.forward

    def compile_layer(layer: nn.Module, **options: Any) -> None:
        layer._compiled_call_impl = torch.compile(layer._call_impl, backend=backend, **options)

    return compile_layer


@pytest.fixture
def can_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.train.proofs_exact.can_compile", lambda: True)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own deprecations when it is loaded
@pytest.mark.usefixtures("can_compile")
@pytest.mark.parametrize("is_adapted", [False, True], ids=["full", "adapter"])
@pytest.mark.parametrize(("replaced", "holds"), [(None, True), (functional.gelu, False)], ids=["as it is", "another activation"])
def test_a_compiled_layer_that_computes_something_else_is_found(
    replaced: Callable[[Tensor], Tensor] | None, holds: bool, is_adapted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Module, "compile", compiling_with(replaced))
    model = with_adapter(tmp_path)[0] if is_adapted else built("llama", tmp_path)
    proof = prove_compiled(model, rows(), device="cpu", is_used=True)
    assert proof.holds is holds, proof
    assert proof.figure is not None
    left = {proof.name for proof in prove_step(model, rows(), device="cpu") if not proof.holds}
    assert not left, "the layers are as before"


@pytest.mark.usefixtures("can_compile")
def test_a_compiler_that_compiles_nothing_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda *_, **__: None)
    proof = prove_compiled(built("llama", tmp_path), rows(), device="cpu", is_used=True)
    assert (proof.holds, proof.figure) == (None, None)


def test_what_is_not_compiled_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built("llama", tmp_path)
    assert prove_compiled(model, rows(), device="cpu", is_used=False).holds is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    proof = prove_compiled(model, rows(), device="cpu", is_used=True)
    assert proof.holds is None
    assert "no C++ compiler" in proof.compared


def with_adapter(folder: Path, *, rank: int = 32) -> tuple[nn.Module, Saved]:
    """An adapter in memory and saved. At rank 32 its matrices are square, so that a transposed one fits in its place."""
    base = save_random("llama", folder)
    config = TrainConfig.model_validate({"lora": {"rank": rank}}).lora
    model = trial_adapter(load_model(base, machine=this_machine()), config=config)
    saved = Saved(folder=folder / "adapter", base=base)
    saved.folder.mkdir()
    save_model(model, saved.folder, base_path=base)
    return model, saved


def change_saved(saved: Saved, change: Callable[[str, Tensor], Tensor]) -> None:
    file = saved.folder / "adapter_model.safetensors"
    save_file({name: change(name, tensor).contiguous() for name, tensor in load_file(file).items()}, file)


def change_scale(_: nn.Module, saved: Saved) -> None:
    file = saved.folder / "adapter_config.json"
    assert '"lora_alpha": 32.0' in file.read_text()
    file.write_text(file.read_text().replace('"lora_alpha": 32.0', '"lora_alpha": 33.0'))


def transpose_one(_: nn.Module, saved: Saved) -> None:
    change_saved(saved, lambda name, tensor: tensor.T if "layers.1.self_attn.q_proj.lora_A" in name else tensor)


def alter_one_number(_: nn.Module, saved: Saved) -> None:
    def altered(name: str, tensor: Tensor) -> Tensor:
        if "layers.1.self_attn.v_proj.lora_B" in name:
            tensor[0, 0] += 0.05
        return tensor

    change_saved(saved, altered)


def double_a_gradient(model: nn.Module, _: Saved) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained[3].register_hook(lambda gradient: gradient * 2)


@pytest.mark.parametrize("plant", [change_scale, transpose_one, alter_one_number, double_a_gradient])
def test_an_adapter_that_computes_otherwise_than_pefts_is_found(
    plant: Callable[[nn.Module, Saved], None], tmp_path: Path
) -> None:
    model, saved = with_adapter(tmp_path)
    plant(model, saved)
    proof = prove_peft(model, saved, rows(), machine=this_machine())
    assert proof.holds is False, proof


@pytest.mark.parametrize(("factor", "holds"), [(1.0, True), (1.1, False), (0.5, False)])
def test_a_merge_in_the_wrong_scale_is_found(factor: float, holds: bool, tmp_path: Path) -> None:
    model, saved = with_adapter(tmp_path)
    assert saved.base is not None
    theirs = load_with_peft(saved.folder, base=saved.base, machine=this_machine())
    scaled = [module.scaling for module in theirs.modules() if isinstance(getattr(module, "scaling", None), dict)]
    assert scaled
    for scaling in scaled:
        scaling["default"] *= factor
    proof = prove_merged(model, theirs, rows(), device="cpu")
    assert proof.holds is holds, proof


def said_of(*, end: bool, ends: bool, known: bool = True) -> contracts.Contract:
    spoken = contracts.Spoken(tokens=(5, 2), texts=("a", ""), log_likelihoods=(-0.1, -0.1), others={})
    probe = contracts.Probe(
        messages=(("user", "x"),),
        prompt=(1,),
        prompt_text="x",
        answer=spoken,
        likeliest=(known, end),
        greedy=spoken,
        greedy_text="a",
        margins=(1.0, 1.0, 1.0),
        ends=ends,
        other_texts={},
    )
    return contracts.Contract(
        template="t",
        stop_tokens=(2,),
        stop_texts=("<end>",),
        bos=None,
        begins_with_bos=False,
        max_length=64,
        max_new_tokens=8,
        number_format="float32",
        text="x",
        text_tokens=(1,),
        long_text="x",
        long_count=1,
        probes=(probe,),
    )


@pytest.mark.parametrize(
    ("end", "ends", "known", "holds"),
    [(True, True, True, True), (False, True, True, False), (True, False, True, False), (False, False, False, None)],
)
def test_a_model_that_has_not_learned_to_stop_is_found(end: bool, ends: bool, known: bool, holds: bool | None) -> None:
    assert prove_ends(said_of(end=end, ends=ends, known=known)).holds is holds


def test_an_adapter_that_does_nothing_is_found(tmp_path: Path) -> None:
    model, _ = with_adapter(tmp_path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    proof = prove_changed(model, None, rows(), device="cpu")
    assert (proof.holds, proof.figure) == (False, 0.0)


def test_a_tuned_model_that_is_its_base_is_found(tmp_path: Path) -> None:
    model = built("llama", tmp_path)
    assert prove_changed(model, model, rows(), device="cpu").holds is False


def in_a_fresh_process(folder: Path, saved: Saved, probe: Probe) -> dict[str, Any]:
    tasks = {
        "num_threads": 1,
        "train": train_task(saved, batch=rows(), config=TrainConfig.model_validate({"lora": {"rank": 32}})),
        "read": read_task(saved, probe=probe),
    }
    with fresh_process() as ask:
        return ask(folder, tasks)()


def remembered(model: nn.Module) -> Probe:
    told = [tuple(rows().tokens[:30].tolist())]
    said = log_likelihoods(model, told, device="cpu")
    return Probe(rows=tuple(told), log_likelihoods=tuple(map(tuple, said)), number_format="float32")


DEFECTS = {
    "none": "",
    "a forgotten generator state": "position.set_random_state = lambda state, tensors: None",
    "a forgotten place in the data": """
from tunesmith.train import stream
begin = stream.Cursor.__init__
def forgetful(self, *arguments, **options):
    begin(self, *arguments, **options)
    self.epoch, self.place = 0, 0
stream.Cursor.__init__ = forgetful
""",
    "forgotten weights": "position.load_weights = lambda trained, weights: None",
    "a run that starts over": "from tunesmith.train.checkpoint import Checkpoints; Checkpoints.newest = lambda self, check: None",
    "a kill that kills nothing": "import os; os.kill = lambda *_: None",
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_resume_that_forgets_something_is_found(defect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "defective.py"
    script.write_text(
        "import sys, torch\nfrom pathlib import Path\nfrom tunesmith.train import position\n"
        f"{DEFECTS[defect]}\nfrom tunesmith.train.proofs_child import main\nmain(Path(input()))\n"
    )
    monkeypatch.setattr(fresh, "COMMAND", (sys.executable, str(script)))
    model, saved = with_adapter(tmp_path)
    answer = in_a_fresh_process(tmp_path, saved, remembered(model))
    proof = prove_resumed(answer["train"], trained="this adapter")
    assert proof.holds is (defect == "none"), proof


def test_a_saved_file_with_one_altered_tensor_is_found(tmp_path: Path) -> None:
    model, saved = with_adapter(tmp_path)
    probe = remembered(model)
    alter_one_number(model, saved)
    read = in_a_fresh_process(tmp_path, saved, probe)["read"]
    assert prove_reloaded(read, probe, tolerance=1e-5, when="in memory").holds is False


def test_a_fresh_process_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such thing')"))
    with fresh_process() as ask:
        answer = ask(tmp_path, {})
        (proof,) = _tried("reloaded", lambda: [answer()["read"]])
    assert proof.holds is False
    assert "no such thing" in proof.compared


def test_what_cannot_be_tried_is_not_proved() -> None:
    def broken() -> list[Proof]:
        raise ValueError("shapes differ")

    (proof,) = _tried("LoRA", broken)
    assert (proof.holds, proof.compared) == (False, "ValueError: shapes differ")


def conversation() -> Record:
    turns = ((Role.USER, "Where is it?"), (Role.ASSISTANT, "In aisle 4."), (Role.USER, "Hats?"), (Role.ASSISTANT, "Beside it."))
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return Record(id="a", source=Source(path="rows.jsonl", line=3), messages=messages)


def end_unlearned(encoded: Any) -> None:
    encoded.targets[np.flatnonzero(encoded.targets >= 0)[-1]] = -100


def learned_too_early(encoded: Any) -> None:
    encoded.targets[0] = encoded.tokens[1]


def targets_shifted(encoded: Any) -> None:
    encoded.targets[:] = np.where(encoded.targets >= 0, encoded.tokens, -100)


def other_prompt(encoded: Any) -> None:
    encoded.tokens[1] += 1


@pytest.mark.parametrize("plant", [end_unlearned, learned_too_early, targets_shifted, other_prompt])
def test_tokens_that_differ_between_training_and_serving_are_found(
    plant: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.data.pack import encode

    def defective(*arguments: Any, **options: Any) -> Any:
        encoded = encode(*arguments, **options)
        plant(encoded)
        return encoded

    monkeypatch.setattr("tunesmith.train.proofs_data.encode", defective)
    proof = prove_tokens([conversation()], chat=ChatFormat.load(EMBEDDED))
    assert proof.holds is False
    assert "rows.jsonl:3" in proof.compared

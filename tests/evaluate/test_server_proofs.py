"""A sound server of each kind passes, and each planted defect is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith.model
from tunesmith.data.chat import ChatFormat, Rendered
from tunesmith.data.contract import BASE, BF16, Contract, read_contract, write_contract
from tunesmith.errors import EndpointError
from tunesmith.evaluate.drift import measure_drift
from tunesmith.evaluate.server import Server
from tunesmith.evaluate.server_proofs import ANSWERS, CONTEXT, ENDS, PROMPTS, TOKENIZER, WEIGHTS, prove_server
from tunesmith.model import add_lora, load_model, this_machine
from tunesmith.model.lora import adapter_disabled, adapter_scaled
from tunesmith.records import Message, Proof, Record, Role, Source
from tunesmith.train.contract import make_contract

from .servers import KINDS, Served, serving

EMBEDDED = Path(tunesmith.model.__file__).parent / "embedded"
PAIRS = {
    "What does the hat cost?": "The hat costs 12 euros.",
    "Is the café open on Sundays?": "No, it is closed on Sundays.",
    "Where is my parcel?": "It left our shop this morning.",
    "Do you sell gift cards?": "Yes, from 20 to 200 euros.",
}


@dataclass(frozen=True)
class World:
    """A version that has learned four answers, what is kept of it, and how to make what may be served in its place."""

    contract: Contract
    model: Any
    tokenizer: Any
    stops: tuple[int, ...]

    def served(self, **changed: Any) -> Served:
        return replace(Served(model=Plain(self.model), tokenizer=self.tokenizer, stops=self.stops), **changed)


class Plain:
    """A model that is called; `around` is entered for each call."""

    def __init__(self, model: Any, around: Callable[[], Any] | None = None) -> None:
        self.model = model
        self.around = around

    def __call__(self, **asked: Any) -> Any:
        if self.around is None:
            return self.model(**asked)
        with self.around():
            return self.model(**asked)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small random Llama whose template prints a BOS, with an adapter that was taught with torch alone."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("world") / "base"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EMBEDDED / name, folder / name)
        (folder / name).chmod(0o644)
    configuration = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration | {"bos_token": "<|endoftext|>"}))
    template = folder / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text())
    chat, tokenizer = ChatFormat.load(folder), AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=chat.num_tokens, max_position_embeddings=128, **shape)).save_pretrained(folder)
    model = add_lora(load_model(folder, machine=this_machine()).float(), rank=8, alpha=16, seed=0)
    records = [
        Record(
            id=str(i),
            source=Source(path="rows.jsonl", line=i + 1),
            messages=(Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=answer)),
        )
        for i, (question, answer) in enumerate(PAIRS.items())
    ]
    teach(model, [chat.render(record)[0] for record in records])
    contract = make_contract(model, base=None, chat=chat, records=records, max_length=128)
    assert contract is not None
    write_contract(contract, folder)
    assert read_contract(folder) == contract
    return World(contract, model, tokenizer, chat.stop_tokens)


def teach(model: Any, rows: list[Rendered]) -> None:
    """The answers alone, by transformers' own loss."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(80):
        for row in rows:
            ids = torch.tensor([row.tokens])
            model(input_ids=ids, labels=torch.where(torch.tensor([row.weights]) > 0, ids, -100)).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def sheet(kind: str, served: Served, contract: Contract) -> dict[str, Proof]:
    with serving(kind, served) as url, Server(url, model=None, api_key=None) as server:
        return {proof.name: proof for proof in prove_server(contract, server)}


def failed(proofs: dict[str, Proof]) -> set[str]:
    return {name for name, proof in proofs.items() if proof.holds is False}


def test_the_version_has_learned_its_answers_and_their_ends(world: World) -> None:
    """Or else the tests below would show nothing."""
    probes = world.contract.probes
    assert {probe.greedy_text for probe in probes} == set(PAIRS.values())
    assert all(probe.ends and all(probe.likeliest) for probe in probes)
    assert world.contract.begins_with_bos
    assert set(probes[0].answer.others) == {BASE, BF16, "x 0.25", "x 0.5", "x 0.8", "x 1.25", "x 2", "x 4"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_server_passes(kind: str, world: World) -> None:
    proofs = sheet(kind, world.served(), world.contract)
    assert failed(proofs) == set(), proofs
    assert {name for name, proof in proofs.items() if proof.holds} == {TOKENIZER, PROMPTS, WEIGHTS, ANSWERS, ENDS, CONTEXT}, (
        proofs
    )


def test_a_server_that_tells_no_likelihoods_is_held_to_its_answers_alone(world: World) -> None:
    served = world.served(tells_likelihoods=False)
    proofs = sheet("ollama", served, world.contract)
    assert failed(proofs) == set()
    assert proofs[WEIGHTS].holds is None
    assert "not tried" in proofs[WEIGHTS].compared
    served.model = Plain(world.model, lambda: adapter_disabled(world.model))
    proofs = sheet("ollama", served, world.contract)
    assert failed(proofs) == {ANSWERS}
    assert "the base is served" in proofs[ANSWERS].compared


def zeroed(world: World) -> Served:
    model = deepcopy(world.model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    return world.served(model=Plain(model))


def base(world: World) -> Served:
    return world.served(model=Plain(world.model, lambda: adapter_disabled(world.model)))


def doubled(world: World) -> Served:
    return world.served(model=Plain(world.model, lambda: adapter_scaled(world.model, 2.0)))


def slightly_less(world: World) -> Served:
    return world.served(model=Plain(world.model, lambda: adapter_scaled(world.model, 0.85)))


def rounded(world: World, *, levels: int, level: str) -> Served:
    model = deepcopy(world.model)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            step = parameter.data.abs().amax() / levels
            parameter.data = (parameter.data / step).round() * step
    return world.served(model=Plain(model), level=level)


def in_8_bits(world: World) -> Served:
    return rounded(world, levels=127, level="Q8_0")


def in_4_bits(world: World) -> Served:
    return rounded(world, levels=7, level="Q4_0")


def slightly_more(world: World) -> Served:
    return world.served(model=Plain(world.model, lambda: adapter_scaled(world.model, 1.3)))


def other_template(world: World) -> Served:
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    return world.served(template=template)


def with_system(world: World) -> Served:
    return world.served(template="{{ bos_token }}<|im_start|>system\nBe kind.<|im_end|>\n" + world.tokenizer.chat_template[15:])


def double_bos(world: World) -> Served:
    return world.served(adds_bos=True)


def other_tokenizer(world: World) -> Served:
    """The same vocabulary with most of its merges gone: words are cut into more pieces."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(world.tokenizer.backend_tokenizer.to_str())
    content["model"]["merges"] = content["model"]["merges"][:200]
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "chat_template": world.tokenizer.chat_template}
    return world.served(tokenizer=PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **names))


def no_stop(world: World) -> Served:
    return world.served(stops=())


def short_window(world: World) -> Served:
    return world.served(window=100)


DEFECTS = [
    (zeroed, WEIGHTS, "the base is served in place of the tuned model"),
    (base, WEIGHTS, "the base is served in place of the tuned model"),
    (doubled, WEIGHTS, "wrong scale of the adapter: it counts about 2 times"),
    (slightly_less, WEIGHTS, "wrong scale of the adapter: it counts"),
    (slightly_more, WEIGHTS, "wrong scale of the adapter: it counts"),
    (in_4_bits, WEIGHTS, "rounded (quantised) weights"),
    (other_template, PROMPTS, "another template"),
    (with_system, PROMPTS, "another template"),
    (double_bos, PROMPTS, "double BOS"),
    (other_tokenizer, TOKENIZER, "another tokenizer"),
    (no_stop, ENDS, "missing EOS"),
    (short_window, CONTEXT, "truncated context"),
]
FOLLOWS = {WEIGHTS: {ANSWERS}, ANSWERS: set(), PROMPTS: {ANSWERS}, TOKENIZER: {PROMPTS, ANSWERS}, ENDS: set(), CONTEXT: set()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("plant", "name", "said"), DEFECTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_defect_of_a_server_is_found_and_named(
    plant: Callable[[World], Served], name: str, said: str, kind: str, world: World
) -> None:
    proofs = sheet(kind, plant(world), world.contract)
    if name == WEIGHTS and proofs[WEIGHTS].holds is None:  # its answers have no token in common with the version's
        assert kind not in ("vllm", "sglang")  # they score the ids that they are given
        name = ANSWERS
    assert proofs[name].holds is False, proofs
    assert said in proofs[name].compared
    assert failed(proofs) - {name} <= FOLLOWS[name], proofs
    if kind == "ollama" and plant is in_4_bits:
        assert "the server says Q4_0" in proofs[name].compared


def in_bf16(world: World) -> Served:
    return world.served(model=Plain(deepcopy(world.model).to(torch.bfloat16)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plant", [in_bf16, in_8_bits])
def test_rounding_no_coarser_than_bf16_is_told_and_not_called_equal(
    plant: Callable[[World], Served], kind: str, world: World
) -> None:
    proofs = sheet(kind, plant(world), world.contract)
    assert failed(proofs) == set(), proofs
    assert proofs[WEIGHTS].holds
    assert proofs[WEIGHTS].compared.startswith("rounded, not equal")
    assert (proofs[WEIGHTS].figure or 0) > 1e-3


def test_what_is_neither_is_called_neither() -> None:
    version, others = [-1.0, -2.0, -0.5, -1.5], {BASE: [-6.0, -7.0, -5.0, -8.0]}
    drift = measure_drift([-4.0, -0.1, -3.0, -0.2], version, others)
    assert not drift.holds
    assert "another model or another adapter" in drift.words
    assert measure_drift(version, version, others).words.startswith("equal")
    assert measure_drift([-1.0, float("-inf"), -0.5, -1.5], version, others).holds is False


def opened(kind: str, served: Served, *, path: str = "", **options: Any) -> Server:
    with serving(kind, served) as url, Server(url + path, **{"model": None, "api_key": None, **options}) as server:
        return server


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_may_end_in_any_of_the_usual_ways(path: str, world: World) -> None:
    assert opened("vllm", world.served(), path=path).model == "tuned"
    assert opened("ollama", world.served(), path=path, model="tuned").model == "tuned"


def test_a_server_that_cannot_be_asked_is_told_in_a_sentence(world: World) -> None:
    with pytest.raises(EndpointError, match="has no model 'tunde'; it serves: tuned"):
        opened("vllm", world.served(), model="tunde")
    with pytest.raises(EndpointError, match="it wants a key; give one with --api-key"):
        opened("vllm", world.served(key="secret"))
    with pytest.raises(EndpointError, match="the key is refused"):
        opened("vllm", world.served(key="secret"), api_key="wrong")
    assert opened("vllm", world.served(key="secret"), api_key="secret").model == "tuned"
    with pytest.raises(EndpointError, match=r"does not look like a server of language models.*404"):
        opened("vllm", world.served(), path="/elsewhere")
    with (
        pytest.raises(EndpointError, match=r"the connection failed.*start the server"),
        Server("http://127.0.0.1:9", model=None, api_key=None),
    ):
        pass
    with pytest.raises(EndpointError, match="is no address"):
        Server("localhost:8000", model=None, api_key=None)


def test_a_server_that_does_not_answer_is_given_up_after_the_timeout() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EndpointError, match=r"no answer within 0.2 s"), Server(url, model=None, api_key=None, timeout_s=0.2):
            pass

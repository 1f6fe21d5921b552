"""The lean decoder against transformers: every family that it knows, each kind of weights, and everything that it must leave alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.model.adapter_files import write_adapter
from tunesmith.model.batching import Batch, Request
from tunesmith.model.kv_slots import KeyValueSlots, Part, Step
from tunesmith.model.lean_products import Packing, Product
from tunesmith.model.lean_shapes import lean_decoder
from tunesmith.model.lora import adapter_disabled, adapter_scaled, add_lora, lora_layers
from tunesmith.model.lora_many import AdapterSet
from tunesmith.model.sampling import Sampling
from tunesmith.model.slot_readers import MOST_BY_INT8, Together, int8_error, reader_for
from tunesmith.model.soft_prompt import add_soft_prompt

_BODY = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_LONG = {"max_position_embeddings": 256, "num_key_value_heads": 2}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LATE = {"rope_theta": 10_000.0, "original_max_position_embeddings": 64}
KNOWN = {
    "llama": transformers.LlamaConfig(**_BODY, **_LONG, tie_word_embeddings=True),
    "llama with biases": transformers.LlamaConfig(**_BODY, **_LONG, attention_bias=True, mlp_bias=True),
    "llama with llama3's angles": transformers.LlamaConfig(**_BODY, **_LONG, rope_parameters=_LLAMA3 | _LATE),
    "llama with yarn": transformers.LlamaConfig(**_BODY, **_LONG, rope_parameters={"rope_type": "yarn", "factor": 4.0} | _LATE),
    "mistral with a window": transformers.MistralConfig(**_BODY, **_LONG, sliding_window=8),
    "qwen2": transformers.Qwen2Config(**_BODY, **_LONG),
    "qwen2, a window in one layer": transformers.Qwen2Config(
        **_BODY, **_LONG, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "qwen3": transformers.Qwen3Config(**_BODY, **_LONG, head_dim=16, tie_word_embeddings=True),
}
UNKNOWN = {
    "another activation": transformers.LlamaConfig(**_BODY, **_LONG, hidden_act="gelu"),
    "angles that move with the length": transformers.LlamaConfig(
        **_BODY, **_LONG, rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    ),
    "another family": transformers.GemmaConfig(**_BODY, **_LONG, head_dim=8),
}
PROMPTS = [[5, 6, 7], list(range(20, 57)), [9]]


def build(config: Any) -> Any:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    model.generation_config.eos_token_id = None
    return model


def by_transformers(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    plan = transformers.GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plan)[0, len(prompt) :].tolist()


def answers(batch: Batch, prompts: list[list[int]], *, adapters: list[str] | None = None) -> list[list[int]]:
    names = adapters or [""] * len(prompts)
    ids = [
        batch.add(Request(prompt=prompt, sampling=Sampling(max_new_tokens=12), adapter=name))
        for prompt, name in zip(prompts, names, strict=True)
    ]
    written: dict[int, list[int]] = {i: [] for i in ids}
    while batch.num_running or batch.num_waiting:
        for said in batch.step():
            written[said.id] += [said.choice.token] if said.choice is not None else []
    return [written[i] for i in ids]


@torch.inference_mode()
def lean_logits(model: Any, tokens: list[int], *, packing: Packing) -> torch.Tensor:
    """Of every token; the first five are read together, the others one after the other."""
    decoder = lean_decoder(model, packing=packing)
    assert decoder is not None
    slots, cpu = KeyValueSlots(), torch.device("cpu")
    slots.reserve(num_slots=1, capacity=len(tokens))
    found = [decoder.read(slots, Step(parts=(Part(0, 0, 5),), num_writing=0, device=cpu), tokens[:5], range(5))]
    for past, token in enumerate(tokens[5:], start=5):
        found.append(decoder.read(slots, Step(parts=(Part(0, past, 1),), num_writing=1, device=cpu), [token], [0]))
    return torch.cat(found)


@torch.inference_mode()
def own_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("packing", ["none", "blocks", "packed"])
def test_what_is_known_is_read_lean_and_says_what_transformers_says(name: str, packing: Packing) -> None:
    model = build(KNOWN[name])
    tokens = list(range(40, 70))
    expected, own = [by_transformers(model, prompt) for prompt in PROMPTS], own_logits(model, tokens)
    torch.testing.assert_close(lean_logits(model, tokens, packing=packing), own, rtol=0, atol=1e-5 * float(own.abs().max()))
    torch.testing.assert_close(own_logits(model, tokens), own, rtol=0, atol=1e-5 * float(own.abs().max()))  # packed or not
    assert answers(Batch(model, packing=packing), PROMPTS) == expected
    assert answers(Batch(model, packing=packing), PROMPTS[:1]) == expected[:1]


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_left_to_its_own_code(name: str) -> None:
    model = build(UNKNOWN[name])
    assert lean_decoder(model, packing="packed") is None
    expected = [by_transformers(model, prompt) for prompt in PROMPTS]
    assert answers(Batch(model, packing="packed"), PROMPTS) == expected
    with pytest.raises(ModelError, match="int8 is known for models of the Llama family"):
        Batch(model, packing="int8")


def test_a_model_that_somebody_has_changed_is_not_known() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's name
            return 2 * super().forward(input)

    def hook(model: Any) -> None:
        model.model.layers[1].mlp.register_forward_hook(lambda _module, _given, output: output + 1)

    def patch(model: Any) -> None:
        model.model.norm.forward = lambda x: x

    def subclass(model: Any) -> None:
        model.model.layers[0].mlp.down_proj = Doubled(48, 32, bias=False)

    def mix(model: Any) -> None:
        model.lm_head.weight.data = model.lm_head.weight.data.double()

    for change in (hook, patch, subclass, mix, lambda model: model.train()):
        model = build(transformers.LlamaConfig(**_BODY, **_LONG))
        assert lean_decoder(model) is not None
        change(model)
        assert lean_decoder(model) is None


def test_weights_that_are_not_packed_may_change_at_any_time() -> None:
    model = build(KNOWN["qwen2"])
    batch = Batch(model)
    answers(batch, PROMPTS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert answers(batch, PROMPTS) == [by_transformers(model, prompt) for prompt in PROMPTS]


def test_packed_weights_take_the_memory_that_they_took() -> None:
    model = build(KNOWN["mistral with a window"])
    before = sum(parameter.nbytes for parameter in model.parameters())
    for _ in range(2):  # a server that begins anew
        lean_decoder(model, packing="packed")
        storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
        assert sum(storages.values()) == before


def with_lora(config: Any) -> Any:
    model = add_lora(build(config), rank=4, alpha=16, seed=1)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_B, std=0.3)
    return model.eval()


@pytest.mark.parametrize("packing", ["none", "blocks", "packed"])
def test_a_models_own_adapter_counts_as_much_as_it_is_told_to(packing: Packing) -> None:
    model = with_lora(KNOWN["llama with biases"])
    tokens = list(range(40, 52))
    decoded = []
    for around in (lambda: adapter_scaled(model, 1.0), lambda: adapter_disabled(model), lambda: adapter_scaled(model, 0.5)):
        decoder_logits = lean_logits(model, tokens, packing=packing)
        with around():
            decoded.append(own_logits(model, tokens))
            torch.testing.assert_close(lean_logits(model, tokens, packing="none"), decoded[-1], rtol=0, atol=1e-4)
        torch.testing.assert_close(decoder_logits, decoded[0], rtol=0, atol=1e-4)
    assert (decoded[0] - decoded[1]).abs().max() > 0.1


def test_an_adapter_that_is_switched_off_after_packing_is_off() -> None:
    model = with_lora(KNOWN["llama"])
    batch = Batch(model, packing="packed")
    assert answers(batch, PROMPTS) == [by_transformers(model, prompt) for prompt in PROMPTS]
    with adapter_disabled(model):
        assert answers(batch, PROMPTS) == [by_transformers(model, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("packing", ["none", "blocks", "packed"])
def test_adapters_of_requests_come_on_top_of_the_lean_products(tmp_path: Path, packing: Packing) -> None:
    config = KNOWN["qwen2"]
    adapted, base = with_lora(config), build(config)
    write_adapter(adapted, tmp_path, base_path=None)
    adapters = AdapterSet(base)
    batch = Batch(base, adapters=adapters, packing=packing)
    adapters.load("a", tmp_path)  # later than the decoder was made
    expected = [by_transformers(build(config), PROMPTS[0]), by_transformers(adapted, PROMPTS[0])]
    assert answers(batch, [PROMPTS[0], PROMPTS[0]], adapters=["", "a"]) == expected
    assert answers(batch, [PROMPTS[0]], adapters=["a"]) == expected[1:]
    assert expected[0] != expected[1]


def test_a_soft_prompt_is_read_by_its_own_embedding() -> None:
    model = add_soft_prompt(build(KNOWN["llama"]), tokens=[7, 8, 9])
    tokens = [300, 301, 302, 5, 6, 7, 8]
    torch.testing.assert_close(lean_logits(model, tokens, packing="packed"), own_logits(model, tokens), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", KNOWN)
def test_int8_moves_logits_within_its_bound(name: str) -> None:
    model = build(KNOWN[name])
    tokens = list(range(40, 70))
    moved = int8_error(lean_logits(model, tokens, packing="int8"), own_logits(model, tokens))
    assert 1e-4 < moved <= MOST_BY_INT8 / 2


def test_int8_weights_are_within_half_a_step_of_the_models() -> None:
    """A step is 1/127 of the largest weight of an output; an input that is one in one place reads the weights back."""
    layer = nn.Module()
    layer.one, layer.two = nn.Linear(64, 24, bias=False), nn.Linear(64, 8, bias=False)
    product = Product(layer, ["one", "two"])
    product.quantize()
    weight = torch.cat([layer.one.weight, layer.two.weight]).detach()
    found = product(torch.eye(64)).t()
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    rounding = weight.abs() / 2**8  # of the kernel's results, in bf16
    assert bool(((found - weight).abs() <= step / 2 + rounding + 1e-6).all())


def test_int8_that_moves_a_model_too_far_is_refused() -> None:
    model = build(KNOWN["llama"])
    with torch.no_grad():  # one weight of each output is so large that nothing is left of the others
        for layer in model.model.layers:
            layer.mlp.down_proj.weight[:, 0] = 3e3
            layer.mlp.gate_proj.weight[0] = 0
    with pytest.raises(ModelError, match=r"in int8 this model's logits move by \d+% of their spread"):
        Batch(model, packing="int8")


def test_bf16_is_read_lean_too() -> None:
    model = build(KNOWN["qwen3"]).to(torch.bfloat16)
    reader = reader_for(model, packing="packed")
    assert isinstance(reader, Together)
    assert reader.is_lean


@torch.inference_mode()
@pytest.mark.parametrize("num_rows", [1, 2, 8, 64, 65, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_in_blocks_is_the_layers_product(dtype: torch.dtype, num_rows: int) -> None:
    torch.manual_seed(0)
    parent = nn.ModuleDict({"gate": nn.Linear(96, 160), "up": nn.Linear(96, 48)}).to(dtype)
    product = Product(parent, ["gate", "up"])
    product.pack()
    product.block()
    inputs = torch.randn(num_rows, 96).to(dtype)
    expected = torch.cat([inputs.double() @ layer.weight.double().T + layer.bias.double() for layer in parent.values()], dim=1)
    torch.testing.assert_close(product(inputs).double(), expected, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0.004)

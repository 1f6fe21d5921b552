"""How fast answers are written: one stream, many streams, and a shared beginning, beside `transformers.generate` in the same run.

    python -m benchmarks.serving [--rounds 3] [--tokens 64] [--json]

The model has the shape of SmolLM2-135M with random weights, in bf16 where the processor has units for it. Every figure is the median over
rounds in which all take their turns, so that a busy moment meets all alike.

    speedup_8, speedup_32      tokens/s of 8 and of 32 streams beside one stream's
    single_vs_transformers     one stream beside `transformers.generate`
    eight_vs_transformers      8 streams at once beside 8 calls of `transformers.generate`, one by one
    warm_prefix                first token of a 500-token prompt whose first 400 were read before, as a share of the time without
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import orjson
import torch
import transformers

from tunesmith.model import Batch, Request, Sampling, this_machine

SHAPE: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
PROMPT = 32
"""Tokens of the prompt of a stream."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="that each stream writes")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(rounds=chosen.rounds, num_tokens=chosen.tokens)
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if chosen.json else _in_words(found))


def measure(*, rounds: int, num_tokens: int) -> dict[str, Any]:
    """All figures."""
    machine = this_machine(precision="auto")
    model = new_model(machine.dtype)
    tokens_per_s = {f"streams_{num}": streams(model, num=num, num_tokens=num_tokens) for num in (1, 8, 32)}
    tokens_per_s["transformers"] = by_transformers(model, num_tokens=num_tokens)
    seconds = {"cold": first_token(model, is_warm=False), "warm": first_token(model, is_warm=True)}
    speeds = in_turns(tokens_per_s, rounds=rounds)
    waits = in_turns(seconds, rounds=rounds)
    return {
        "machine": str(machine),
        "tokens_per_s": speeds,
        "speedup_8": speeds["streams_8"] / speeds["streams_1"],
        "speedup_32": speeds["streams_32"] / speeds["streams_1"],
        "single_vs_transformers": speeds["streams_1"] / speeds["transformers"],
        "eight_vs_transformers": speeds["streams_8"] / speeds["transformers"],
        "first_token_s": waits,
        "warm_prefix": waits["warm"] / waits["cold"],
    }


def new_model(dtype: torch.dtype) -> Any:
    """The shape, with random weights: speed does not depend on them."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).to(dtype).eval()
    model.generation_config.eos_token_id = None
    return model


def in_turns(sides: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, float]:
    """The median of each side, after a first turn that does not count."""
    for side in sides.values():
        side()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return {name: statistics.median(figures) for name, figures in found.items()}


def streams(model: Any, *, num: int, num_tokens: int) -> Callable[[], float]:
    """Tokens per second of so many streams together, prompts included."""

    def once() -> float:
        batch = Batch(model, max_requests=num)
        for index in range(num):
            prompt = range(10 + index, 10 + index + PROMPT)
            batch.add(Request(prompt=prompt, sampling=Sampling(max_new_tokens=num_tokens)))
        start, written = time.perf_counter(), 0
        while batch.num_running or batch.num_waiting:
            written += sum(said.choice is not None for said in batch.step())
        assert written == num * num_tokens
        return written / (time.perf_counter() - start)

    return once


def by_transformers(model: Any, *, num_tokens: int) -> Callable[[], float]:
    """Tokens per second of `generate`."""

    def once() -> float:
        ids = torch.arange(10, 10 + PROMPT)[None]
        plan = transformers.GenerationConfig(max_new_tokens=num_tokens, do_sample=False, pad_token_id=0)
        start = time.perf_counter()
        with torch.inference_mode():
            written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plan).shape[1] - PROMPT
        assert written == num_tokens
        return written / (time.perf_counter() - start)

    return once


def first_token(model: Any, *, is_warm: bool) -> Callable[[], float]:
    """Seconds to the first token of a prompt of 500, of which 400 may have been read before."""

    def once() -> float:
        shared, own = list(range(1000, 1400)), list(range(2000, 2100))
        batch = Batch(model, prefix_bytes=2**30)
        if is_warm:
            _first(batch, [*shared, *reversed(own)])
        start = time.perf_counter()
        _first(batch, [*shared, *own])
        return time.perf_counter() - start

    return once


def _first(batch: Batch, prompt: list[int]) -> None:
    batch.add(Request(prompt=prompt, sampling=Sampling(max_new_tokens=1)))
    while batch.num_running or batch.num_waiting:
        batch.step()


def _in_words(found: dict[str, Any]) -> str:
    speeds = "  ".join(f"{name} {speed:.1f}" for name, speed in found["tokens_per_s"].items())
    ratios = ("speedup_8", "speedup_32", "single_vs_transformers", "eight_vs_transformers", "warm_prefix")
    return "\n".join([found["machine"], f"tokens/s  {speeds}", *(f"{name:<24}{found[name]:.2f}" for name in ratios)])


if __name__ == "__main__":
    main()

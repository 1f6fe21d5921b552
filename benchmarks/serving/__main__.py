"""How fast answers are written: one stream, many streams, and a shared beginning, beside `transformers.generate` in the same run.

    python -m benchmarks.serving [--rounds 3] [--tokens 64] [--json]

The model has the shape of SmolLM2-135M with random weights, in bf16 where the processor has units for it. Every figure is the median over
rounds in which all take their turns, so that a busy moment meets all alike. `--cpu` counts processor seconds of one thread instead of
time, for machines on which others work too.

    speedup_8, speedup_32      tokens/s of 8 and of 32 streams beside one stream's
    single_vs_transformers     one stream beside `transformers.generate`
    eight_vs_transformers      8 streams at once beside 8 calls of `transformers.generate`, one by one
    int8_vs_fp32               a single stream and 8 streams with weights in int8 beside the same with weights as they are
    vs_llama_cpp_f16           one stream beside llama.cpp's server on the same shape in f16
    vs_llama_cpp_q8_0          one stream in int8 beside its q8_0; both null, with a reason, without `--llama-server PATH`
    warm_prefix                first token of a 500-token prompt whose first 400 were read before, as a share of the time without
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers

from benchmarks.serving.llama_cpp import beside_llama_cpp
from tunesmith.model import Batch, Packing, Request, Sampling, this_machine

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
Clock = Callable[[], float]

PROMPT = 32
"""Tokens of the prompt of a stream."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="that each stream writes")
    parser.add_argument("--cpu", action="store_true", help="count processor seconds, of one thread")
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's server, to be measured too")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.cpu:
        torch.set_num_threads(1)
    clock = time.process_time if chosen.cpu else time.perf_counter
    found = measure(rounds=chosen.rounds, num_tokens=chosen.tokens, clock=clock)
    found |= beside_llama_cpp(chosen.llama_server, speeds=found["tokens_per_s"], num_tokens=chosen.tokens)
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() if chosen.json else _in_words(found))


def measure(*, rounds: int, num_tokens: int, clock: Clock) -> dict[str, Any]:
    """All figures."""
    machine = this_machine(precision="auto", num_threads=torch.get_num_threads())
    model, plain = new_model(machine.dtype), new_model(machine.dtype)  # a server packs its model; the other side keeps its own
    tokens_per_s = {f"streams_{num}": streams(model, num=num, num_tokens=num_tokens, clock=clock) for num in (1, 8, 32)}
    tokens_per_s |= {f"int8_{num}": streams(plain, num=num, num_tokens=num_tokens, clock=clock, packing="int8") for num in (1, 8)}
    tokens_per_s["transformers"] = by_transformers(plain, num_tokens=num_tokens, clock=clock)
    seconds = {"cold": first_token(model, is_warm=False, clock=clock), "warm": first_token(model, is_warm=True, clock=clock)}
    speeds = in_turns(tokens_per_s, rounds=rounds)
    waits = in_turns(seconds, rounds=rounds)
    return {
        "machine": str(machine),
        "tokens_per_s": speeds,
        "speedup_8": speeds["streams_8"] / speeds["streams_1"],
        "speedup_32": speeds["streams_32"] / speeds["streams_1"],
        "single_vs_transformers": speeds["streams_1"] / speeds["transformers"],
        "eight_vs_transformers": speeds["streams_8"] / speeds["transformers"],
        "int8_vs_fp32": {num: speeds[f"int8_{num}"] / speeds[f"streams_{num}"] for num in ("1", "8")},
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


def streams(model: Any, *, num: int, num_tokens: int, clock: Clock, packing: Packing = "packed") -> Callable[[], float]:
    """Tokens per second of so many streams together, prompts included."""

    def once() -> float:
        batch = Batch(model, max_requests=num, packing=packing)
        for index in range(num):
            prompt = range(10 + index, 10 + index + PROMPT)
            batch.add(Request(prompt=prompt, sampling=Sampling(max_new_tokens=num_tokens)))
        start, written = clock(), 0
        while batch.num_running or batch.num_waiting:
            written += sum(said.choice is not None for said in batch.step())
        assert written == num * num_tokens
        return written / (clock() - start)

    return once


def by_transformers(model: Any, *, num_tokens: int, clock: Clock) -> Callable[[], float]:
    """Tokens per second of `generate`."""

    def once() -> float:
        ids = torch.arange(10, 10 + PROMPT)[None]
        plan = transformers.GenerationConfig(max_new_tokens=num_tokens, do_sample=False, pad_token_id=0)
        start = clock()
        with torch.inference_mode():
            written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=plan).shape[1] - PROMPT
        assert written == num_tokens
        return written / (clock() - start)

    return once


def first_token(model: Any, *, is_warm: bool, clock: Clock) -> Callable[[], float]:
    """Seconds to the first token of a prompt of 500, of which 400 may have been read before."""

    def once() -> float:
        shared, own = list(range(1000, 1400)), list(range(2000, 2100))
        batch = Batch(model, prefix_bytes=2**30, packing="packed")
        if is_warm:
            _first(batch, [*shared, *reversed(own)])
        start = clock()
        _first(batch, [*shared, *own])
        return clock() - start

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

"""llama.cpp's server on the same shape: one stream, as it counts it itself (`timings.predicted_per_second`).

The file is written with llama.cpp's own package `gguf`; a tokenizer of as many made-up tokens stands in it, because speed asks for none.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import orjson
import torch

__all__ = ["beside_llama_cpp"]

_ROUNDS = 3


def beside_llama_cpp(server: Path | None, *, speeds: dict[str, float], num_tokens: int) -> dict[str, Any]:
    """The two ratios, or null with the reason."""
    if server is None:
        return {
            "vs_llama_cpp_f16": None,
            "vs_llama_cpp_q8_0": None,
            "vs_llama_cpp_reason": "no build of llama.cpp was named: --llama-server PATH",
        }
    theirs = {kind: _tokens_per_s(server, kind=kind, num_tokens=num_tokens) for kind in ("f16", "q8_0")}
    return {
        "llama_cpp_tokens_per_s": theirs,
        "vs_llama_cpp_f16": speeds["streams_1"] / theirs["f16"],
        "vs_llama_cpp_q8_0": speeds["int8_1"] / theirs["q8_0"],
    }


def _tokens_per_s(server: Path, *, kind: str, num_tokens: int) -> float:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        file = Path(folder) / "model.gguf"
        _write(file, kind=kind)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        threads = str(torch.get_num_threads())
        command = [str(server), "-m", str(file), "--port", str(port), "-t", threads, "-c", "1024", "-np", "1", "--no-warmup"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_until_ready(port, process)
                asked = {"prompt": list(range(10, 42)), "n_predict": num_tokens, "temperature": 0, "ignore_eos": True}
                found = [_post(port, asked)["timings"]["predicted_per_second"] for _ in range(_ROUNDS + 1)]
            finally:
                process.terminate()
    return statistics.median(found[1:])


def _write(file: Path, *, kind: str) -> None:
    import gguf

    from benchmarks.serving.__main__ import SHAPE, new_model

    model = new_model(torch.float32)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, SHAPE["num_hidden_layers"])
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(SHAPE["max_position_embeddings"])
    writer.add_embedding_length(SHAPE["hidden_size"])
    writer.add_block_count(SHAPE["num_hidden_layers"])
    writer.add_feed_forward_length(SHAPE["intermediate_size"])
    writer.add_head_count(SHAPE["num_attention_heads"])
    writer.add_head_count_kv(SHAPE["num_key_value_heads"])
    writer.add_rope_dimension_count(SHAPE["hidden_size"] // SHAPE["num_attention_heads"])
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(SHAPE["vocab_size"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{number}" for number in range(SHAPE["vocab_size"])])
    writer.add_token_scores([0.0] * SHAPE["vocab_size"])
    writer.add_token_types([gguf.TokenType.NORMAL] * SHAPE["vocab_size"])
    stored = gguf.GGMLQuantizationType.F16 if kind == "f16" else gguf.GGMLQuantizationType.Q8_0
    for name, tensor in model.named_parameters():
        found = names.get_name(name, try_suffixes=(".weight",))
        assert found is not None, name
        values = tensor.detach().numpy()
        if values.ndim == 1:
            writer.add_tensor(found, values)
        else:
            writer.add_tensor(found, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                raise RuntimeError(f"llama-server ended with {process.returncode}") from None
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("llama-server is not ready after a minute")


def _post(port: int, asked: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/completion", data=orjson.dumps(asked), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        return orjson.loads(answer.read())

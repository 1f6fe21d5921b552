"""Perplexity hangs on the rows alone: not on how they are batched, nor on whose loop it is computed in."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tunesmith.data import SourceConfig, read
from tunesmith.data.chat import ChatFormat
from tunesmith.evaluate import Likelihood
from tunesmith.evaluate.likelihood import perplexity
from tunesmith.model import load_model, open_base, this_machine
from tunesmith.model.base import EMBEDDED
from tunesmith.model.forward import segment_nll
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.records import Record, TokenBatch

BOUTIQUE = Path(__file__).parents[2] / "examples" / "boutique"
STORIES = Path(os.environ.get("TUNESMITH_SHARED") or Path(__file__).parents[3] / "shared") / "data" / "weights" / "stories260K"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_base(EMBEDDED, folder=Path(), cache=tmp_path_factory.mktemp("cache")).path


@pytest.fixture(scope="module")
def arm(base_folder: Path) -> ChatModel:
    machine = this_machine(precision="fp32")
    return ChatModel(
        ref="base",
        model=load_model(base_folder, machine=machine),
        chat=ChatFormat.load(base_folder),
        machine=machine,
        max_length=512,
    )


@pytest.fixture(scope="module")
def rows() -> list[Record]:
    """Short and long ones."""
    found = [row for row in read(SourceConfig(path="conversations.jsonl"), folder=BOUTIQUE).rows if isinstance(row, Record)]
    return sorted(found[::29], key=lambda row: row.id)[:64]


def measured(arm: ChatModel, rows: list[Record], *, size: int) -> list[Likelihood]:
    return [one for start in range(0, len(rows), size) for one in arm.likelihood(rows[start : start + size])]


def test_perplexity_is_the_same_for_every_batch_size(arm: ChatModel, rows: list[Record]) -> None:
    assert len(rows) == 64
    assert len({len(row.messages[-1].content) for row in rows}) > 20
    found = [perplexity(measured(arm, rows, size=size)) for size in (1, 3, 8, 64)]
    assert found == pytest.approx([found[0]] * 4, rel=1e-6)


def test_it_equals_a_plain_loop_over_transformers(arm: ChatModel, rows: list[Record], base_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    chat = ChatFormat.load(base_folder)
    total, count = 0.0, 0
    for row in rows:
        (rendered,) = chat.render(row)
        with torch.inference_mode():
            logits_TV = model(torch.tensor([rendered.tokens])).logits[0].double()
        logprobs_TV = logits_TV.log_softmax(-1)
        for place, (token, weight) in enumerate(zip(rendered.tokens, rendered.weights, strict=True)):
            if weight and place:
                total -= float(logprobs_TV[place - 1, token])
                count += 1
    likelihoods = measured(arm, rows, size=8)
    assert sum(one.num_tokens for one in likelihoods) == count
    assert perplexity(likelihoods) == pytest.approx(np.exp(total / count), rel=1e-6)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"the reference weights are not at {STORIES}; set TUNESMITH_SHARED")
def test_a_real_model_gives_the_reference_log_probabilities(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(STORIES / name, tmp_path / name)
    machine = this_machine(precision="fp32")
    model = load_model(tmp_path, machine=machine)
    cases = json.loads((STORIES / "reference.json").read_text())["cases"]
    assert len(cases) >= 4
    # All texts in one packed batch; the first token of each is given.
    ids = [case["ids"] for case in cases]
    flat = np.array([token for one in ids for token in one], np.int32)
    offsets = np.cumsum([0, *map(len, ids)]).astype(np.int32)
    targets = np.concatenate([[*one[1:], -100] for one in ids]).astype(np.int32)
    batch = TokenBatch(
        tokens=flat,
        targets=targets,
        weights=(targets >= 0).astype(np.float32),
        offsets=offsets,
        record_ids=tuple(map(str, range(len(ids)))),
    )
    for case, (nll, count) in zip(cases, segment_nll(model, batch, device=machine.device), strict=True):
        assert count == len(case["token_logprobs"])
        assert nll / count == pytest.approx(-sum(case["token_logprobs"]) / count, abs=1e-4)
        assert nll / count == pytest.approx(case["nll_mean"], abs=1e-4)

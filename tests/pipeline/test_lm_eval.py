"""The bridge to lm-evaluation-harness, against a fake of it that checks the documented interface, and against transformers alone.

`tests/journeys/test_lm_eval.py` holds it against the real one, where that is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from tunesmith.data.chat import ChatFormat
from tunesmith.errors import DataError, MissingExtra, ModelError, NotFound
from tunesmith.model import load_model, open_base, this_machine
from tunesmith.pipeline import lm_eval as bridge
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.pipeline.plain_text import PlainText, rolling_windows
from tunesmith.records import Report, Sample
from tunesmith.store import Store

FAKE_MODEL = """
import abc


class LM(abc.ABC):
    def __init__(self):
        self._rank, self._world_size = 0, 1

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def loglikelihood_rolling(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...
"""
FAKE = """
from lm_eval.api.model import LM

asked = []


def simple_evaluate(model, tasks=None, task_manager=None, limit=None):
    assert isinstance(model, LM)
    asked.append((tasks, limit))
    if tasks == ["no_data"]:
        raise ConnectionError("Couldn't reach the hub.\\nA second line")
    if tasks == ["no_answer"]:
        model.loglikelihood_rolling([])
        model.num_asked = 1
        raise ValueError("our fault")
    return {"results": {task: {"alias": task} for task in tasks}}
"""
FAKE_TASKS = """
class TaskManager:
    all_tasks = ["arc_easy", "arc_challenge", "no_data", "no_answer"]
"""
TEXTS = ("The children walked to school", "A bus came late, so we", "Dear Anna,")


class Request(NamedTuple):
    """What the harness calls an Instance: its `args`."""

    args: tuple[Any, ...]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "fake" / "lm_eval"
    (folder / "api").mkdir(parents=True)
    (folder / "__init__.py").write_text(FAKE)
    (folder / "api" / "__init__.py").write_text("")
    (folder / "api" / "model.py").write_text(FAKE_MODEL)
    (folder / "tasks.py").write_text(FAKE_TASKS)
    names = ("lm_eval", "lm_eval.api", "lm_eval.api.model", "lm_eval.tasks")
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    monkeypatch.syspath_prepend(str(folder.parent))
    yield
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


@pytest.fixture(scope="module")
def base() -> Path:
    return open_base("tunesmith/base", folder=Path("/"), cache=Path("/")).path


def chat_model(base: Path, *, max_length: int = 512) -> ChatModel:
    machine = this_machine()
    return ChatModel(
        ref="base",
        model=load_model(base, machine=machine),
        chat=ChatFormat.load(base),
        machine=machine,
        max_length=max_length,
        base_folder=base,
    )


@pytest.fixture(scope="module")
def plain(base: Path) -> PlainText:
    return chat_model(base).plain_text()


class Reference:
    """The base as transformers and tokenizers read it, in fp32."""

    def __init__(self, base: Path) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
        chat = ChatFormat.load(base)
        self.prefix = chat.bos_token if chat.bos_token is not None else chat.stop_tokens[0]

    def tokens(self, text: str) -> list[int]:
        """Of a text, with the token before it that a whole text is given."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [self.prefix, *ids]

    @torch.no_grad()
    def logprobs(self, tokens: list[int]) -> torch.Tensor:
        """Of each token but the first, given all before it."""
        scores = torch.log_softmax(self.model(torch.tensor([tokens])).logits[0, :-1].double(), dim=-1)
        return scores.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


@pytest.fixture(scope="module")
def reference(base: Path) -> Reference:
    return Reference(base)


@pytest.mark.usefixtures("harness")
def test_log_probabilities_are_those_of_transformers(plain: PlainText, reference: Reference) -> None:
    pairs = [(TEXTS[0], " and came home."), (TEXTS[1], " walked"), ("", "Hello"), ("Ends with a blank ", "word")]
    found = bridge.as_lm(plain).loglikelihood([Request(pair) for pair in pairs])
    for (context, continuation), (logprob, is_greedy) in zip(pairs, found, strict=True):
        whole, before = reference.tokens(context + continuation), reference.tokens(context.rstrip())
        whole, before = (whole[1:], before[1:]) if context else (whole, before)  # only after nothing does the token stand
        expected = float(reference.logprobs(whole)[len(before) - 1 :].sum())
        assert logprob == pytest.approx(expected, rel=2e-2)
        assert isinstance(is_greedy, bool)


@pytest.mark.usefixtures("harness")
def test_the_likeliest_continuation_is_called_greedy_and_another_is_not(plain: PlainText) -> None:
    (likeliest,) = plain.continue_texts([TEXTS[0]], until=[], max_new_tokens=1)
    lm = bridge.as_lm(plain)
    assert lm.loglikelihood([Request((TEXTS[0], likeliest))])[0][1]
    assert not lm.loglikelihood([Request((TEXTS[0], " zebra zebra"))])[0][1]


@pytest.mark.usefixtures("harness")
def test_whole_texts_are_scored_token_by_token(plain: PlainText, reference: Reference) -> None:
    found = bridge.as_lm(plain).loglikelihood_rolling([Request((text,)) for text in TEXTS])
    expected = [float(reference.logprobs(reference.tokens(text)).sum()) for text in TEXTS]
    assert found == pytest.approx(expected, rel=2e-2)


def test_a_text_longer_than_the_context_is_read_in_windows(base: Path, reference: Reference) -> None:
    """Every token once: window by window with the reference, 8 tokens at a time."""
    text = " ".join(TEXTS)
    tokens = reference.tokens(text)
    assert len(tokens) > 16  # two windows, and a last one with more context than it predicts
    expected = 0.0
    for context, continuation in rolling_windows(tokens[1:], prefix=tokens[0], max_length=8):
        assert len(context) + len(continuation) <= 9
        expected += float(reference.logprobs([*context, *continuation])[len(context) - 1 :].sum())
    assert chat_model(base, max_length=8).plain_text().score_whole([text]) == pytest.approx([expected], rel=2e-2)


@pytest.mark.parametrize("max_length", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("length", [1, 2, 6, 7, 8, 21])
def test_windows_predict_every_token_once_and_in_order(length: int, max_length: int) -> None:
    tokens = list(range(length))
    windows = list(rolling_windows(tokens, prefix=-1, max_length=max_length))
    assert [token for _, continuation in windows for token in continuation] == tokens
    for context, continuation in windows:
        assert context[-1] == continuation[0] - 1
        assert len(context) + len(continuation) <= max_length + 1
    if length > max_length:
        assert len(windows[-1][0]) + len(windows[-1][1]) == max_length + 1  # the last has a full context


@pytest.mark.usefixtures("harness")
def test_text_is_generated_up_to_a_stop_in_the_order_of_the_requests(plain: PlainText) -> None:
    lm = bridge.as_lm(plain)
    settings = ({"until": [], "max_gen_toks": 12}, {"until": "\n", "max_gen_toks": 4}, {"until": [], "max_gen_toks": 12})
    long, short, other = lm.generate_until([Request((text, one)) for text, one in zip(TEXTS, settings, strict=True)])
    assert lm.generate_until([Request((TEXTS[0], settings[0]))]) == [long]
    assert lm.generate_until([Request((TEXTS[2], settings[2]))]) == [other]
    assert "\n" not in short
    stop = long[5:8]
    (cut,) = lm.generate_until([Request((TEXTS[0], {"until": ["never there", stop], "max_gen_toks": 12}))])
    assert cut == long[: long.index(stop)]
    for name in ("max_new_tokens", "max_tokens", "max_completion_tokens"):  # the harness knows four names for it
        assert lm.generate_until([Request((TEXTS[0], {"until": [], name: 12}))]) == [long]
    assert lm.generate_until([Request((TEXTS[0], {**settings[0], "do_sample": False, "temperature": 0.7, "top_p": 0.9}))]) == [
        long
    ]


@pytest.mark.usefixtures("harness")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"do_sample": True, "temperature": 0.7}, "at random"),
        ({"do_sample": True}, "at random"),
        ({"temperature": 0.7}, "at random"),
        ({"num_beams": 4}, "num_beams: 4"),
        ({"repetition_penalty": 1.2}, "repetition_penalty: 1.2"),
    ],
)
def test_answers_that_are_not_plainly_greedy_are_refused(plain: PlainText, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        bridge.as_lm(plain).generate_until([Request((TEXTS[0], {"until": [], "max_gen_toks": 4, **settings}))])


def test_a_continuation_that_does_not_fit_or_is_empty_is_refused(base: Path, plain: PlainText) -> None:
    with pytest.raises(ModelError, match="longer than the model's context of 4"):
        chat_model(base, max_length=4).plain_text().score([("a", " b c d e f g h")])
    with pytest.raises(ModelError, match="no token of its own"):
        plain.score([("a", "")])
    with pytest.raises(ModelError, match="an answer of 4 tokens leaves no room for its question in the model's context of 4"):
        chat_model(base, max_length=4).plain_text().continue_texts(["a"], until=[], max_new_tokens=4)


@pytest.mark.usefixtures("harness")
def test_tasks_are_run_through_the_harness(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chat_model(base)
    monkeypatch.setattr(bridge, "open_version", lambda *_, **__: model)
    found = bridge.run_lm_eval("boutique@1", ["arc_easy"], store=Store(tmp_path / "work"), limit=3)
    assert found == {"results": {"arc_easy": {"alias": "arc_easy"}}}
    assert sys.modules["lm_eval"].asked == [(["arc_easy"], 3)]
    with pytest.raises(NotFound, match=r"no task 'arc_esy' \(did you mean arc_easy\?\), and no file"):
        bridge.run_lm_eval("boutique@1", ["arc_esy"], store=Store(tmp_path / "work"))
    with pytest.raises(DataError, match=r"cannot prepare no_data: ConnectionError: Couldn't reach the hub\. If the data"):
        bridge.run_lm_eval("boutique@1", ["no_data"], store=Store(tmp_path / "work"))
    with pytest.raises(ValueError, match="our fault"):  # once the model was asked it is not the task's data
        bridge.run_lm_eval("boutique@1", ["no_answer"], store=Store(tmp_path / "work"))


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_package_the_extra_is_named(tmp_path: Path, plain: PlainText) -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[lm-eval\]'"):
        bridge.run_lm_eval("boutique@1", ["arc_easy"], store=Store(tmp_path / "work"))
    with pytest.raises(MissingExtra):
        bridge.as_lm(plain)


def test_samples_are_written_as_the_harness_logs_its_own(tmp_path: Path) -> None:
    sample = Sample(
        record="r1",
        question="Open on Sunday?",
        reference="No.",
        answers={"base": "x", "tuned": "No, we are closed."},
        scores={"tuned": {"rougeL": 50.0}},
    )
    report = Report(id="", kind="evaluation", scores={}, samples=(sample, sample), verdict="", num_rows=2)
    path = tmp_path / "samples.jsonl"
    assert bridge.export_samples(report, path) == 2
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert [first["doc_id"], second["doc_id"]] == [0, 1]
    assert first["resps"] == [["No, we are closed."]]
    assert first["filtered_resps"] == ["No, we are closed."]
    assert first["arguments"] == {"gen_args_0": {"arg_0": "Open on Sunday?", "arg_1": {}}}
    assert (first["metrics"], first["rougeL"]) == (["rougeL"], 50.0)
    # The harness hashes documents as JSON indented by two.
    assert first["doc_hash"] == hashlib.sha256(json.dumps(first["doc"], indent=2).encode()).hexdigest()
    assert first["target_hash"] == hashlib.sha256(b"No.").hexdigest()
    assert {"doc", "target", "filter", "prompt_hash"} <= first.keys()
    assert bridge.export_samples(report, path, arm="base") == 2
    with pytest.raises(DataError, match="no answers of 'champion'"):
        bridge.export_samples(report, path, arm="champion")

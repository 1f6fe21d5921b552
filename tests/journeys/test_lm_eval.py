"""The real lm-evaluation-harness on real weights: our bridge gives what its own backend for transformers gives, without a network.

Needs the extra: pip install 'tunesmith[lm-eval]'.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'tunesmith[lm-eval]'", exc_type=ImportError)

from tunesmith.data.chat import ChatFormat
from tunesmith.errors import DataError, NotFound
from tunesmith.model import load_model, open_base, this_machine
from tunesmith.pipeline import lm_eval as bridge
from tunesmith.pipeline.chat_model import ChatModel
from tunesmith.records import Report, Sample
from tunesmith.store import Store

from .conftest import call

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the harness and its libraries warn of much
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bf16, and figures are compared in fp32"),
]

TASKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "own_choices": (
        [
            {"q": "The children walked to", "choices": ["school", "the moon", "a long and winding road"], "gold": 0},
            {"q": "A bus came late, so we ", "choices": ["walked home", "sang", "ate it"], "gold": 0},  # ends with a blank
            {"q": "", "choices": ["Hello there", "zebra zebra", "the and the"], "gold": 0},  # nothing to go on from
            {"q": "He walked on. " * 90 + "Then", "choices": ["he sat down", "zebra", "the"], "gold": 0},  # over the context
        ],
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{q}}",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
    ),
    "own_texts": (
        [{"text": text} for text in ("The children walked to school.", "Bread is made of flour. " * 60, "Grüße aus Köln, 12 €")],
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
        },
    ),
    "own_answers": (
        [
            {"q": "Q: What is two and two?\nA:", "a": "four"},
            {"q": "Once upon a time", "a": "there"},
            {"q": "He walked on. " * 90, "a": "He"},
        ],
        {
            "output_type": "generate_until",
            "doc_to_text": "{{q}}",
            "doc_to_target": "{{a}}",
            "generation_kwargs": {"until": ["\n", ". "], "max_gen_toks": 24, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    ),
}


@cache
def known_tasks(**settings: Any) -> Any:
    """All tasks of the harness; it takes seconds to find them, so that it is done once."""
    from lm_eval.tasks.manager import TaskManager

    return TaskManager(**settings)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    from lm_eval import tasks

    monkeypatch.setattr(tasks, "TaskManager", known_tasks)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write_tasks(folder: Path) -> list[str]:
    """Tasks as files of YAML (JSON is YAML), each with its rows beside it."""
    files = []
    for name, (rows, config) in TASKS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps({"task": name, "test_split": "test", **data, **config}))
        files.append(str(path))
    return files


def by_the_harness(folder: Path, tasks: list[str], *, max_length: int) -> dict[str, Any]:
    """What the harness's own backend for transformers finds."""
    from lm_eval import simple_evaluate

    known = known_tasks(include_defaults=False)
    settings = {"pretrained": str(folder), "dtype": "float32", "max_length": max_length}
    found: dict[str, Any] = simple_evaluate(
        model="hf", model_args=settings, tasks=list(tasks), task_manager=known, device="cpu", bootstrap_iters=0
    )
    return found


def base_folder() -> Path:
    return open_base("tunesmith/base", folder=Path("/"), cache=Path("/")).path


def opened(folder: Path, *, max_length: int = 256) -> ChatModel:
    machine = this_machine()
    model, chat = load_model(folder, machine=machine), ChatFormat.load(folder)
    return ChatModel(ref="base", model=model, chat=chat, machine=machine, max_length=max_length, base_folder=folder)


def with_bos(folder: Path) -> Path:
    """The base with a tokenizer that begins every text by itself, as Llama's does."""
    shutil.copytree(base_folder(), folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    bos = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    one, two = ({"Sequence": {"id": letter, "type_id": 0}} for letter in "AB")
    number = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<|im_start|>")
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, one],
        "pair": [bos, one, two],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [number], "tokens": ["<|im_start|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": "<|im_start|>"}))
    return folder


def figures(found: dict[str, Any], task: str) -> dict[str, float]:
    return {name: float(value) for name, value in found["results"][task].items() if "," in name and "stderr" not in name}


@pytest.mark.parametrize("begins", [False, True], ids=["no token begins a text", "the tokenizer begins texts"])
def test_every_figure_and_answer_is_that_of_the_harness_own_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    tasks = write_tasks(tmp_path)
    folder = with_bos(tmp_path / "bos") if begins else base_folder()
    model = opened(folder)
    assert len(model.plain_text()._chat.encode_text("a")) == (2 if begins else 1)
    monkeypatch.setattr(bridge, "open_version", lambda *_, **__: model)
    ours = bridge.run_lm_eval("base", tasks, store=Store(tmp_path / "work"))
    theirs = by_the_harness(folder, tasks, max_length=256)
    for task, (rows, _) in TASKS.items():
        assert figures(ours, task) == pytest.approx(figures(theirs, task), rel=1e-6)
        pairs = list(zip(ours["samples"][task], theirs["samples"][task], strict=True))
        assert len(pairs) == len(rows)
        for mine, its in pairs:
            assert mine["doc"] == its["doc"]
            for (got,), (expected,) in zip(mine["resps"], its["resps"], strict=True):
                if task == "own_choices":
                    assert got[0] == pytest.approx(expected[0], rel=1e-6)
                    assert got[1] == expected[1]
                elif task == "own_texts":
                    assert got == pytest.approx(expected, rel=1e-6)
                else:
                    assert got == expected
    answers = [sample["resps"][0][0] for sample in ours["samples"]["own_answers"]]
    assert any(answers)
    assert not any("\n" in answer for answer in answers)


def test_a_version_is_judged_by_a_task_of_ones_own_from_the_command_line(finished: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path)
    done = call("evaluate", "tiny@1", "--lm-eval", ",".join(tasks[:2]), "--json", workspace=finished / "work", cwd=finished)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    store = Store(finished / "work")
    weights = store.artefacts.get(store.ledger.version("tiny@1").artefact).path
    theirs = by_the_harness(weights, tasks[:2], max_length=96)
    for task in ("own_choices", "own_texts"):
        assert figures(ours, task) == pytest.approx(figures(theirs, task), rel=1e-6)
    shown = call("evaluate", "tiny@1", "--lm-eval", tasks[0], "--max-rows", "2", workspace=finished / "work", cwd=finished)
    assert shown.returncode == 0, shown.stderr
    assert "own_choices" in shown.stdout
    assert "acc,none" in shown.stdout


def test_what_cannot_be_run_is_told_in_one_sentence(finished: Path, tmp_path: Path) -> None:
    store = Store(finished / "work")
    with pytest.raises(NotFound, match=r"no task 'arc_esy' \(did you mean .*arc_easy.*\); 'qqqqqq', and no file is called so"):
        bridge.run_lm_eval("tiny@1", ["arc_esy", "qqqqqq"], store=store)
    with pytest.raises(DataError, match="names no task"):
        bridge.run_lm_eval("tiny@1", [], store=store)
    with pytest.raises(NotFound, match="nobody"):
        bridge.run_lm_eval("nobody", ["arc_easy"], store=store)
    # Its data lies on the hub, and there is no network.
    with pytest.raises(DataError, match=r"lm-eval cannot prepare arc_easy: \w+: .*fetch it once with a network"):
        bridge.run_lm_eval("tiny@1", ["arc_easy"], store=store)
    (task,) = [path for path in write_tasks(tmp_path) if "answers" in path]
    (tmp_path / "own_answers.jsonl").unlink()
    with pytest.raises(DataError, match=r"own_answers\.yaml: FileNotFoundError: .*own_answers\.jsonl"):
        bridge.run_lm_eval("tiny@1", [task], store=store)
    (tmp_path / "broken.yaml").write_text("task: [")
    with pytest.raises(DataError, match=r"lm-eval cannot prepare .*broken\.yaml"):
        bridge.run_lm_eval("tiny@1", [str(tmp_path / "broken.yaml")], store=store)


def test_exported_samples_load_beside_those_that_the_harness_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.utils import handle_non_serializable, hash_string

    model = opened(base_folder())
    monkeypatch.setattr(bridge, "open_version", lambda *_, **__: model)
    found = bridge.run_lm_eval("base", write_tasks(tmp_path)[2:], store=Store(tmp_path / "work"))
    tracker = EvaluationTracker(output_path=str(tmp_path / "logged"))
    tracker.save_results_aggregated(results=found, samples=found["samples"])
    tracker.save_results_samples(task_name="own_answers", samples=found["samples"]["own_answers"])
    (logged,) = (tmp_path / "logged").rglob("samples_own_answers_*.jsonl")
    sample = Sample(
        record="r1", question="Geöffnet?", reference="Nein.", answers={"tuned": "Ja."}, scores={"tuned": {"exact_match": 0.0}}
    )
    report = Report(id="", kind="evaluation", scores={}, samples=(sample,), verdict="", num_rows=1, subject="tuned")
    bridge.export_samples(report, tmp_path / "ours.jsonl")
    theirs, ours = (
        datasets.load_dataset("json", data_files=str(path), split="train") for path in (logged, tmp_path / "ours.jsonl")
    )
    assert set(ours.column_names) == set(theirs.column_names)
    for column in ("doc_id", "target", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"):
        assert ours.features[column] == theirs.features[column], column
    (row,) = ours
    assert row["doc_hash"] == hash_string(json.dumps(row["doc"], indent=2, default=handle_non_serializable, ensure_ascii=False))
    assert row["prompt_hash"] == hash_string(row["arguments"]["gen_args_0"]["arg_0"])
    assert row["target_hash"] == hash_string(row["target"])

"""Outside standards: a version judged by EleutherAI's lm-evaluation-harness, and our samples in its format.

The harness asks for log-probabilities of continuations, of whole texts, and for text up to a stop. A version answers all three as plain
text, without its chat template, so its figures are those of the harness's own backend for transformers, and compare with published ones.
Written for lm-eval 0.4.13. The harness may fetch a task's data from the hub.

Reference: Gao et al., "The Language Model Evaluation Harness"; the interface is `lm_eval.api.model.LM`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import DataError, MissingExtra, NotFound, TunesmithError
from tunesmith.pipeline.plain_text import PlainText
from tunesmith.pipeline.versions import open_version
from tunesmith.records import Report, Sample
from tunesmith.store import Store

__all__ = ["as_lm", "export_samples", "run_lm_eval"]

_MAX_GENERATED = 256
"""Tokens of an answer where a task does not say; the harness's own default."""
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names for it; the first that is given counts."""
_HARMLESS = {*_LIMITS, "until", "do_sample", "temperature", "top_p", "top_k"}
"""Settings that are heeded, or change no greedy answer."""


def run_lm_eval(
    ref: str, tasks: Sequence[str], *, store: Store, limit: int | None = None, is_base: bool = False
) -> dict[str, Any]:
    """Run tasks of the harness on a version.

    Args:
        ref: such as `boutique@3`.
        tasks: names that the harness knows, such as `arc_easy`, or YAML files of tasks.
        store: the workspace.
        limit: documents of each task, at most.
        is_base: judge what the version began as.

    Returns:
        What the harness returns: `results` by task, `configs`, `versions`, `samples`.

    Raises:
        MissingExtra: lm-eval is not installed.
        NotFound: there is no such version, or no such task.
        DataError: a task or its data cannot be used.
        ModelError: there is no base, or a text does not fit into the model.
    """
    require_lm_eval()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    _require_tasks(tasks, known=manager.all_tasks)
    model = open_version(ref, store=store)
    lm = as_lm((model.base() if is_base else model).plain_text())
    try:
        found: dict[str, Any] | None = simple_evaluate(model=lm, tasks=list(tasks), task_manager=manager, limit=limit)
    except TunesmithError:
        raise
    except Exception as error:
        if lm.num_asked:
            raise
        # Nothing was asked yet, so what failed is a task or its data: a file, a download, a key that no row has.
        raise DataError(
            f"lm-eval cannot prepare {', '.join(tasks)}: {type(error).__name__}: {_first_line(error)}. If the data must be fetched, "
            "fetch it once with a network (HF_HUB_OFFLINE and HF_DATASETS_OFFLINE unset)"
        ) from error
    return found or {}


def _require_tasks(tasks: Sequence[str], *, known: Sequence[str]) -> None:
    """Check the names before a model is loaded.

    Raises:
        NotFound: naming each task that there is not, with the nearest names.
        DataError: no task is named.
    """
    if not tasks:
        raise DataError("--lm-eval names no task. Name one that lm-eval knows, such as arc_easy, or a YAML file of a task")
    unknown = [task for task in tasks if task not in set(known) and not Path(task).is_file()]
    if unknown:
        said = []
        for task in unknown:
            near = get_close_matches(task, known, n=3, cutoff=0.6)
            said.append(f"{task!r}" + (f" (did you mean {', '.join(near)}?)" if near else ""))
        raise NotFound(
            f"lm-eval knows no task {'; '.join(said)}, and no file is called so. `lm-eval ls tasks` lists what it knows; a task of your "
            "own is a YAML file"
        )


def _first_line(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    return (text.splitlines() or ["no reason given"])[0].rstrip(".")


def require_lm_eval() -> None:
    """Check that the harness is there, before anything is loaded.

    Raises:
        MissingExtra: naming the package and the command that installs it.
    """
    if find_spec("lm_eval") is None:
        raise MissingExtra(
            "--lm-eval needs the package `lm-eval`, which is not installed. Install it: pip install 'tunesmith[lm-eval]'"
        )


def as_lm(model: PlainText) -> Any:
    """A model as an `lm_eval.api.model.LM`.

    Raises:
        MissingExtra: lm-eval is not installed.
    """
    require_lm_eval()
    from lm_eval.api.model import LM

    class TunesmithLM(LM):  # type: ignore[misc]
        """Answers what the harness asks."""

        num_asked = 0

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:  # noqa: ARG002
            self.num_asked += len(requests)
            return [(logprob, is_greedy) for logprob, is_greedy in model.score([request.args for request in requests])]

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
            self.num_asked += len(requests)
            return model.score_whole([request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
            self.num_asked += len(requests)
            return _generate(model, [request.args for request in requests])

    return TunesmithLM()


def export_samples(report: Report, path: Path, *, arm: str = "") -> int:
    """Write the samples of a report in the format in which the harness logs its own: one JSON object for each document.

    Args:
        report: a report with answers.
        path: where to write.
        arm: whose answers; the report's subject if empty.

    Returns:
        How many were written.

    Raises:
        DataError: the report has no answers of that arm.
    """
    name = arm or report.subject
    rows = [sample for sample in report.samples if name in sample.answers]
    if not rows:
        there = sorted({other for sample in report.samples for other in sample.answers})
        raise DataError(f"the report has no answers of {name!r}. It has those of: {', '.join(there) or 'nobody'}")
    lines = [orjson.dumps(_sample(at, row, arm=name), option=orjson.OPT_APPEND_NEWLINE) for at, row in enumerate(rows)]
    path.write_bytes(b"".join(lines))
    return len(rows)


def _generate(model: PlainText, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Requests that want the same settings go together."""
    found: dict[int, str] = {}
    for settings, places in _alike([settings for _, settings in asked]):
        until, most = settings
        answers = model.continue_texts([asked[at][0] for at in places], until=until, max_new_tokens=most)
        found.update(zip(places, answers, strict=True))
    return [found[at] for at in range(len(asked))]


def _alike(given: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[tuple[str, ...], int], list[int]]]:
    groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for at, settings in enumerate(given):
        _require_greedy(settings)
        until = settings.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        most = next((settings[name] for name in _LIMITS if settings.get(name) is not None), _MAX_GENERATED)
        groups.setdefault((stops, int(most)), []).append(at)
    yield from groups.items()


def _require_greedy(settings: Mapping[str, Any]) -> None:
    """The harness draws where `do_sample` is set, and where it is left out and there is a temperature."""
    draws, temperature = settings.get("do_sample"), float(settings.get("temperature") or 0.0)
    if (draws and settings.get("temperature") is None) or (draws is not False and temperature > 0):
        raise DataError("this task draws its answers at random (do_sample, temperature), and only greedy answers are given here")
    others = [
        f"{name}: {value}" for name, value in settings.items() if name not in _HARMLESS and (name, value) != ("num_beams", 1)
    ]
    if others:
        raise DataError(
            f"this task wants answers generated with {', '.join(others)}, and only plain greedy answers are given here"
        )


def _sample(at: int, row: Sample, *, arm: str) -> dict[str, Any]:
    doc = {"record": row.record, "question": row.question, "reference": row.reference}
    scores = row.scores.get(arm, {})
    answer = row.answers[arm]
    return {
        "doc_id": at,
        "doc": doc,
        "target": row.reference,
        "arguments": {"gen_args_0": {"arg_0": row.question, "arg_1": {}}},
        "resps": [[answer]],
        "filtered_resps": [answer],
        "filter": "none",
        "metrics": list(scores),
        "doc_hash": _hash(orjson.dumps(doc, option=orjson.OPT_INDENT_2)),
        "prompt_hash": _hash(row.question.encode()),
        "target_hash": _hash(row.reference.encode()),
        **scores,
    }


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

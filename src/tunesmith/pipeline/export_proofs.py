"""The proofs of an export: a process of its own, in which nothing of tunesmith is loaded, reads what was written.

It gets token ids and log-likelihoods as the library has them, and answers how far apart it finds the export (`model/export_proof.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import orjson

from tunesmith.errors import TunesmithError
from tunesmith.records import Message, Proof, Record, Role

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat

__all__ = ["ANSWERS", "Probes", "gather_probes", "prove_export"]

ANSWERS = {"adapter": 1e-4, "onnx": 1e-3, "f32": 1e-4, "f16": 0.005, "bf16": 0.05, "q8_0": 0.05}
"""How far the log-likelihoods of tokens may be from the library's in fp32, in nats: the worst of them where nothing is rounded, the mean
where one rounding moves them all (docs/design/exports.md has what it does to the embedded base)."""
_ROUNDED = frozenset({"f16", "bf16", "q8_0"})
_SAME_WEIGHTS = 1e-3
"""Share of weights that may end on the neighbouring number: sums in another order tip a few over the edge."""
_SAME_SUMS = 1e-6
"""The same for fp32, as a share of a tensor's largest weight."""
_MOVED = 1e-4
"""An adapter must move some token's log-likelihood by so many nats."""
_MOST_CHATS, _MOST_ROWS, _MOST_TOKENS = 24, 24, 192

_TEXTS = (
    "What does it cost?",
    "It's 12,345.67 euros, they'VE said; we'll pay 2026-11-28 at 7:05.",
    "  two blanks,\ttab,\n\n\nthree lines   and a tail  ",
    "café cafe\u0301 naïve Zoe\u0308 nin\u0303o हिन्दी ไทย",
    "ΑΒΓ αβγ, Привет, שלום, مرحبا, 你好，世界！日本語テキスト 한국어",
    "🙂👩‍👩‍👧‍👦 ✓ ½ ² Ⅷ ١٢٣",
    "def f(x):\r\n    return x**2  # <b>&amp;</b> {{ 'x' }} {% if y %}",
    "----====....!!!!????''''\"\"\"\"",
)
"""Texts on which tokenizers differ when they differ at all: numbers, apostrophes, blanks, marks on letters, scripts, code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What an export is asked."""

    chats: tuple[tuple[tuple[Message, ...], tuple[int, ...]], ...]
    """Messages up to the answer that is wanted, and the ids that training and serving give them."""
    rows: tuple[tuple[int, ...], ...]
    """Token ids whose likelihood is asked."""


def gather_probes(chat: ChatFormat, *, records: Sequence[Record], rows: Sequence[Sequence[int]], context: int) -> Probes:
    """Conversations and token rows: those of the version, and texts on which tokenizers differ.

    Args:
        chat: the version's tokenizer and template.
        records: rows that the version was trained on; none for a base.
        rows: token ids whose likelihood was kept when training ended.
        context: longest row that the model reads.
    """
    prompts = [*([Message(role=Role.USER, content=text)] for text in _TEXTS), *_prompts(records, chat=chat)]
    chats = tuple((tuple(messages), tuple(chat.encode_prompt(messages))) for messages in prompts[:_MOST_CHATS])
    cut = min(_MOST_TOKENS, context)
    wanted = [*rows, *(ids for _, ids in chats)]
    return Probes(chats=chats, rows=tuple(tuple(row[:cut]) for row in wanted if len(row) > 1)[:_MOST_ROWS])


def _prompts(records: Sequence[Record], *, chat: ChatFormat) -> Iterator[list[Message]]:
    """Each record's messages before its last answer.

    Other tools take a control token's name in a text for the token, so such rows are left out; those with tools are too, because
    tools have many spellings.
    """

    def is_plain(record: Record) -> bool:
        texts = [message.content for message in record.messages]
        return not record.tools and not any(name in text for name in chat.control_tokens for text in texts)

    for record in islice(filter(is_plain, records), _MOST_CHATS):
        messages = list(record.messages)
        while messages and messages[-1].role != Role.USER:
            messages.pop()
        if messages and all(message.role in {Role.SYSTEM, Role.USER, Role.ASSISTANT} for message in messages):
            yield messages


def prove_export(task: Mapping[str, Any], *, probes: Probes, log_likelihoods: Sequence[Sequence[float]]) -> list[Proof]:
    """Ask a fresh process about an export.

    Args:
        task: `to`, `type`, `export` (folder), `file`, `version` and `base` (folders), `is_adapter`, and for GGUF `template` and `named`.
        probes: what is asked.
        log_likelihoods: what the library says of `probes.rows`, in fp32.

    Raises:
        TunesmithError: the process ended without an answer.
    """
    asked = dict(task) | {
        "chats": [{"messages": [_plain(message) for message in messages], "ids": ids} for messages, ids in probes.chats],
        "rows": probes.rows,
        "log_likelihoods": log_likelihoods,
        "day": [2024, 7, 26],  # the one of `data.template`
        "num_threads": max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
    }
    found = _ask(asked)
    if found["imports"]["tunesmith"]:
        raise TunesmithError(f"the process that proves an export has loaded {found['imports']['tunesmith'][0]}")
    kind = task["to"] if task["to"] in ANSWERS else task["type"]
    proofs = [_tokens(found["tokens"]), _answers(found["answers"], kind=kind)]
    if "moved" in found["answers"]:
        proofs.append(_moved(found["answers"]))
    if "weights" in found:
        proofs.append(_weights(found["weights"], kind=task["type"]))
    if "header" in found:
        proofs.append(_header(found["header"]))
    return proofs


def _plain(message: Message) -> dict[str, str]:
    return {"role": str(message.role), "content": message.content}


def _ask(task: Mapping[str, Any]) -> dict[str, Any]:
    script = Path(__file__).parents[1] / "model" / "export_proof.py"
    with TemporaryDirectory(prefix="tunesmith-export-") as folder:
        (Path(folder) / "task.json").write_bytes(orjson.dumps(task))
        with subprocess.Popen(  # noqa: S603  our own file, in our own interpreter; -P keeps its folder off the path
            [sys.executable, "-P", str(script), folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        ) as process:
            try:
                _, said = process.communicate()
            finally:
                process.kill()
        answer = Path(folder) / "answer.json"
        if process.returncode or not answer.is_file():
            raise TunesmithError(
                f"nothing is proved: the process that reads the export failed: {said.decode(errors='replace').strip()[-400:]}"
            )
        found: dict[str, Any] = orjson.loads(answer.read_bytes())
        return found


def _tokens(found: Mapping[str, Any]) -> Proof:
    return _proof(
        found,
        name="exported tokens = training tokens",
        meaning="Whoever reads the export makes the same token ids of a conversation as training did.",
        compared="{num} conversations through the exported tokenizer and template; {wrong} become other ids",
        figure=found.get("wrong"),
        tolerance=0.0,
    )


def _answers(found: Mapping[str, Any], *, kind: str) -> Proof:
    return _proof(
        found,
        name="exported = library",
        meaning="Read by other tools, the export finds every probe as likely as the version itself does.",
        compared="log-likelihoods of {num} tokens, against the version in fp32: at most {max:.1e} nats apart, {mean:.1e} on average",
        figure=found.get("mean" if kind in _ROUNDED else "max"),
        tolerance=ANSWERS[kind],
    )


def _moved(found: Mapping[str, Any]) -> Proof:
    return _proof(
        found,
        name="adapter ≠ base",
        meaning="The adapter is in use: without it the model says something else.",
        compared="log-likelihoods of {num} tokens with the adapter and without",
        figure=found.get("moved"),
        tolerance=_MOVED,
        is_least=True,
    )


def _weights(found: Mapping[str, Any], *, kind: str) -> Proof:
    if kind == "f32":
        figure, tolerance = found.get("apart"), _SAME_SUMS
        compared = "every weight, against PEFT's own merge or the version's file, as a share of its tensor's largest"
    else:
        share = found["different"] / max(found["num"], 1) if "num" in found else None
        figure, tolerance = (1.0 if found.get("beyond") else share), _SAME_WEIGHTS
        compared = (
            "{num:,} weights, against PEFT's own merge or the version's file rounded once: {different:,} are the neighbouring "
        )
        compared += "number, {beyond:,} another"
    return _proof(
        found,
        name="weights = the version's, rounded once",
        meaning="The file holds what was trained, and nothing was rounded on the way there.",
        compared=compared,
        figure=figure,
        tolerance=tolerance,
    )


def _header(found: Mapping[str, Any]) -> Proof:
    names = ", ".join(found.get("names", ()))
    return _proof(
        found,
        name="stated shape = the model's",
        meaning="What the file says of layers, heads, positions, special tokens and template is what the model has.",
        compared="{num} entries; {wrong} differ" + (f": {names}" if names else ""),
        figure=found.get("wrong"),
        tolerance=0.0,
    )


def _proof(
    found: Mapping[str, Any],
    *,
    name: str,
    meaning: str,
    compared: str,
    figure: float | None,
    tolerance: float,
    is_least: bool = False,
) -> Proof:
    """Nothing measured, or no number, is a proof that fails."""
    if "error" in found or figure is None or figure != figure:  # noqa: PLR0124  NaN
        reason = found.get("error", "no number came of it")
        return Proof(name=name, meaning=meaning, compared=f"it could not be compared: {reason}", holds=False, tolerance=tolerance)
    return Proof(
        name=name,
        meaning=meaning,
        compared=compared.format(**found),
        figure=float(figure),
        tolerance=tolerance,
        holds=figure >= tolerance if is_least else figure <= tolerance,
        rule="at least" if is_least else "at most",
    )

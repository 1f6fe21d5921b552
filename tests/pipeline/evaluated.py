"""A report with everything in it: several arms, slices, labels, certainty, contamination; and text of any kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.evaluate import EvaluateConfig, Likelihood, evaluate
from tunesmith.records import Message, Record, Report, Role, Source

WORDS = [
    "we",
    "open",
    "at",
    "nine",
    "in",
    "the",
    "morning",
    "and",
    "close",
    "at",
    "six",
    "in",
    "the",
    "evening",
    "every",
    "day",
    "but",
    "Sunday",
    "when",
    "the",
    "shop",
    "is",
    "shut",
]


@dataclass
class Scripted:
    """Answers by a function of the row's number and its reference."""

    answer: Callable[[int, str], str]
    nll: Callable[[int], float]
    references: Sequence[str]

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        numbers = [int(conversation[-1].content.split()[1].strip("?")) for conversation in conversations]
        return [self.answer(number, self.references[number]) for number in numbers]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        return [Likelihood(self.nll(record.source.line), 8, 40) for record in records]


def report_of(
    num_rows: int = 48,
    *,
    text: str = "",
    reference: Callable[[int], str] | None = None,
    metrics: Sequence[str] = ("perplexity", "rouge", "bleu", "facts"),
    details: dict[str, Any] | None = None,
    answer: Callable[[int, str], str] | None = None,
) -> Report:
    """A report on made-up rows: the base answers with half of the reference, the tuned model mostly with all of it.

    Args:
        num_rows: test rows.
        text: stands in every question, reference and answer, and in names of domains.
        reference: of each row; by default some words of one sentence.
        metrics: what is measured.
        details: kept in the report.
        answer: of the tuned model, in place of the usual one.
    """
    draw = random.Random(0)
    chosen = [reference(i) if reference else " ".join([*draw.sample(WORDS, 4 + i % 9), text]).strip() for i in range(num_rows)]
    records = [
        Record(
            id=f"r{i}",
            source=Source(path="x", line=i),
            messages=(
                Message(role=Role.USER, content=f"Question {i}? {text}".strip()),
                Message(role=Role.ASSISTANT, content=chosen[i]),
            ),
            domain=f"hours {text}".strip() if i % 2 else "prices",
            tags={"states": chosen[i].split()[0]},
        )
        for i in range(num_rows)
    ]

    def half(number: int, whole: str) -> str:
        return " ".join([*whole.split()[: len(whole.split()) // 2], "perhaps"])

    def tuned(number: int, whole: str) -> str:
        return "no idea at all" if number % 8 == 3 else whole

    arms = {
        "base": Scripted(half, lambda line: 9.0 + line % 3, chosen),
        "base+few_shot": Scripted(lambda i, whole: whole if i % 2 else "", lambda line: 8.0 + line % 5, chosen),
        "tuned": Scripted(answer or tuned, lambda line: 3.0 + line % 4, chosen),
    }
    config = EvaluateConfig.model_validate({"metrics": metrics})
    return evaluate(records, arms=arms, config=config, details=details or {})


DETAILS: dict[str, Any] = {
    "arms": {
        "base": {"num_requests": 48, "prompt_tokens": 21.5, "answer_tokens": 14.0, "seconds": 0.213, "cost": None},
        "base+few_shot": {"prompt_tokens": 250.5, "answer_tokens": 12.0, "seconds": 0.5, "break_even_requests": 4200},
        "tuned": {"num_requests": 48, "prompt_tokens": 21.5, "answer_tokens": 9.0, "seconds": 0.142, "cost": None},
    },
    "prompting": {
        "arm": "base+few_shot",
        "metric": "perplexity",
        "value": 3.46,
        "subject": 1.76,
        "difference": {"value": -1.7, "low": -1.9, "high": -1.5, "p_value": 0.0004, "detectable": 0.3},
    },
    "reliability": {"tuned": [[0.25, 0.2, 5], [0.55, 0.7, 20], [0.95, 0.91, 23]]},
    "contamination": {
        "summary": "3 of 51 test rows ask nearly what a training row asks (similarity from 0.7), and were left out.",
        "near": 3,
        "rows": 51,
        "likeness": 0.7,
        "examples": [{"test": "a.jsonl:7", "asks": "When?", "train": "b.jsonl:1", "near it": "When is it?"}],
    },
    "left_out": {"seen by shop@1 in training": 3},
    "safety": {"forgetting": {"before": 1.31, "after": 1.34}, "verdict": "general text slightly worse"},
    "reproduce": {
        "command": "tunesmith evaluate shop@2",
        "models": {"base": "ab12", "tuned": "cd34"},
        "versions": {"numpy": "2.4.1"},
    },
}
"""As other rooms fill them in."""

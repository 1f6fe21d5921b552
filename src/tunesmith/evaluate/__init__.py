"""Answers and likelihoods in, a report out: figures with intervals over clusters, and one honest verdict. Knows no torch.

An arm is two functions, so a model of ours, of another's, or behind an HTTP endpoint is judged alike. A metric is one
callable (`Metric`) that gives sums for each row; intervals and paired differences follow from the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith._lazy import lazy_exports

if TYPE_CHECKING:
    from tunesmith.evaluate.arms import Answering, Arm, Likelihood, Usage
    from tunesmith.evaluate.codec import from_json, to_json
    from tunesmith.evaluate.config import EvaluateConfig
    from tunesmith.evaluate.metric import Metric, Outcome, Statistics
    from tunesmith.evaluate.reading import table
    from tunesmith.evaluate.remote_chat import Part, RemoteChat
    from tunesmith.evaluate.report import evaluate
    from tunesmith.evaluate.verdict import is_better

__all__ = [
    "Answering",
    "Arm",
    "EvaluateConfig",
    "Likelihood",
    "Metric",
    "Outcome",
    "Part",
    "RemoteChat",
    "Statistics",
    "Usage",
    "evaluate",
    "from_json",
    "is_better",
    "table",
    "to_json",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Answering": "arms",
        "Arm": "arms",
        "EvaluateConfig": "config",
        "Likelihood": "arms",
        "Metric": "metric",
        "Outcome": "metric",
        "Part": "remote_chat",
        "RemoteChat": "remote_chat",
        "Statistics": "metric",
        "Usage": "arms",
        "evaluate": "report",
        "from_json": "codec",
        "is_better": "verdict",
        "table": "reading",
        "to_json": "codec",
    },
)

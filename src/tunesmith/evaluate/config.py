"""What to measure, and on how many rows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["EvaluateConfig", "MetricName"]

MetricName = Literal["perplexity", "rouge", "bleu", "chrf", "ter", "squad", "classification", "diversity", "facts", "grounding"]


class EvaluateConfig(BaseModel):
    """How a model is judged on the untouched test rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metrics: tuple[MetricName, ...] = Field(default=("perplexity", "rouge", "bleu", "facts"), min_length=1)
    """What is measured. `perplexity` needs no generated answer; `facts` counts only rows with a `states` tag; `squad` is exact match and
    F1 of short answers, `classification` accuracy, precision, recall and F1 of labels."""

    max_rows: int = Field(default=200, ge=1)
    """Rows, at most, for which answers are generated. Generating is slow; likelihoods are measured on every row."""

    max_new_tokens: int = Field(default=128, ge=1)
    """Tokens, at most, of one generated answer."""

    seed: int = Field(default=0, ge=0)
    """Seed of the resampling behind every interval and p value."""

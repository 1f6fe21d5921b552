"""What to measure, and on how many rows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["EvaluateConfig", "MetricName", "SafetyConfig"]

MetricName = Literal["perplexity", "rouge", "bleu", "chrf", "ter", "squad", "classification", "diversity", "facts", "grounding"]


class SafetyConfig(BaseModel):
    """What a fine-tune may not do to the model it began as."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_forgetting: float | None = Field(default=None, ge=0)
    """Percent by which bits per byte of general text may rise before the version is not promoted. null: it is only told."""

    min_words: int = Field(default=12, ge=4)
    """Words in a row, from a training answer, that make an answer verbatim."""

    min_characters: int = Field(default=60, ge=16)
    """Characters in a row that do so too, however few words they are."""


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

    must_not_break: str | None = None
    """A file of prompts, relative to the recipe's folder, that the base answers well and the new version must too: rows with `messages`
    and an answer, or key phrases in `states`."""

    safety: SafetyConfig = SafetyConfig()
    """What is told of forgetting and of verbatim answers, and what stands against promotion."""

"""What to measure, on how many rows, and which prompts and other models stand beside the tuned one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["ArmName", "CostConfig", "EndpointConfig", "EvaluateConfig", "MetricName", "SafetyConfig", "SearchConfig"]

MetricName = Literal["perplexity", "rouge", "bleu", "chrf", "ter", "squad", "classification", "diversity", "facts", "grounding"]
ArmName = Literal["zero_shot", "few_shot", "instruction", "soft_prompt", "tuned_few_shot"]
_SEARCHED = {"few_shot", "instruction", "tuned_few_shot"}


class EndpointConfig(BaseModel):
    """Another model, asked the same questions over OpenAI's chat API. The test questions are sent to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")
    """What the table calls it: letters, digits and `._:/-`."""

    url: str = Field(pattern=r"^https?://[^\s]+$")
    """Where it answers, such as `http://127.0.0.1:8000/v1`; `/chat/completions` is added."""

    model: str = Field(min_length=1)
    """The model's name there."""

    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key. The key itself is never written down."""

    price_in: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a million tokens of prompt, in any currency, the same for all."""

    price_out: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a million tokens of answer."""

    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds to wait for one answer before it is asked for again."""

    keep_h: float = Field(default=168.0, ge=0, allow_inf_nan=False)
    """Hours for which an answer is kept and the same question is not asked, and paid for, again; 0 asks always."""


class CostConfig(BaseModel):
    """What our own models cost. Without prices the table counts tokens and seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    price_in: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a million tokens of prompt."""

    price_out: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a million tokens of answer."""

    training: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of the training. Left out, what it has to earn back is its seconds."""


class SearchConfig(BaseModel):
    """How the prompts of the arms are chosen, on validation rows alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rows: int = Field(default=24, ge=8)
    """Validation rows, at most, on which the number of examples and the instruction are chosen."""

    answers: int = Field(default=480, ge=8)
    """Answers, at most, that the search for an instruction may ask for."""


def _without_search(config: EvaluateConfig) -> str | None:
    return None if _SEARCHED & set(config.arms) else "evaluate.arms has no arm with a prompt"


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

    own_metrics: tuple[Annotated[str, Field(pattern=r"^.+:[A-Za-z_]\w*$")], ...] = ()
    """Functions of your own, as `FILE.py:FUNCTION`: from an answer and its references to a number, higher being better. The file is run."""

    max_rows: int = Field(default=200, ge=1)
    """Rows, at most, for which answers are generated. Generating is slow; likelihoods are measured on every row."""

    max_new_tokens: int = Field(default=128, ge=1)
    """Tokens, at most, of one generated answer."""

    seed: int = Field(default=0, ge=0)
    """Seed of the resampling behind every interval and p value."""

    arms: tuple[ArmName, ...] = ("zero_shot", "few_shot")
    """What stands beside the tuned model: the base as it is (always there), with the nearest training rows as examples in its prompt,
    with an instruction searched for, with a soft prompt (20 learned vectors, which are trained on the same rows first); and the tuned
    model with examples."""

    endpoints: tuple[EndpointConfig, ...] = ()
    """Other models behind OpenAI's chat API, to be asked the same questions."""

    facts: str | None = Field(default=None, min_length=1)
    """A fact sheet, for the metric `grounding` and for the arm `instruction`."""

    prompt: str | None = Field(default=None, min_length=1)
    """A Jinja file that lays out the prompts of the arms. Left out: instruction, examples and question, each as a message."""

    search: SearchConfig = SearchConfig()
    """How much the choice of examples and instruction may take."""

    costs: CostConfig = CostConfig()
    """What our own models cost, for the requests after which the training has paid for itself."""

    must_not_break: str | None = None
    """A file of prompts, relative to the recipe's folder, that the base answers well and the new version must too: rows with `messages`
    and an answer, or key phrases in `states`."""

    safety: SafetyConfig = SafetyConfig()
    """What is told of forgetting and of verbatim answers, and what stands against promotion."""

    IRRELEVANT: ClassVar[Mapping[str, Callable[[EvaluateConfig], str | None]]] = {
        "facts": lambda config: (
            None
            if "grounding" in config.metrics or "instruction" in config.arms
            else "evaluate.metrics has no `grounding` and evaluate.arms no `instruction`"
        ),
        "prompt": _without_search,
        "search": _without_search,
        "search.answers": lambda config: None if "instruction" in config.arms else "evaluate.arms has no `instruction`",
    }

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluateConfig:
        names = [endpoint.name for endpoint in self.endpoints]
        taken = {"base", "tuned", "champion"}
        wrong = next((name for place, name in enumerate(names) if name in taken or name in names[:place]), None)
        if wrong is not None:
            raise ValueError(f"two arms are called {wrong!r}. Give each endpoint a name of its own")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError("evaluate.arms names an arm twice")
        return self

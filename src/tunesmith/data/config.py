"""What a recipe says about data. Reading a recipe needs nothing heavier than pydantic."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tunesmith.data.clean_config import CleanStep, StepName

__all__ = ["MAPPABLE", "Compared", "DataConfig", "FormatName", "MixConfig", "Overlong", "SourceConfig", "SplitConfig"]

FormatName = Literal[
    "auto",
    "tunesmith",
    "messages",
    "sharegpt",
    "dialogue",
    "preference",
    "choices",
    "alpaca",
    "prompt_completion",
    "tree",
    "instances",
    "questions",
    "text_label",
    "text",
]

MAPPABLE = (
    *("messages", "tools", "chosen", "rejected", "prompt", "completion", "question", "answer", "context"),
    *("instruction", "input", "output", "history", "system", "query", "choices", "gold", "text", "label"),
    *("questions", "instances"),
    *("domain", "group", "licence", "tags"),
)
"""Names that a mapping may give to a row's own keys."""

Compared = Literal["questions", "rows"]
Overlong = Literal["error", "drop", "left", "right", "split"]

_Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SourceConfig(_Config):
    """One file, or the files that a pattern, a folder, an archive or a URL holds."""

    path: Annotated[str, Field(min_length=1)]
    """File, folder, or pattern such as `chats/*.jsonl`, relative to the recipe's folder; an fsspec URL; or a data set of the hub,
    `hf://owner/name`, with `@revision` or `/split` behind it. Known: .jsonl .ndjson .json .csv .tsv .parquet .txt .md .html .pdf
    .docx, each also with .gz, .zst or .zip. HTML, PDF and Word need the extra `docs-in`."""

    format: FormatName = "auto"
    """Layout of a row. `auto` looks at the first 200 rows and says what it found. A row of `tree`, `instances` or `questions` gives
    several records, of one group."""

    map: dict[str, str] = {}
    """Which of a row's keys are which, where their names do not say: `{question: q, answer: a}`. Other keys are then not read."""

    roles: dict[str, str] = {}
    """Which speakers have which role: `{Bot: assistant}`."""

    where: dict[str, str | int | bool | tuple[str | int | bool, ...]] = {}
    """Rows to read, by the values of their own keys: `{split: train}`, or `{lang: [en, de]}` for one of several. Others are counted and
    left out."""

    instruction: Annotated[str, Field(max_length=10_000)] = ""
    """What is asked of every row, put before its first question: `Translate into French:`. Rows are compared without it."""

    encoding: str | None = None
    """Encoding of text files, such as `cp1252`. None: told from each file's bytes."""

    domain: str = ""
    """Domain of the rows, for a split in which each domain gets its share; a row's own `domain` goes first."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Rows to keep at most: a sample by content, the same on every machine. None: all."""

    licence: str = ""
    """Licence of the rows, kept with each; a row's own `licence` goes first."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How much of the source an epoch holds: 2 reads it twice, 0.5 half of it; its share when data.mix.by is `ratio`."""

    split: Literal["train", "validation", "test"] | None = None
    """Where all the rows of the source go, as those of a file that was put aside as test. None: they are divided as data.split says."""

    group_by: str | None = None
    """Key or column that names a row's group; a group is never divided between splits. None: the key `group`, if there is one."""

    @field_validator("map")
    @classmethod
    def _maps_to_known_names(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = [name for name in value if name not in MAPPABLE]
        if unknown:
            raise ValueError(f"`{unknown[0]}` is not a name that a mapping gives. Known: {', '.join(MAPPABLE)}")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known_encoding(cls, value: str | None) -> str | None:
        try:
            b"text".decode(value or "utf-8", "replace")
            return value and codecs.lookup(value).name
        except (LookupError, UnicodeError) as error:
            raise ValueError(f"`{value}` is no encoding that Python knows, such as utf-8, cp1252 or shift_jis") from error


class MixConfig(_Config):
    """How much of each source an epoch holds. Amounts are tokens of the training split."""

    by: Literal["proportional", "temperature", "ratio"] = "proportional"
    """`proportional`: every source whole, times its weight. `temperature`: small sources get more than their share, see there. `ratio`:
    shares as the weights say. The last two fill an epoch of as many tokens as all the sources have."""

    temperature: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """A source of n tokens gets a share of n^(1/temperature): 1 is proportional, a high one gives all alike."""

    max_epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Times, in the whole run, that a source may be read at most. What this takes from one source is not made up from others. null: no
    bound; how often each is read is always shown."""

    IRRELEVANT: ClassVar[Mapping[str, Callable[[MixConfig], str | None]]] = {
        "temperature": lambda config: None if config.by == "temperature" else f"data.mix.by is `{config.by}`",
    }


class SplitConfig(_Config):
    """Which share of the rows is held out."""

    validation: _Share = 0.1
    """Share of rows from 0 to below 1, to choose the best step. 0: no such split."""

    test: _Share = 0.1
    """Share of rows from 0 to below 1, for the report alone. 0: no such split."""

    near_duplicates: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = 0.7
    """Jaccard similarity of character 5-grams, above 0 and up to 1, from which rows stay on one side. None: they are not looked
    for."""

    compare: Compared = "questions"
    """What of two rows is compared: what they ask (a text as a whole), or also all that they say. Rows with one answer and
    different questions stay together only with `rows`."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation and test take {self.validation + self.test:g} of the rows; together they must be below 1"
            )
        return self


class DataConfig(_Config):
    """From files to a frozen snapshot."""

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """Where the rows come from, in order: of two equal rows the first is kept."""

    clean: tuple[StepName | CleanStep, ...] = ("exact_duplicates",)
    """Cleaning steps, in order: each a name, or a name with its settings."""

    split: SplitConfig = SplitConfig()
    """Held-out shares."""

    mix: MixConfig = MixConfig()
    """How much of each source an epoch of training holds."""

    learn: Literal["answers", "everything"] = "answers"
    """What of a conversation is learned: the assistant's turns, or every token, as when a model is made from scratch. Plain text
    is always learned whole."""

    overlong: Overlong = "error"
    """What becomes of a conversation longer than train.max_length. `right` and `left` cut there, `split` makes several sequences, `drop`
    leaves it out; `error` cuts on the right, and refuses where more than 1 % of the supervised tokens would be lost. A longer text is
    always split."""

    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of rows, from 0 to 1, that may be unreadable or unusable before the job is refused. Duplicates do not count. A file of a
    folder or archive that cannot be read at all refuses the job below 1, for nobody knows how many rows it holds; leave it out by a
    pattern, or set 1."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of the split; whole number from 0."""

    @model_validator(mode="after")
    def _reads_every_weight(self) -> Self:
        weighted = [at for at, source in enumerate(self.sources) if "weight" in source.model_fields_set]
        if weighted and self.mix.by == "temperature":
            raise ValueError(
                f"sources[{weighted[0]}].weight is set, but mix.by is `temperature`, which reads no weights. Take the weight out, or "
                "set data.mix.by to `ratio` or `proportional`"
            )
        return self

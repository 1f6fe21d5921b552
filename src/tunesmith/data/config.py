"""What a recipe says about data. Reading a recipe needs nothing heavier than pydantic."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["MAPPABLE", "DataConfig", "FormatName", "SourceConfig", "SplitConfig"]

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
    "text_label",
    "text",
]

MAPPABLE = (
    *("messages", "tools", "chosen", "rejected", "prompt", "completion", "question", "answer", "context"),
    *("instruction", "input", "output", "history", "system", "query", "choices", "gold", "text", "label"),
    *("domain", "group", "licence", "tags"),
)
"""Names that a mapping may give to a row's own keys."""

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
    """Layout of a row. `auto` looks at the first 200 rows and says what it found."""

    map: dict[str, str] = {}
    """Which of a row's keys are which, where their names do not say: `{question: q, answer: a}`. Other keys are then not read."""

    roles: dict[str, str] = {}
    """Which speakers have which role: `{Bot: assistant}`."""

    encoding: str | None = None
    """Encoding of text files, such as `cp1252`. None: told from each file's bytes."""

    domain: str = ""
    """Domain of the rows, for a split in which each domain gets its share; a row's own `domain` goes first."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Rows to keep at most: a sample by content, the same on every machine. None: all."""

    licence: str = ""
    """Licence of the rows, kept with each; a row's own `licence` goes first."""

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


class SplitConfig(_Config):
    """Which share of the rows is held out."""

    validation: _Share = 0.1
    """Share of rows from 0 to below 1, to choose the best step. 0: no such split."""

    test: _Share = 0.1
    """Share of rows from 0 to below 1, for the report alone. 0: no such split."""

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

    clean: tuple[Literal["exact_duplicates"], ...] = ("exact_duplicates",)
    """Cleaning steps, in order."""

    split: SplitConfig = SplitConfig()
    """Held-out shares."""

    learn: Literal["answers", "everything"] = "answers"
    """What of a conversation is learned: the assistant's turns, or every token, as when a model is made from scratch. Plain text
    is always learned whole."""

    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of rows, from 0 to 1, that may be unreadable or unusable before the job is refused. Duplicates do not count."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of the split; whole number from 0."""

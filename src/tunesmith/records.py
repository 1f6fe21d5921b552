"""The nouns of tunesmith: frozen values that rooms hand to each other.

No behaviour lives here beyond properties. Ids are content hashes (hex sha256) made by the room that makes the value.
One direction: files -> Record -> Snapshot -> TokenBatch -> Run + ModelVersion -> Report -> Deployment -> Interaction -> Feedback;
only ids point backwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "CurvePoint",
    "Deployment",
    "Dropped",
    "Feedback",
    "FeedbackKind",
    "FeedbackSource",
    "Interaction",
    "Leakage",
    "Message",
    "ModelVersion",
    "Proof",
    "Record",
    "Report",
    "Role",
    "Run",
    "RunState",
    "Sample",
    "Score",
    "Slice",
    "Snapshot",
    "Source",
    "SourceCount",
    "TokenBatch",
]


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `weight` scales the loss of an assistant turn; 0 means it is context only."""

    role: Role
    content: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a row came from. `line` counts from 1; in CSV it is the line on which the row starts."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One training row: either `messages` (a conversation) or `text` (plain text), never both.

    A preference pair's `messages` end with the chosen answer, and `rejected` is what might have stood in its place. `label` is the class of
    a text, or the verdict on an answer. `tools` is the JSON list of the tools offered, in OpenAI's spelling (`data.tools`); "" is none. The
    first question begins with `instruction`, its source's; rows are compared without it. `id` is the hash of the content alone
    (`data.read.content_digest`), so two rows with equal content are exact duplicates and share it. `group` names rows that must stay on one
    side of a split (None: it is its own). `cluster` names the rows that did, once they are split: they are not independent. `origin` is the
    number of the recipe's source that the row was read from: two sources may name one file.
    """

    id: str
    source: Source
    messages: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    text: str | None = None
    label: str | None = None
    tools: str = ""
    instruction: str = ""
    domain: str = ""
    group: str | None = None
    cluster: str = ""
    origin: int = 0
    licence: str = ""
    parents: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A row that will not be trained on, and why. `raw` is the offending line or a shortened form of the record."""

    source: Source
    reason: str
    detail: str
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """How many held-out rows have a near-duplicate among the training rows."""

    likeness: float
    """Jaccard similarity of character 5-grams from which a row counts."""
    num_rows: int
    """Rows held out."""
    num_random: int
    """What a random split with the same shares would have let through."""
    num_left: int
    """What this split lets through."""
    reason: str = ""
    """Why it lets through more than it was asked to, in words."""

    def __str__(self) -> str:
        left, chance = (f"{100 * number / max(self.num_rows, 1):.3g} %" for number in (self.num_left, self.num_random))
        return f"{self.num_left:,} of {self.num_rows:,} held-out rows near a training row ({left}; at random {chance})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """What became of the rows of one file."""

    number: int
    """Of the recipe's source that the file belongs to, from 0."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Rows in each split."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows dropped, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A frozen data set: an artefact with one shard per split, and the account of every row read."""

    id: str
    splits: Mapping[str, int]
    """Rows in each split: train, validation, test."""
    num_read: int
    dropped: Mapping[str, int]
    """Rows dropped, by reason."""
    num_bad: int | None = None
    """Of these, rows that could not be read or used; the others were dropped by cleaning. None: not known, in old snapshots."""
    formats: Mapping[str, str]
    """For each source path: the detected format and its evidence."""
    steps: tuple[str, ...]
    """Cleaning and splitting steps applied, in order."""
    clusters: Mapping[str, int] = field(default_factory=dict)
    """Clusters in each split: rows of one are not independent."""
    leakage: Leakage | None = None
    """None: nothing is held out, or it was not looked for."""
    sources: Mapping[str, SourceCount] = field(default_factory=dict)
    """For each source path, what became of its rows."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Files of a folder or archive of which nothing could be read, each with why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Several token sequences laid end to end, as one flat row that a model reads in one pass.

    Segment s covers `tokens[offsets[s]:offsets[s + 1]]`; attention never crosses a segment's border, positions restart in each.
    """

    tokens: NDArray[np.int32]
    """Shape (T,)."""
    targets: NDArray[np.int32]
    """Shape (T,): the token to predict at each place, or -100 where nothing is learned."""
    weights: NDArray[np.float32]
    """Shape (T,): weight of each target's loss; 0 where the target is -100."""
    offsets: NDArray[np.int32]
    """Shape (S + 1,): segment borders, from 0 to T."""
    record_ids: tuple[str, ...]
    """Length S: the record each segment came from."""

    @property
    def num_tokens(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def num_supervised(self) -> int:
        return int((self.targets >= 0).sum())


class RunState(StrEnum):
    """Where a training run stands."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One point of a learning curve. Losses are nats per supervised token."""

    step: int
    train_loss: float
    validation_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: what went in, how it went."""

    id: str
    snapshot: str
    base: str
    configuration: str
    """Digest of the resolved configuration."""
    seed: int
    state: RunState
    curve: tuple[CurvePoint, ...] = ()
    best_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """An immutable, registered model. `ref` is what people type: `boutique@7`."""

    name: str
    number: int
    run: str
    artefact: str
    """Digest of the stored model folder."""
    weights_digest: str
    """Sha256 over the weights alone, independent of metadata and file layout."""
    chat_digest: str
    """Digest of tokenizer and chat template, which serving must match."""
    base_digest: str
    created_at: str
    """UTC, ISO 8601."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Held-out figures of this version, such as `perplexity` and `rougeL`."""
    reports: tuple[str, ...] = ()
    lineage: Mapping[str, str] = field(default_factory=dict)
    """What it was made of, by kind: `snapshot` and `recipe` (artefacts), `base`, `code` (a digest of the rooms that made it), `tunesmith`
    (the release), `python`, `torch`, `transformers`, `numpy`, `tokenizers`, `machine` (device and number format), `processor`, `threads`,
    `seed`, and `parent` (a version, where it was trained on one). Versions of older releases lack some or all of these."""
    state: str = "ready"
    """`ready`, or `quarantined`: its files were found broken, and it answers for nobody until `doctor` finds them sound again."""

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A figure with its 95 % interval, where one can be given; or the difference of two figures, with how sure it is."""

    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    """Of a difference: two-sided, paired."""
    p_adjusted: float | None = None
    """The same, corrected for having looked at several metrics or slices (Holm)."""
    detectable: float | None = None
    """The smallest difference that this many rows would show in 80 of 100 tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One test row with the reference and every arm's answer."""

    record: str
    question: str
    reference: str
    answers: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """arm -> metric -> what this row alone would score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Some of the test rows, measured by themselves."""

    name: str
    """What they have in common, such as `domain: hours`."""
    num_rows: int
    num_clusters: int
    scores: Mapping[str, Mapping[str, Score]]
    differences: Mapping[str, Mapping[str, Score]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was measured, and what it means in one sentence."""

    id: str
    kind: str
    scores: Mapping[str, Mapping[str, Score]]
    """arm -> metric -> score."""
    differences: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    """arm -> metric -> that arm minus `baseline`, paired row by row."""
    baseline: str = "base"
    """The arm that others are compared with."""
    subject: str = "tuned"
    """The arm that the verdict is about."""
    slices: tuple[Slice, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain values for what is no score: costs, reliability, contamination, how to do it again."""
    samples: tuple[Sample, ...]
    verdict: str
    num_rows: int
    signatures: Mapping[str, str] = field(default_factory=dict)
    """metric -> what exactly was computed, so that another tool can repeat it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One claim about a model, tried on this machine: a figure beside what it may be."""

    name: str
    """Such as `packed = unpacked`."""
    meaning: str
    """What it means for the user, in one sentence."""
    compared: str
    """What was measured, on what; or why the claim does not arise here."""
    holds: bool | None
    """None: it does not arise here, and counts neither way."""
    figure: float | None = None
    tolerance: float | None = None
    rule: Literal["at most", "at least"] = "at most"
    """How the figure stands to the tolerance when the proof holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """An alias and what answers for it: `arms` share the traffic and sum to 1; one of share 0 gets copies, and nobody sees its answers."""

    name: str
    alias: str
    version: int
    arms: Mapping[str, float]
    because: tuple[str, ...]
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """One answered request. Times are in milliseconds."""

    id: str
    deployment: str
    arm: str
    messages: tuple[Message, ...]
    answer: str
    num_prompt_tokens: int
    num_completion_tokens: int
    first_token_ms: float
    total_ms: float
    finish_reason: str = ""
    user: str = ""
    """The caller's own word for whoever asked."""
    shadow_of: str | None = None
    """The answer that the client was given; set where this one answers a copy of the request, on trial."""


FeedbackKind = Literal["thumbs", "number", "category", "text", "correction"]
FeedbackSource = Literal["human", "model", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What somebody said of an answer. Nothing is changed later: a better judgement `overrides` an earlier one."""

    id: str
    """The caller's own, so that what is sent twice counts once."""
    interaction: str
    name: str
    """What is judged, such as `helpful`."""
    kind: FeedbackKind
    value: bool | float | str
    """`thumbs`: true is up; `correction`: what the answer should have been."""
    source: FeedbackSource
    by: str = ""
    """Who or what, in the caller's own words."""
    rationale: str = ""
    overrides: str = ""
    """Id of the feedback in whose place this stands."""
    created_at: str = ""
    """UTC, ISO 8601."""

"""Pairs of answers out of stored reports, judged by people on a page or by a model, blind to who gave which."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from tunesmith.data import load_snapshot, load_split
from tunesmith.data.annotate import Desk
from tunesmith.data.annotations import Annotation, AnnotationLog, Kind, Verdict
from tunesmith.errors import DataError, NotFound, UserError
from tunesmith.evaluate.judging import PROMPT, Ask, Choice, Judgement, JudgePrompt, Pair, ask_arm, judge_pairs
from tunesmith.evaluate.questions import question_of
from tunesmith.evaluate.ranking import Preferred
from tunesmith.pipeline.annotating import DeskPage
from tunesmith.pipeline.evaluating import stored_report
from tunesmith.pipeline.progress import Watcher
from tunesmith.pipeline.versions import MODEL_FACTS
from tunesmith.records import Dropped, Message, ModelVersion, Record, Role, Source
from tunesmith.store import Store, digest_of, files_of

__all__ = [
    "Drawn",
    "draw_pairs",
    "human_logs",
    "judge",
    "judge_by_endpoint",
    "judge_by_model",
    "model_logs",
    "open_desk",
    "pair_of",
    "read_judgements",
]

_OF_MODELS = ".model.jsonl"
_JUDGE_TOKENS = 512
"""Of a judge's answer: a sentence or two of reasons, and the choice."""
_AT_ONCE = 4
_JUDGED = {"arm", "against", "choice", "choice_turned", "said", "said_turned"}
_VERDICTS = {Preferred.FIRST: Verdict.CHOSEN, Preferred.SECOND: Verdict.REJECTED, Preferred.TIE: Verdict.TIE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Pairs to judge. Of each the version's own answer stands in `messages`, the other in `rejected`; `tags` name both arms."""

    ref: str
    against: str
    pairs: tuple[Record, ...]
    num_equal: int
    """Questions that both answered in the same words: there is nothing to judge."""


class Judged(NamedTuple):
    """What a model said of pairs, under its name and the version of its prompt."""

    judgements: dict[str, list[Judgement]]
    unreadable: list[Dropped]


class _Answer(NamedTuple):
    record: str
    question: str
    text: str


def judge(
    ref: str,
    *,
    store: Store,
    against: str | None,
    by: str,
    seed: int,
    port: int,
    on_ready: Callable[[str, Sequence[Dropped]], None],
) -> None:
    """Serve the page on which people judge pairs, until Ctrl-C.

    Args:
        ref: the version.
        store: where it and its report are.
        against: an arm of its report, or another version; None: the arm that its report compares with.
        by: the person whom the page greets.
        seed: of the order of pairs, and of their sides.
        port: 0 takes any free one.
        on_ready: given the page's address, and the lines of the log that could not be read.

    Raises:
        UserError: there is nothing to judge, or the port cannot be had.
    """
    from tunesmith.serve import PageName, serve_annotation

    desk = open_desk(ref, against=against, store=store, seed=seed)
    serve_annotation(DeskPage(desk), by=by, port=port, name=PageName.JUDGE, on_ready=lambda url: on_ready(url, desk.unreadable))


def open_desk(ref: str, *, against: str | None, store: Store, seed: int) -> Desk:
    """Pairs in a drawn order, and the log that keeps what is said of them.

    Raises:
        UserError: there is nothing to judge.
    """
    drawn = draw_pairs(ref, against=against, store=store)
    log = AnnotationLog(_folder(drawn.ref, store=store) / f"{_file_name(drawn.against)}.jsonl")
    return Desk(drawn.pairs, log=log, labels=(), seed=seed)


def judge_by_model(
    ref: str,
    *,
    store: Store,
    against: str | None,
    ask: Ask,
    name: str,
    seed: int = 0,
    prompt: JudgePrompt = PROMPT,
    num_at_once: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Put every pair to a model, in both orders. Each judgement is on the disk at once; done again, only what is missing is asked.

    Args:
        ref: the version.
        store: where it and its report are, and where judgements are kept.
        against: an arm of its report, or another version; None: the arm that its report compares with.
        ask: the model.
        name: what to call it.
        seed: of the order in which it is asked.
        prompt: what it is asked.
        num_at_once: pairs that it is asked about at once.
        on_progress: hears how many pairs are judged, and how many there are.

    Returns:
        How many pairs were judged now.

    Raises:
        UserError: there is nothing to judge.
    """
    drawn = draw_pairs(ref, against=against, store=store)
    path = _folder(drawn.ref, store=store) / f"{_file_name(drawn.against)}{_OF_MODELS}"
    log, judge_name = AnnotationLog(path), f"{name} (prompt {prompt.version})"
    known = {one.pair.row for one in read_judgements([path]).judgements.get(judge_name, ())}
    rows = {row.id: row for row in drawn.pairs if row.id not in known}
    num_done = len(drawn.pairs) - len(rows)

    def keep(found: Judgement) -> None:
        nonlocal num_done
        log.append([_kept(found, row=rows[found.pair.row], by=judge_name)])
        num_done += 1
        if on_progress:
            on_progress(num_done, len(drawn.pairs))

    pairs = [pair_of(row) for row in rows.values()]
    return len(judge_pairs(pairs, ask, seed=seed, prompt=prompt, num_at_once=num_at_once, on_judged=keep))


def judge_by_endpoint(
    ref: str,
    *,
    store: Store,
    against: str | None,
    url: str,
    name: str | None,
    key_env: str | None = None,
    seed: int = 0,
    watcher: Watcher,
) -> int:
    """Let a model behind OpenAI's chat API judge; see `judge_by_model`.

    Args:
        ref: the version.
        store: where it and its report are.
        against: an arm of its report, or another version.
        url: where the model answers.
        name: what it is called there.
        key_env: environment variable that holds its key.
        seed: of the order in which it is asked.
        watcher: hears how far it is.

    Raises:
        UserError: there is nothing to judge, no model is named, or the key is not set.
        EndpointError: the endpoint refuses, or fails again and again; what was judged before is kept.
    """
    from tunesmith.evaluate.config import EndpointConfig
    from tunesmith.evaluate.endpoint import Endpoint, require_key

    if not name:
        raise UserError(f"--model: what is the judge called at {url}? An endpoint may hold several models")
    try:
        config = EndpointConfig(name="judge", url=url, model=name, key_env=key_env)
    except ValidationError as error:
        raise UserError(f"--url, --model, --key-env: {error.errors()[0]['msg']}: {error.errors()[0]['input']!r}") from error
    require_key(config)
    return judge_by_model(
        ref,
        store=store,
        against=against,
        ask=ask_arm(Endpoint(config, max_new_tokens=_JUDGE_TOKENS)),
        name=name,
        seed=seed,
        num_at_once=_AT_ONCE,
        on_progress=lambda done, total: watcher.progress(f"asking {name}", done=done, total=total),
    )


def draw_pairs(ref: str, *, against: str | None, store: Store) -> Drawn:
    """The answers of a version beside those of another arm, question by question.

    Raises:
        NotFound: there is no such version, arm or report.
        DataError: the two have no question in common, or the same answers to all.
    """
    version = store.ledger.version(ref)
    report = stored_report(version, store=store)
    if report is None:
        raise NotFound(
            f"{version.ref} has no report: there were no test rows. Give `data.split.test` a share above 0 and `tunesmith run` the recipe"
        )
    mine = [_Answer(s.record, s.question, s.answers[report.subject]) for s in report.samples if report.subject in s.answers]
    if not mine:
        raise NotFound(
            f"{version.ref} was asked nothing when it was evaluated. Name a metric of answers in `evaluate.metrics`, such as rouge, and "
            "`tunesmith run` the recipe"
        )
    other, name = against or report.baseline, against or report.baseline
    theirs: Mapping[str, _Answer] = {
        s.record: _Answer(s.record, s.question, s.answers[other]) for s in report.samples if other in s.answers
    }
    if not theirs or other == report.subject:
        if against is None:
            raise NotFound(
                f"the report of {version.ref} has no other arm to judge against. Name another version with --against, or `tunesmith run` a "
                "recipe whose `base` is a model"
            )
        arms = sorted({arm for s in report.samples for arm in s.answers} - {report.subject})
        theirs, name = _of_version(other, version=version, arms=arms, store=store)
    records = _test_rows(version, store=store)
    common = [(one, theirs[one.record]) for one in mine if one.record in theirs and theirs[one.record].question == one.question]
    if not common:
        raise DataError(
            f"{version.ref} and {name} answered no question in common. Versions can be judged side by side if they have the same test rows"
        )
    different = [(one, two) for one, two in common if one.text.strip() != two.text.strip()]
    if not different:
        raise DataError(
            f"{version.ref} and {name} gave the same answer to all {len(common):,} questions: there is nothing to judge"
        )
    pairs = [
        _pair(one, two, arms=(version.ref, name), row=records.get(one.record), place=place)
        for place, (one, two) in enumerate(different, start=1)
    ]
    return Drawn(ref=version.ref, against=name, pairs=tuple(pairs), num_equal=len(common) - len(different))


def pair_of(row: Record) -> Pair:
    """A pair as a model judges it: its question is all that was said before the answer."""
    *before, answer = row.messages
    asked = before[0].content if len(before) == 1 else "\n\n".join(f"{turn.role.value}: {turn.content}" for turn in before)
    arms = (row.tags["arm"], row.tags["against"])
    return Pair(row.id, asked, answer.content, row.rejected[0].content, arms, row.cluster or row.id)


def read_judgements(paths: Sequence[Path]) -> Judged:
    """What models said, by their names; of each pair the newest judgement counts."""
    found: dict[str, dict[str, Judgement]] = {}
    unreadable: list[Dropped] = []
    for path in paths:
        for entry in AnnotationLog(path).read_new():
            if isinstance(entry, Dropped):
                unreadable.append(entry)
            elif entry.record is not None and entry.record.tags.keys() >= _JUDGED:
                tags = entry.record.tags
                choices = [Choice(tags[key]) if tags[key] in set(Choice) else None for key in ("choice", "choice_turned")]
                judgement = Judgement(
                    pair=pair_of(replace(entry.record, id=entry.of)),
                    choices=(choices[0], choices[1]),
                    said=(tags["said"], tags["said_turned"]),
                )
                found.setdefault(entry.by, {})[entry.of] = judgement
    return Judged({name: list(rows.values()) for name, rows in found.items()}, unreadable)


def human_logs(ref: str, *, store: Store) -> list[Path]:
    """Where decisions of people about a version are."""
    return [path for path in sorted(_folder(ref, store=store).glob("*.jsonl")) if not path.name.endswith(_OF_MODELS)]


def model_logs(ref: str, *, store: Store) -> list[Path]:
    """Where judgements of models about a version are."""
    return sorted(_folder(ref, store=store).glob(f"*{_OF_MODELS}"))


def _of_version(name: str, *, version: ModelVersion, arms: Sequence[str], store: Store) -> tuple[Mapping[str, _Answer], str]:
    """What another version answered when it was evaluated, by row."""
    try:
        other = store.ledger.version(name)
    except NotFound:
        known = f"It has: {', '.join(arms)}" if arms else "It has no other"
        raise NotFound(
            f"the report of {version.ref} has no arm {name!r}, and no version is called so. {known}; or name another version with --against"
        ) from None
    if other.ref == version.ref:
        raise DataError(f"{version.ref} cannot be judged against itself; name another version or arm with --against")
    report = stored_report(other, store=store)
    if report is None:
        raise NotFound(
            f"{other.ref} has no report: there were no test rows. `tunesmith run` its recipe with `data.split.test` above 0"
        )
    answers = {s.record: _Answer(s.record, s.question, s.answers[report.subject]) for s in report.samples}
    return answers, other.ref


def _test_rows(version: ModelVersion, *, store: Store) -> dict[str, Record]:
    """The rows a version was tested on, for what was said before a question and for their clusters."""
    facts = orjson.loads((files_of(version, store=store).path / MODEL_FACTS).read_bytes())
    try:
        return {row.id: row for row in load_split(store, load_snapshot(store, facts["snapshot"]), split="test")}
    except (KeyError, NotFound):
        return {}  # an older version, or its snapshot is gone: questions stand alone then


def _pair(one: _Answer, two: _Answer, *, arms: tuple[str, str], row: Record | None, place: int) -> Record:
    question = question_of(row) if row is not None else None
    prompt = question.prompt if question is not None else (Message(role=Role.USER, content=one.question),)
    cluster = one.record if row is None else row.cluster or (row.group if row.group is not None else row.id)
    return Record(
        id=digest_of({"record": one.record, "question": one.question, "arms": list(arms), "answers": [one.text, two.text]}),
        source=Source(path=f"{arms[0]} report", line=place),
        messages=(*prompt, Message(role=Role.ASSISTANT, content=one.text)),
        rejected=(Message(role=Role.ASSISTANT, content=two.text),),
        domain=row.domain if row is not None else "",
        cluster=cluster,
        tags={"arm": arms[0], "against": arms[1], "record": one.record},
    )


def _kept(found: Judgement, *, row: Record, by: str) -> Annotation:
    """A model's judgement as a line of the log; one that could not be read decides nothing, and is kept all the same."""
    preferred = found.preferred
    choices = {
        key: choice.value if choice else "" for key, choice in zip(("choice", "choice_turned"), found.choices, strict=True)
    }
    tags = {**row.tags, **choices, "said": found.said[0], "said_turned": found.said[1]}
    return Annotation(
        by=by,
        kind=Kind.SKIP if preferred is None else Kind.RANK,
        of=row.id,
        value="" if preferred is None else _VERDICTS[preferred],
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        record=replace(row, tags=tags),
    )


def _folder(ref: str, *, store: Store) -> Path:
    return store.judgements / ref


def _file_name(arm: str) -> str:
    return re.sub(r"[^\w@-]", "_", arm)  # no dot, so that no arm is taken for a model's file

"""`/v1/fine_tuning/jobs`, as OpenAI's own client asks for it.

Its `status` knows no word for a paused job: such a one is `queued` there, and `paused` beside it is true. Of checkpoints there is the
one that is kept, the best, and it bears the finished model's name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from tunesmith.errors import GateRefused, NotFound
from tunesmith.serve.body import read_body
from tunesmith.serve.fields import Fields, Problems, kind_of
from tunesmith.serve.files import add_file_routes
from tunesmith.serve.json_body import read_json
from tunesmith.serve.pages import page_of
from tunesmith.serve.refusal import Refusal, clipped, json_response
from tunesmith.serve.tuning import AskedJob, Tuning
from tunesmith.store.jobs import Job, JobEvent

__all__ = ["NEUTRAL", "OTHER_METHODS", "SUFFIX", "add_tuning_routes", "read_job_request"]

_JOBS = "/v1/fine_tuning/jobs"
_SUPPORTED = frozenset(
    ["model", "training_file", "validation_file", "suffix", "seed", "method", "hyperparameters", "metadata"],
)
NEUTRAL: Mapping[str, tuple[object, ...]] = {"integrations": ([],)}
_HYPERPARAMETERS = frozenset(["n_epochs", "batch_size", "learning_rate_multiplier"])
OTHER_METHODS = ("dpo", "reinforcement")
_AUTO = "auto"
_MAX_EPOCHS, _MAX_BATCH, _MAX_MULTIPLIER = 100, 1024, 1000.0
SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What may name new versions."""

_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512
_MOST = 100
_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def add_tuning_routes(app: FastAPI, tuning: Tuning, *, max_body_bytes: int, max_file_bytes: int) -> None:
    """Add the routes of files and jobs.

    Args:
        app: the application.
        tuning: whoever runs the jobs.
        max_body_bytes: of a request that is no upload.
        max_file_bytes: of one file.
    """
    add_file_routes(app, tuning.uploads, max_file_bytes=max_file_bytes)

    @app.post(_JOBS, response_model=None)
    async def create_job(request: Request) -> Response:
        asked = read_job_request(read_json(await read_body(request, max_bytes=max_body_bytes)))
        return json_response(_as_json(await asyncio.to_thread(tuning.create, asked)))

    @app.get(_JOBS, response_model=None)
    async def list_jobs(request: Request) -> Response:
        wanted = _filter(request.query_params)
        found = [job for job in await asyncio.to_thread(tuning.jobs.all) if wanted(job.request.get("metadata"))]
        return json_response(page_of(found, query=request.query_params, show=_as_json, default=20, most=_MOST))

    @app.get(_JOBS + "/{id}", response_model=None)
    async def show_job(request: Request) -> Response:
        return json_response(_as_json(await _called(tuning.jobs.find, request)))

    @app.post(_JOBS + "/{id}/cancel", response_model=None)
    async def cancel_job(request: Request) -> Response:
        return json_response(_as_json(await _called(tuning.cancel, request)))

    @app.post(_JOBS + "/{id}/pause", response_model=None)
    async def pause_job(request: Request) -> Response:
        return json_response(_as_json(await _called(tuning.pause, request)))

    @app.post(_JOBS + "/{id}/resume", response_model=None)
    async def resume_job(request: Request) -> Response:
        return json_response(_as_json(await _called(tuning.resume, request)))

    @app.get(_JOBS + "/{id}/events", response_model=None)
    async def list_events(request: Request) -> Response:
        job = await _called(tuning.jobs.find, request)
        events = await asyncio.to_thread(tuning.jobs.events, job.id)
        return json_response(page_of(events, query=request.query_params, show=_event_as_json, default=20, most=_MOST))

    @app.get(_JOBS + "/{id}/checkpoints", response_model=None)
    async def list_checkpoints(request: Request) -> Response:
        job = await _called(tuning.jobs.find, request)
        kept = [_Checkpoint(job, number) for number in range(len(_checkpoints(job)))]
        show = _Checkpoint.as_json
        return json_response(page_of(kept, query=request.query_params, show=show, default=10, most=_MOST))


async def _called(act: Callable[[str], Job], request: Request) -> Job:
    id_ = request.path_params["id"]
    try:
        return await asyncio.to_thread(act, id_)
    except NotFound:
        message = f"There is no fine-tuning job {clipped(id_)!r}."
        raise Refusal(message, status=404, param="fine_tuning_job_id", code="fine_tuning_job_not_found") from None
    except GateRefused as error:
        told = str(error)
        raise Refusal(
            f"{told[0].upper()}{told[1:]}.",
            status=409,
            param="fine_tuning_job_id",
            code="invalid_job_state",
            headers={"x-should-retry": "false"},  # or the official client would ask twice more
        ) from None


def read_job_request(value: object) -> AskedJob:
    """Read what `POST /v1/fine_tuning/jobs` was sent.

    Raises:
        Refusal: 400, it cannot be meant.
    """
    if not isinstance(value, dict):
        raise Refusal(f"The body must be a JSON object, not {kind_of(value)}.", code="invalid_type")
    problems = Problems()
    fields = Fields(value, problems=problems)
    fields.check_names(_SUPPORTED, NEUTRAL)
    asked = AskedJob(
        model=_read_name(fields, "model"),
        training_file=_read_name(fields, "training_file"),
        validation_file=fields.text("validation_file") or None,
        suffix=_read_suffix(fields),
        seed=fields.whole("seed", low=0, high=2**31 - 1),
        hyperparameters=_read_method(fields),
        metadata=_read_metadata(fields),
    )
    if asked.validation_file is not None and asked.validation_file == asked.training_file:
        fields.wrong("validation_file", "is the training file; give another one, or leave it out")
    problems.raise_if_any()
    return asked


def _read_name(fields: Fields, name: str) -> str:
    text = fields.text(name, required=True)
    if fields.value.get(name) == "":
        fields.wrong(name, "must not be empty")
    return text


def _read_suffix(fields: Fields) -> str | None:
    suffix = fields.text("suffix") or None
    if suffix is not None and not SUFFIX.fullmatch(suffix):
        fields.wrong("suffix", "names the new versions: 1 to 63 letters, digits, `-`, `_` or `.`, a letter or digit first")
        return None
    return suffix


def _read_method(fields: Fields) -> dict[str, int | float | str]:
    """The hyperparameters, from where the client put them."""
    old = fields.of_type("hyperparameters", dict, "an object")
    method = fields.of_type("method", dict, "an object")
    if method is None:
        return _read_hyperparameters(fields, old or {}, where="hyperparameters.")
    inner = Fields(method, problems=fields.problems, where="method.")
    kind = inner.text("type", required=True)
    if kind and kind != "supervised":
        inner.wrong("type", f"`{clipped(kind)}` is not supported here; only `supervised` is", code="unsupported_parameter")
        return {}
    inner.check_names(frozenset({"type", "supervised"}), dict.fromkeys(OTHER_METHODS, ()))
    supervised = inner.of_type("supervised", dict, "an object") or {}
    deeper = Fields(supervised, problems=fields.problems, where="method.supervised.")
    deeper.check_names(frozenset({"hyperparameters"}), {})
    new = deeper.of_type("hyperparameters", dict, "an object") or {}
    if old and new and old != new:
        fields.wrong("hyperparameters", "differ from those of `method`; leave these out")
    return _read_hyperparameters(
        fields, new or old or {}, where="method.supervised.hyperparameters." if new else "hyperparameters."
    )


def _read_hyperparameters(fields: Fields, value: Mapping[str, Any], *, where: str) -> dict[str, int | float | str]:
    inner = Fields({name: given for name, given in value.items() if given != _AUTO}, problems=fields.problems, where=where)
    inner.check_names(_HYPERPARAMETERS, {})
    read: dict[str, int | float | str] = dict.fromkeys(sorted(_HYPERPARAMETERS), _AUTO)
    for name, high in (("n_epochs", _MAX_EPOCHS), ("batch_size", _MAX_BATCH)):
        if (number := inner.whole(name, low=1, high=high)) is not None:
            read[name] = number
    name = "learning_rate_multiplier"
    if inner.of_type(name, (int, float), "a number") is not None:
        read[name] = inner.number(name, default=1.0, low=0.001, high=_MAX_MULTIPLIER)
    return read


def _read_metadata(fields: Fields) -> dict[str, str] | None:
    found = fields.of_type("metadata", dict, "an object")
    if found is None:
        return None
    if len(found) > _MAX_PAIRS:
        fields.wrong("metadata", f"at most {_MAX_PAIRS} pairs, not {len(found)}")
    elif any(len(key) > _MAX_KEY or not isinstance(value, str) or len(value) > _MAX_VALUE for key, value in found.items()):
        told = f"each key a string of at most {_MAX_KEY} characters, each value one of at most {_MAX_VALUE}"
        fields.wrong("metadata", told)
    return {str(key): str(value) for key, value in found.items()}


def _filter(query: QueryParams) -> Callable[[Mapping[str, str] | None], bool]:
    """Which metadata a list asks for: `metadata[key]=value`, any number of them, or `metadata=null`."""
    pairs = {found[1]: value for name, value in query.multi_items() if (found := _FILTER.fullmatch(name))}
    plain = query.get("metadata")
    if plain is not None and (plain != "null" or pairs):
        message = "metadata: filter with `metadata[key]=value`, or with `metadata=null` alone."
        raise Refusal(message, param="metadata", code="invalid_value")
    if plain == "null":
        return lambda metadata: metadata is None
    return lambda metadata: not pairs or (metadata is not None and pairs.items() <= metadata.items())


def _as_json(job: Job) -> dict[str, Any]:
    request, outcome = job.request, job.outcome
    hyperparameters = dict(request["hyperparameters"])
    is_running = job.state == "running"
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_at,
        "error": outcome.get("error"),
        "estimated_finish": outcome.get("estimated_finish") if is_running else None,
        "fine_tuned_model": outcome.get("fine_tuned_model") if job.state == "succeeded" else None,
        "finished_at": job.finished_at,
        "hyperparameters": hyperparameters,
        "integrations": [],
        "metadata": request["metadata"],
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "model": request["model"],
        "organization_id": "tunesmith",
        "paused": job.state == "paused",
        "result_files": [],
        "seed": request["seed"],
        "status": "queued" if job.state == "paused" else job.state,
        "trained_tokens": outcome.get("trained_tokens") if job.state == "succeeded" else None,
        "training_file": request["training_file"],
        "validation_file": request["validation_file"],
    }


def _event_as_json(event: JobEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": "metrics" if event.data else "message",
        "data": dict(event.data),
    }


def _checkpoints(job: Job) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = job.outcome.get("checkpoints", ()) if job.state == "succeeded" else ()
    return found


class _Checkpoint:
    """One checkpoint of a job, named after it."""

    def __init__(self, job: Job, number: int) -> None:
        self.id = f"ftckpt-{job.id.removeprefix('ftjob-')}-{number}"
        self._job = job
        self._kept = _checkpoints(job)[number]

    def as_json(self) -> dict[str, Any]:
        return {
            **self._kept,
            "id": self.id,
            "object": "fine_tuning.job.checkpoint",
            "fine_tuned_model_checkpoint": self._job.outcome["fine_tuned_model"],
            "fine_tuning_job_id": self._job.id,
        }

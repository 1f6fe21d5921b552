"""The document's parts on files and fine-tuning jobs."""

from __future__ import annotations

from typing import Any

from tunesmith.serve.api_chat import TEXT
from tunesmith.serve.fine_tuning import NEUTRAL, OTHER_METHODS, SUFFIX
from tunesmith.serve.openapi import ApiPart, Operation, Schema, either, maybe, neutral, record, ref, shown

__all__ = ["TUNING"]

_JOBS = "/v1/fine_tuning/jobs"
_ID: Schema = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_WHEN: Schema = {"type": ["integer", "null"], "description": "Seconds since 1970."}
_STATES = ("validating_files", "queued", "running", "succeeded", "failed", "cancelled")


def _paged(most: int) -> tuple[Schema, ...]:
    return (
        {"name": "after", "in": "query", "schema": TEXT, "description": "The id of the last item of the page before."},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": most}},
        {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}},
    )


def _list_of(name: str) -> dict[str, Any]:
    ends: dict[str, Schema] = {"first_id": maybe(TEXT), "last_id": maybe(TEXT)}
    items: Schema = {"type": "array", "items": ref(name)}
    return shown({"object": {"const": "list"}, "data": items, **ends, "has_more": {"type": "boolean"}})


def _of_job(verb: str, name: str, summary: str) -> Operation:
    path = f"{_JOBS}/{{id}}/{verb}"
    return Operation(
        path=path, method="post", name=name, summary=summary, answer=ref("Job"), parameters=(_ID,), refusals=(404, 409, 415)
    )


def _get(path: str, name: str, summary: str, answer: Schema | None, *, most: int = 0) -> Operation:
    of_one = (_ID,) if "{id}" in path else ()
    refusals = (*((400, 404) if most else ()), *((404,) if of_one else ()))
    parameters = (*of_one, *(_paged(most) if most else ()))
    return Operation(path=path, method="get", name=name, summary=summary, answer=answer, parameters=parameters, refusals=refusals)


def _auto_or(schema: Schema) -> Schema:
    return either({"const": "auto"}, schema, {"type": "null"})


_NUMBERS: dict[str, Schema] = {
    "n_epochs": _auto_or({"type": "integer", "minimum": 1, "maximum": 100}),
    "batch_size": _auto_or({"type": "integer", "minimum": 1, "maximum": 1024}),
    "learning_rate_multiplier": _auto_or({"type": "number", "minimum": 0.001, "maximum": 1000}),
}
_SUPERVISED = record(
    {
        "type": {"const": "supervised"},
        "supervised": maybe(record({"hyperparameters": maybe(record(_NUMBERS))})),
        **neutral(dict.fromkeys(OTHER_METHODS, ())),
    },
    required=["type"],
)
_ASKED: dict[str, Schema] = {
    "model": {"type": "string", "minLength": 1, "description": "tunesmith/base, or a version that is a whole model."},
    "training_file": {"type": "string", "minLength": 1},
    "validation_file": maybe(TEXT),
    "suffix": {"type": ["string", "null"], "description": "The new versions' name.", "pattern": f"^({SUFFIX.pattern})?$"},
    "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**31 - 1},
    "method": maybe(_SUPERVISED),
    "hyperparameters": maybe(record(_NUMBERS)),
    "metadata": {
        "type": ["object", "null"],
        "additionalProperties": {"type": "string", "maxLength": 512},
        "propertyNames": {"maxLength": 64},
        "maxProperties": 16,
    },
    **neutral(NEUTRAL),
}
_FORM = {
    "type": "object",
    "properties": {"purpose": {"const": "fine-tune"}, "file": {"type": "string", "contentMediaType": "application/octet-stream"}},
    "required": ["purpose", "file"],
    "additionalProperties": False,
}
TUNING = ApiPart(
    operations=[
        Operation(
            path="/v1/files",
            method="post",
            name="createFile",
            summary="Send a training file: JSON lines with `messages`, checked as they are received.",
            form=_FORM,
            answer=ref("File"),
            refusals=(408, 507),
        ),
        _get("/v1/files", "listFiles", "Files, the newest first.", _list_of("File"), most=10_000),
        _get("/v1/files/{id}", "retrieveFile", "One file.", ref("File")),
        _get("/v1/files/{id}/content", "retrieveFileContent", "What was sent.", None),
        Operation(
            path="/v1/files/{id}",
            method="delete",
            name="deleteFile",
            summary="Delete a file; jobs that have begun keep theirs.",
            answer=shown({"id": TEXT, "object": {"const": "file"}, "deleted": {"const": True}}),
            parameters=(_ID,),
            refusals=(404,),
        ),
        Operation(
            path=_JOBS,
            method="post",
            name="createJob",
            summary="Begin a fine-tuning job.",
            request=ref("JobRequest"),
            answer=ref("Job"),
        ),
        _get(_JOBS, "listJobs", "Jobs, the newest first.", _list_of("Job"), most=100),
        _get(_JOBS + "/{id}", "retrieveJob", "One job.", ref("Job")),
        _get(_JOBS + "/{id}/events", "listJobEvents", "What a job told.", _list_of("JobEvent"), most=100),
        _get(_JOBS + "/{id}/checkpoints", "listJobCheckpoints", "What a job kept.", _list_of("JobCheckpoint"), most=100),
        _of_job("cancel", "cancelJob", "End a job."),
        _of_job("pause", "pauseJob", "Stop a job at a checkpoint."),
        _of_job("resume", "resumeJob", "Let a paused job go on."),
    ],
    schemas={
        "File": shown(
            {"id": TEXT, "object": {"const": "file"}, "bytes": {"type": "integer"}, "created_at": _WHEN, "filename": TEXT}
        ),
        "Job": shown(
            {
                "id": TEXT,
                "object": {"const": "fine_tuning.job"},
                "created_at": _WHEN,
                "finished_at": _WHEN,
                "status": {"enum": list(_STATES)},
                "paused": {"type": "boolean"},
                "model": TEXT,
                "fine_tuned_model": maybe(TEXT),
                "training_file": TEXT,
            }
        ),
        "JobCheckpoint": shown({"id": TEXT, "object": {"const": "fine_tuning.job.checkpoint"}, "fine_tuning_job_id": TEXT}),
        "JobEvent": shown({"id": TEXT, "object": {"const": "fine_tuning.job.event"}, "created_at": _WHEN, "message": TEXT}),
        "JobRequest": record(_ASKED, required=["model", "training_file"]),
    },
)

"""`GET /openapi.json`: the API as a document, put together from the parts that stand beside the readers of requests.

A schema says what its reader takes, neither more nor less; `tests/serve/test_openapi.py` holds the two against each other. A module that
adds routes adds an `ApiPart` to `app.state.api`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tunesmith import __version__

__all__ = ["ApiPart", "Operation", "Schema", "api_document", "either", "maybe", "neutral", "record", "ref", "shown", "whole"]

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    path: str
    method: str
    name: str
    """The operation's id, as generators of clients use it."""
    summary: str
    answer: Schema | None
    """Of a good answer; None: plain text."""
    request: Schema | None = None
    form: Schema | None = None
    """In place of `request`, where the body is a form with a file."""
    events: Schema | None = None
    """Of each event, where the answer can be streamed."""
    parameters: tuple[Schema, ...] = ()
    statuses: tuple[int, ...] = (200,)
    """Of good answers."""
    refusals: tuple[int, ...] = ()
    """Beside those that every operation knows."""
    is_open: bool = False
    """Whether it needs no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPart:
    """What one module contributes."""

    operations: Sequence[Operation]
    schemas: Mapping[str, Schema] = field(default_factory=dict)


def api_document(parts: Iterable[ApiPart], *, has_key: bool) -> dict[str, Any]:
    """The document. `has_key`: whether clients must send one."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Schema] = {"Error": _ERROR}
    for part in parts:
        schemas |= part.schemas
        for operation in part.operations:
            paths.setdefault(operation.path, {})[operation.method] = _operation(operation, has_key=has_key)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "tunesmith",
            "version": __version__,
            "description": "Models behind the OpenAI API. What a client sends is done or refused by name, never ignored.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if has_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def record(properties: Mapping[str, Schema], *, required: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "properties": dict(properties), "required": list(required), "additionalProperties": False} | more


def shown(properties: Mapping[str, Schema]) -> dict[str, Any]:
    """An object of an answer: all these fields, and later perhaps more."""
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def maybe(schema: Schema) -> dict[str, Any]:
    """The same or null, which means absent."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def either(*schemas: Schema) -> dict[str, Any]:
    """Any of these."""
    return {"anyOf": list(schemas)}


def neutral(fields: Mapping[str, tuple[object, ...]]) -> dict[str, Schema]:
    """Known fields that must ask for nothing."""
    return {
        name: {"enum": [None, *values], "description": "Not supported; may only ask for nothing."}
        for name, values in fields.items()
    }


def whole(low: int, high: int) -> dict[str, Any]:
    """A whole number."""
    return {"type": "integer", "minimum": low, "maximum": high}


def ref(name: str) -> dict[str, Any]:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


_ERROR = shown(
    {
        "error": shown(
            {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"], "description": "The field at fault."},
                "code": {"type": ["string", "null"]},
            }
        )
    }
)
_REQUEST_ID = {"description": "The client's own, or a new one.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1, "maximum": 120}}


def _operation(operation: Operation, *, has_key: bool) -> dict[str, Any]:
    guards = () if operation.is_open and has_key else (401, 403) if has_key else (421,)
    has_body = operation.request is not None or operation.form is not None
    body = (400, 413, 415, 429, 503) if has_body else ()
    responses: dict[str, Any] = {str(status): _good(operation, status) for status in operation.statuses}
    for status in sorted({*guards, *body, *operation.refusals, 500}):
        responses[str(status)] = _refusal(status)
    found: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary, "responses": responses}
    if operation.request is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.request}}}
    if operation.form is not None:
        found["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": operation.form}}}
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.is_open and has_key:
        found["security"] = []
    return found


def _good(operation: Operation, status: int) -> dict[str, Any]:
    content: dict[str, Any] = (
        {"text/plain": {"schema": {"type": "string"}}}
        if operation.answer is None
        else {"application/json": {"schema": operation.answer}}
    )
    if operation.events is not None:
        part = {"type": "string", "contentMediaType": "application/json", "contentSchema": either(operation.events, ref("Error"))}
        data = either({"const": "[DONE]"}, part)
        described = "One server-sent event. [DONE] is the last; one with `error` in its place ends a broken answer."
        event = {"type": "object", "description": described, "properties": {"data": data}, "required": ["data"]}
        content["text/event-stream"] = {"schema": event}
    return {"description": HTTPStatus(status).phrase, "headers": {"x-request-id": _REQUEST_ID}, "content": content}


def _refusal(status: int) -> dict[str, Any]:
    headers = {"x-request-id": _REQUEST_ID} | ({"Retry-After": _RETRY_AFTER} if status in (429, 503) else {})
    return {
        "description": HTTPStatus(status).phrase,
        "headers": headers,
        "content": {"application/json": {"schema": ref("Error")}},
    }

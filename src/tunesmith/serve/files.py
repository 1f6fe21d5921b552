"""`/v1/files`: training files, validated as they are received.

A file that the data gate would refuse is refused at once, with its lines, and nothing of it is kept: so the client's `create` raises
where the mistake was made, and a job need not be waited for to hear of it.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from tunesmith.data.validation import Finding, Rules, Severity, Validation, validate
from tunesmith.errors import DataError, NotFound, OutOfSpace, is_out_of_space
from tunesmith.serve.multipart import receive_form
from tunesmith.serve.pages import page_of
from tunesmith.serve.refusal import Refusal, clipped, json_response
from tunesmith.store.uploads import Upload, Uploads

__all__ = ["add_file_routes"]

_PURPOSE = "fine-tune"
_SHOWN = 5
"""Findings that are told."""
_MAX_NAME = 255
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def add_file_routes(app: FastAPI, uploads: Uploads, *, max_file_bytes: int) -> None:
    """Add the routes.

    Args:
        app: the application.
        uploads: the workspace's files.
        max_file_bytes: of one file.
    """

    @app.post("/v1/files", response_model=None)
    async def create_file(request: Request) -> Response:
        part: Path | None = None
        try:
            part = await asyncio.to_thread(uploads.part)
            form = await receive_form(request, file=part, max_bytes=max_file_bytes)
            _check_fields(form.fields, has_file=form.filename is not None)
            kept = await asyncio.to_thread(_keep, uploads, part, filename=form.filename or "")
        except (OSError, OutOfSpace) as error:
            if not is_out_of_space(error):
                raise
            raise Refusal("The server has no space left for files.", status=507, code="out_of_space") from error
        finally:
            if part is not None:
                part.unlink(missing_ok=True)
        return json_response(_as_json(kept))

    @app.get("/v1/files", response_model=None)
    async def list_files(request: Request) -> Response:
        found = await asyncio.to_thread(uploads.all)
        purpose = request.query_params.get("purpose")
        wanted = [file for file in found if purpose in (None, "", file.purpose)]
        return json_response(page_of(wanted, query=request.query_params, show=_as_json, default=10_000, most=10_000))

    @app.get("/v1/files/{id}", response_model=None)
    async def show_file(request: Request) -> Response:
        return json_response(_as_json(await asyncio.to_thread(_find, uploads, request)))

    @app.get("/v1/files/{id}/content", response_model=None)
    async def show_content(request: Request) -> Response:
        upload = await asyncio.to_thread(_find, uploads, request)
        path = uploads.path(upload)
        if not path.is_file():
            raise _no_such_file(upload.id)
        _check_range(request, num_bytes=upload.num_bytes)
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
        return FileResponse(path, media_type="application/octet-stream", headers=headers)

    @app.delete("/v1/files/{id}", response_model=None)
    async def delete_file(request: Request) -> Response:
        upload = await asyncio.to_thread(_find, uploads, request)
        with suppress(NotFound):  # somebody was faster
            await asyncio.to_thread(uploads.delete, upload.id)
        return json_response({"id": upload.id, "object": "file", "deleted": True})


def _check_range(request: Request, *, num_bytes: int) -> None:
    """One range is answered; what is none, or several, is ignored, as HTTP has it, and the whole file sent.

    Raises:
        Refusal: 416, it begins behind the file's end.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    first, last = found.groups() if found else ("", "")
    if first and int(first) >= num_bytes:
        message = f"The file has {num_bytes:,} bytes; none of these is there."
        raise Refusal(message, status=416, code="invalid_range", headers={"Content-Range": f"bytes */{num_bytes}"})
    if not (first or last.strip("0")) or (first and last and int(first) > int(last)):
        request.scope["headers"][:] = [header for header in request.scope["headers"] if header[0] != b"range"]


def _check_fields(fields: dict[str, str], *, has_file: bool) -> None:
    for name in fields:
        if name not in {"purpose", "file"}:
            known = "not supported here; leave it out" if name.startswith("expires_after") else "unknown field"
            raise Refusal(f"{clipped(name)}: {known}.", param=clipped(name), code="unsupported_parameter")
    purpose = fields.get("purpose")
    if purpose != _PURPOSE:
        told = "required" if purpose is None else f"{clipped(purpose)!r} is not supported here"
        raise Refusal(
            f"purpose: {told}. Files are kept for fine-tuning alone: purpose={_PURPOSE}.", param="purpose", code="invalid_value"
        )
    if not has_file:
        raise Refusal(
            "file: required, as a part of the form that has a filename.", param="file", code="missing_required_parameter"
        )


def _keep(uploads: Uploads, part: Path, *, filename: str) -> Upload:
    try:
        validation = validate([part], rules=Rules(layout="messages"))
    except DataError as error:
        message = f"The file cannot be used: {str(error).replace(str(part), 'it')}"
        raise Refusal(clipped(message, 1000), param="file", code="invalid_file_format") from error
    if not validation.passes:
        raise Refusal(_refusal(validation), param="file", code="invalid_file_format")
    name = _UNPRINTABLE.sub("", filename)[:_MAX_NAME] or "upload.jsonl"
    details = f"{validation.num_bad} rows are left out: {_told(validation)}" if validation.num_bad else ""
    num_rows = validation.num_rows - validation.num_bad
    return uploads.keep(part, filename=name, purpose=_PURPOSE, num_rows=num_rows, details=details)


def _refusal(validation: Validation) -> str:
    if not validation.num_rows:
        return "The file holds no rows. It must be JSON lines, each an object with `messages`."
    counts = f"{validation.num_bad:,} of {validation.num_rows:,} rows cannot be trained on"
    return clipped(f"The file cannot be used: {counts}. {_told(validation)}", 1000)


def _told(validation: Validation) -> str:
    errors: dict[int, Finding] = {}
    for finding in validation.findings:
        if finding.severity is Severity.ERROR:
            errors.setdefault(finding.source.line, finding)
    lines = [f"Line {line}: {_said(errors[line])}." for line in sorted(errors)]
    more = [f"And {validation.num_bad - _SHOWN:,} more."] if validation.num_bad > _SHOWN else []
    return " ".join([*lines[:_SHOWN], *more])


def _said(finding: Finding) -> str:
    """What is wrong, with its place where the words do not name that themselves."""
    return finding.detail if finding.at in finding.detail else f"{finding.at} {finding.detail}"


def _find(uploads: Uploads, request: Request) -> Upload:
    id_ = request.path_params["id"]
    try:
        return uploads.find(id_)
    except NotFound:
        raise _no_such_file(id_) from None


def _no_such_file(id_: str) -> Refusal:
    return Refusal(f"There is no file {clipped(id_)!r}.", status=404, param="id", code="file_not_found")


def _as_json(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "object": "file",
        "bytes": upload.num_bytes,
        "created_at": upload.created_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": "processed",
        "status_details": upload.details or None,
    }

"""The document's parts on the server itself, and on what is said of its answers."""

from __future__ import annotations

from typing import Any, get_args

from tunesmith.records import FeedbackSource
from tunesmith.serve import feedback
from tunesmith.serve.answer_id import ANSWER_ID, MAX_ANSWERS
from tunesmith.serve.api_chat import TEXT
from tunesmith.serve.openapi import ApiPart, Operation, Schema, either, maybe, record, ref, shown, whole

__all__ = ["FEEDBACK", "SERVER"]

_CARD = shown(
    {
        "id": TEXT,
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": TEXT,
        "root": TEXT,
        "parent": {"type": ["string", "null"]},
        "max_model_len": {"type": "integer"},
    }
)
_STATUS = shown({"status": TEXT})


def _get(path: str, name: str, summary: str, answer: Schema | None, **more: Any) -> Operation:
    return Operation(path=path, method="get", name=name, summary=summary, answer=answer, **more)


SERVER = ApiPart(
    operations=[
        _get(
            "/v1/models",
            "listModels",
            "All models.",
            shown({"object": {"const": "list"}, "data": {"type": "array", "items": ref("Model")}}),
        ),
        _get(
            "/v1/models/{name}",
            "retrieveModel",
            "One model.",
            ref("Model"),
            parameters=({"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},),
            refusals=(404,),
        ),
        _get("/livez", "isAlive", "Whether the process answers.", _STATUS, is_open=True),
        _get("/readyz", "isReady", "Whether requests are let in.", _STATUS, is_open=True, refusals=(503,)),
        _get("/health", "health", "The same as /livez.", _STATUS),
        _get("/version", "version", "The software's version.", shown({"version": TEXT})),
        _get("/metrics", "metrics", "Figures in Prometheus' text format.", None),
        _get("/openapi.json", "describeApi", "This document.", {"type": "object"}),
    ],
    schemas={"Model": _CARD},
)


def _words(most: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": most}


_ID = {"type": "string", "pattern": f"^{feedback.ID.pattern}$"}
_NO_BLANK: Schema = {"pattern": r"\S"}
_VALUES: dict[str, Schema] = {
    "thumbs": {"type": "boolean", "description": "true is up."},
    "number": {"type": "number", "minimum": -feedback.MAX_NUMBER, "maximum": feedback.MAX_NUMBER},
    "category": {**_words(feedback.MAX_WORDS), **_NO_BLANK},
    "text": {**_words(feedback.MAX_TEXT), **_NO_BLANK},
    "correction": {**_words(feedback.MAX_TEXT), **_NO_BLANK, "description": "What the answer should have been."},
}
_FIELDS: dict[str, Schema] = {
    "id": maybe({**_ID, "description": "The caller's own; the same one sent twice counts once."}),
    "completion": {"type": "string", "pattern": f"^{ANSWER_ID.pattern}$", "description": "The id of a chat completion."},
    "choice": maybe(whole(0, MAX_ANSWERS - 1)),
    "name": maybe(_words(feedback.MAX_WORDS)),
    "source": {"enum": [None, *get_args(FeedbackSource)]},
    "by": maybe(_words(feedback.MAX_WORDS)),
    "rationale": maybe(_words(feedback.MAX_TEXT)),
    "overrides": maybe({**_ID, "description": "Earlier feedback on the same answer, in whose place this stands."}),
}
FEEDBACK = ApiPart(
    operations=[
        Operation(
            path="/v1/feedback",
            method="post",
            name="createFeedback",
            summary="Say something of an answer.",
            request=ref("FeedbackRequest"),
            answer=ref("Feedback"),
            statuses=(200, 201),
            refusals=(404, 409),
        )
    ],
    schemas={
        "Feedback": shown(
            {
                "id": TEXT,
                "object": {"const": "feedback"},
                "completion": TEXT,
                "choice": whole(0, MAX_ANSWERS - 1),
                "status": {"enum": ["recorded", "pending"], "description": "pending: the answer is not in the log, or not yet."},
            }
        ),
        "FeedbackRequest": either(
            *(
                record({**_FIELDS, "kind": {"const": kind}, "value": value}, required=["completion", "kind", "value"])
                for kind, value in _VALUES.items()
            )
        ),
    },
)

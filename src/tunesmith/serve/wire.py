"""A parsed body to `ChatRequest`: what a client may ask of `/v1/chat/completions`, and what it is told otherwise.

Nothing that a client sets is ignored: a field that would change the answer elsewhere and does nothing here is refused by name,
unless its value is the one that changes nothing. At most 10 problems are reported. Null means absent, as clients use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.records import Message, Role
from tunesmith.serve.answer_id import MAX_ANSWERS
from tunesmith.serve.engine import SamplingParams
from tunesmith.serve.fields import Fields, Problem, Problems, kind_of
from tunesmith.serve.refusal import Refusal, clipped
from tunesmith.serve.wire_sampling import SAMPLING, read_params

__all__ = ["ChatRequest", "read_chat_request", "read_include_usage", "read_messages", "read_stop"]

MAX_MESSAGES = 4096
MAX_LOGPROBS = 20
MAX_STOPS = 4
MAX_STOP_LENGTH = 1000
"""Characters. Each piece of an answer is compared with every beginning of a stop string."""

SUPPORTED = frozenset(
    [
        "model",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "n",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "metadata",
        "logprobs",
        "top_logprobs",
        "response_format",
        *SAMPLING,
    ]
)
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    # The OpenAI API's other fields, each with the values that ask for nothing.
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
    # Fields that vLLM and SGLang share.
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
}
NEUTRAL_IN_MESSAGE: Mapping[str, tuple[object, ...]] = {
    # A client that sends an earlier answer back sends these along.
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}
ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A chat request that makes sense. Absent fields have the OpenAI API's defaults."""

    model: str
    messages: tuple[Message, ...]
    params: SamplingParams
    num_answers: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    user: str = ""
    """The caller's own word for whoever asks."""


def read_chat_request(value: object) -> ChatRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, with up to 10 problems; `param` and `code` are those of the first.
    """
    if not isinstance(value, dict):
        raise Refusal(f"The body must be a JSON object, not {kind_of(value)}.", code="invalid_type")
    problems = Problems()
    fields = Fields(value, problems=problems)
    fields.check_names(SUPPORTED, NEUTRAL)
    request = ChatRequest(
        model=fields.text("model", required=True),
        messages=read_messages(fields),
        params=read_params(
            fields,
            max_tokens=_read_max_tokens(fields),
            num_logprobs=_read_logprobs(fields),
            schema=_read_schema(fields),
        ),
        num_answers=fields.whole("n", low=1, high=MAX_ANSWERS) or 1,
        stop=read_stop(fields, most=MAX_STOPS),
        stream=fields.flag("stream"),
        include_usage=read_include_usage(fields),
        user=_read_user(fields),
    )
    fields.of_type("metadata", dict, "an object")
    fields.text("prompt_cache_key")  # what was kept of any prompt is found without one
    problems.raise_if_any()
    return request


def _read_user(fields: Fields) -> str:
    """OpenAI's newer name for whoever asks says no more than the older one."""
    newer = fields.text("safety_identifier")
    return fields.text("user") or newer


def _read_max_tokens(fields: Fields) -> int | None:
    old = fields.whole("max_tokens", low=1, high=2**31)
    new = fields.whole("max_completion_tokens", low=1, high=2**31)
    if old is not None and new is not None and old != new:
        fields.wrong("max_tokens", f"{old} contradicts max_completion_tokens, {new}; set one of the two")
    return old if new is None else new


def _read_logprobs(fields: Fields) -> int | None:
    others = fields.whole("top_logprobs", low=0, high=MAX_LOGPROBS)
    if fields.flag("logprobs"):
        return others or 0
    if others:
        fields.wrong("top_logprobs", "only together with `logprobs: true`")
    return None


def _read_schema(fields: Fields) -> Mapping[str, Any] | None:
    """The schema that `response_format` asks for; None for plain text."""
    value = fields.of_type("response_format", dict, "an object")
    if value is None:
        return None
    form = Fields(value, problems=fields.problems, where="response_format.")
    kind = form.text("type", required=True)
    if kind == "text":
        form.check_names(frozenset({"type"}), {})
        return None
    if kind == "json_object":
        form.check_names(frozenset({"type"}), {})
        return {"type": "object"}
    if kind != "json_schema":
        form.wrong("type", f"must be text, json_object or json_schema, not {clipped(kind)!r}")
        return None
    form.check_names(frozenset({"type", "json_schema"}), {})
    given = Fields(
        form.of_type("json_schema", dict, "an object", required=True) or {},
        problems=fields.problems,
        where="response_format.json_schema.",
    )
    given.check_names(frozenset({"name", "schema", "strict", "description"}), {})
    given.text("name", required=True)
    given.flag("strict")  # a schema is always kept to
    given.text("description")
    schema: Mapping[str, Any] | None = given.of_type("schema", dict, "an object", required=True)
    return schema


def read_stop(fields: Fields, *, most: int) -> tuple[str, ...]:
    """The field `stop` of a request: at most so many strings."""
    value = fields.of_type("stop", (str, list), f"a string or a list of up to {most}")
    stops = [value] if isinstance(value, str) else value or []
    if len(stops) > most:
        fields.wrong("stop", f"at most {most} strings, not {len(stops)}")
    elif not all(isinstance(stop, str) for stop in stops):
        fields.wrong("stop", "must hold strings only", code="invalid_type")
    elif not all(0 < len(stop) <= MAX_STOP_LENGTH for stop in stops):
        fields.wrong("stop", f"each string needs 1 to {MAX_STOP_LENGTH:,} characters")
    else:
        return tuple(stops)
    return ()


def read_include_usage(fields: Fields) -> bool:
    """The field `stream_options` of a request."""
    value = fields.of_type("stream_options", dict, "an object")
    if value is None:
        return False
    if fields.value.get("stream") is not True:
        fields.wrong("stream_options", "only together with `stream: true`")
    options = Fields(value, problems=fields.problems, where="stream_options.")
    options.check_names(frozenset({"include_usage"}), {"include_obfuscation": (False,)})
    return options.flag("include_usage")


def read_messages(fields: Fields) -> tuple[Message, ...]:
    """The field `messages` of a request."""
    value = fields.of_type("messages", list, "a list", required=True)
    if value is None:
        return ()
    if not 0 < len(value) <= MAX_MESSAGES:
        fields.wrong("messages", f"needs 1 to {MAX_MESSAGES:,} messages, not {len(value):,}")
        return ()
    return tuple(_read_message(item, at=f"messages[{i}]", problems=fields.problems) for i, item in enumerate(value))


def _read_message(item: object, *, at: str, problems: Problems) -> Message:
    if not isinstance(item, dict):
        problems.add(Problem(f"must be an object, not {kind_of(item)}", at, "invalid_type"))
        return Message(role=Role.USER, content="")
    fields = Fields(item, problems=problems, where=f"{at}.")
    fields.check_names(frozenset({"role", "content"}), NEUTRAL_IN_MESSAGE)
    role = fields.text("role", required=True)
    if role in ("tool", "function"):
        fields.wrong("role", "tools are not supported by this server", code="unsupported_parameter")
    elif role and role not in ROLES:
        fields.wrong("role", f"must be one of {', '.join(sorted(ROLES))}, not {clipped(role)!r}")
    return Message(role=ROLES.get(role, Role.USER), content=_read_content(fields, at=at, problems=problems))


def _read_content(fields: Fields, *, at: str, problems: Problems) -> str:
    """A string, or the texts of a list of parts, each on its own line (as vLLM joins them)."""
    content = fields.of_type("content", (str, list), "a string or a list of text parts", required=True)
    if not isinstance(content, list):
        return content or ""
    if not content:
        fields.wrong("content", "needs at least one part")
    return "\n".join(_read_part(part, at=f"{at}.content[{i}]", problems=problems) for i, part in enumerate(content))


def _read_part(part: object, *, at: str, problems: Problems) -> str:
    if not isinstance(part, dict):
        problems.add(Problem(f"must be an object, not {kind_of(part)}", at, "invalid_type"))
        return ""
    fields = Fields(part, problems=problems, where=f"{at}.")
    kind = fields.text("type", required=True)
    if kind != "text":
        if kind:
            fields.wrong("type", f"only text parts are supported, not {clipped(kind)!r}", code="unsupported_parameter")
        return ""
    fields.check_names(frozenset({"type", "text"}), {})
    return fields.text("text", required=True)

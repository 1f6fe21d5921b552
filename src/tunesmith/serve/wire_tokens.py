"""Parsed bodies to requests: what a client may ask of `/v1/completions`, `/tokenize` and `/detokenize`.

The shapes are OpenAI's and vLLM's. As in `wire`, nothing that a client sets is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.records import Message
from tunesmith.serve.answer_id import MAX_ANSWERS
from tunesmith.serve.engine import SamplingParams
from tunesmith.serve.fields import Fields, Problems, kind_of, whole_number
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.wire import read_include_usage, read_messages, read_stop
from tunesmith.serve.wire_sampling import SAMPLING, read_params

__all__ = [
    "CompletionRequest",
    "DetokenizeRequest",
    "TokenizeRequest",
    "fields_of",
    "read_completion_request",
    "read_detokenize_request",
    "read_texts",
    "read_tokenize_request",
]

MAX_PROMPTS = 64
MAX_LOGPROBS = 20
MAX_STOPS = 16
"""More than in a chat: whoever measures a model stops at every mark that its task knows."""
MAX_TOKEN_ID = 2**31 - 1
DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint."""
COMPLETION = frozenset(
    [
        *("model", "prompt", "max_tokens", "echo", "logprobs", "user", "n", "best_of", "stop", "stream", "stream_options"),
        *SAMPLING,
    ]
)
COMPLETION_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "suffix": ("",),
    # Fields of vLLM and SGLang.
    "add_special_tokens": (True,),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "stop_token_ids": ([],),
}
TOKENIZE = frozenset(["model", "prompt", "messages", "add_special_tokens", "return_token_strs"])
TOKENIZE_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "tools": ([],),
}
_DETOKENIZE = frozenset(["model", "tokens"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Plain prompts to go on with, or to be scored."""

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    """Texts, or token ids."""
    max_tokens: int
    """0: nothing is generated, and the prompt is echoed."""
    echo: bool
    num_answers: int
    """To each prompt."""
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    params: SamplingParams
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeRequest:
    """A text or a conversation whose tokens are wanted."""

    model: str
    """Empty where there is only one."""
    content: str | tuple[Message, ...]
    begun: bool
    """Whether a text begins as this model's texts do."""
    with_texts: bool

    @property
    def contents(self) -> list[str]:
        """What is to be read."""
        return [self.content] if isinstance(self.content, str) else [message.content for message in self.content]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetokenizeRequest:
    """Tokens whose text is wanted."""

    model: str
    """Empty where there is only one."""
    tokens: tuple[int, ...]

    @property
    def contents(self) -> list[tuple[int, ...]]:
        """What is to be read."""
        return [self.tokens]


def read_completion_request(value: object) -> CompletionRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, with up to 10 problems; `param` and `code` are those of the first.
    """
    fields = fields_of(value)
    fields.check_names(COMPLETION, COMPLETION_NEUTRAL)
    given, echo = fields.whole("max_tokens", low=0, high=2**31), fields.flag("echo")
    if given == 0 and not echo:
        fields.wrong("max_tokens", "0 generates nothing; together with `echo: true` it scores the prompt")
    request = CompletionRequest(
        model=fields.text("model", required=True),
        prompts=read_texts(fields, "prompt", most=MAX_PROMPTS),
        max_tokens=DEFAULT_MAX_TOKENS if given is None else given,
        echo=echo,
        num_answers=_read_num_answers(fields),
        stop=read_stop(fields, most=MAX_STOPS),
        stream=fields.flag("stream"),
        include_usage=read_include_usage(fields),
        params=read_params(
            fields, max_tokens=given or DEFAULT_MAX_TOKENS, num_logprobs=fields.whole("logprobs", low=0, high=MAX_LOGPROBS)
        ),
        user=fields.text("user"),
    )
    fields.problems.raise_if_any()
    return request


def read_tokenize_request(value: object) -> TokenizeRequest:
    """Check a parsed body: `prompt`, a text, or `messages`, a conversation.

    Raises:
        Refusal: as of `read_completion_request`.
    """
    fields = fields_of(value)
    fields.check_names(TOKENIZE, TOKENIZE_NEUTRAL)
    is_chat = fields.value.get("messages") is not None
    if is_chat and fields.value.get("prompt") is not None:
        fields.wrong("prompt", "set either `prompt` or `messages`, not both")
    begun = fields.of_type("add_special_tokens", bool, "true or false")
    if is_chat and begun:
        fields.wrong("add_special_tokens", "a conversation begins as its template says; leave this out")
    request = TokenizeRequest(
        model=fields.text("model"),
        content=read_messages(fields) if is_chat else fields.text("prompt", required=True),
        begun=begun is not False,
        with_texts=fields.flag("return_token_strs"),
    )
    fields.problems.raise_if_any()
    return request


def read_detokenize_request(value: object) -> DetokenizeRequest:
    """Check a parsed body.

    Raises:
        Refusal: as of `read_completion_request`.
    """
    fields = fields_of(value)
    fields.check_names(_DETOKENIZE, {})
    tokens = fields.of_type("tokens", list, "a list of token ids", required=True) or []
    if not all(map(_is_id, tokens)):
        fields.wrong("tokens", f"must hold token ids only (whole numbers from 0 to {MAX_TOKEN_ID})", code="invalid_type")
    request = DetokenizeRequest(model=fields.text("model"), tokens=tuple(int(token) for token in tokens if _is_id(token)))
    fields.problems.raise_if_any()
    return request


def fields_of(value: object) -> Fields:
    """The fields of a parsed body.

    Raises:
        Refusal: 400, it is no object.
    """
    if not isinstance(value, dict):
        raise Refusal(f"The body must be a JSON object, not {kind_of(value)}.", code="invalid_type")
    return Fields(value, problems=Problems())


def _read_num_answers(fields: Fields) -> int:
    num = fields.whole("n", low=1, high=MAX_ANSWERS) or 1
    best_of = fields.whole("best_of", low=1, high=MAX_ANSWERS)
    if best_of not in (None, num):
        message = f"every answer is given, so it can only be as `n` is, {num}; leave it out"
        fields.wrong("best_of", message, code="unsupported_parameter")
    return num


def read_texts(fields: Fields, name: str, *, most: int) -> tuple[str | tuple[int, ...], ...]:
    """A field that holds a text, token ids, or a list of either."""
    value = fields.of_type(name, (str, list), "a text, a list of token ids, or a list of either", required=True)
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) or (value and _is_id(value[0])) else value
    if not 0 < len(texts) <= most:
        fields.wrong(name, f"needs 1 to {most:,} texts, not {len(texts):,}")
        return ()
    return tuple(_read_text(text, name, fields=fields) for text in texts)


def _read_text(text: Any, name: str, *, fields: Fields) -> str | tuple[int, ...]:
    if isinstance(text, str) and text:
        return text
    if isinstance(text, list) and text and all(map(_is_id, text)):
        return tuple(map(int, text))
    fields.wrong(
        name,
        f"each must be a text or a list of token ids (whole numbers from 0 to {MAX_TOKEN_ID}), and not empty",
        code="invalid_type",
    )
    return ""


def _is_id(value: object) -> bool:
    number = whole_number(value)
    return number is not None and 0 <= number <= MAX_TOKEN_ID

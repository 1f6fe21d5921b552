"""Parsed bodies to `CompletionRequest` and `TokenizeRequest`: what a client may ask of `/v1/completions` and `/tokenize`.

The shapes are OpenAI's and vLLM's. As in `wire`, nothing that a client sets is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.records import Message
from tunesmith.serve.engine import SamplingParams
from tunesmith.serve.fields import Fields, Problems, kind_of
from tunesmith.serve.refusal import Refusal
from tunesmith.serve.wire import read_messages
from tunesmith.serve.wire_sampling import SAMPLING, read_params

__all__ = ["CompletionRequest", "TokenizeRequest", "read_completion_request", "read_tokenize_request"]

_MAX_PROMPTS = 64
_MAX_LOGPROBS = 20
_DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint."""
_COMPLETION = frozenset(["model", "prompt", "max_tokens", "echo", "logprobs", "user", *SAMPLING])
_COMPLETION_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "best_of": (1,),
    "n": (1,),
    "stop": ([],),
    "stream": (False,),
    "stream_options": (),
    "suffix": (),
    # Fields of vLLM and SGLang.
    "add_special_tokens": (True,),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "stop_token_ids": ([],),
}
_TOKENIZE = frozenset(["model", "prompt", "messages", "add_special_tokens", "return_token_strs"])
_TOKENIZE_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "tools": ([],),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Plain prompts to go on with, or to be scored."""

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    """Texts, or token ids."""
    max_tokens: int
    """0: nothing is generated, and the prompt is echoed."""
    echo: bool
    params: SamplingParams
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeRequest:
    """A text or a conversation whose tokens are wanted."""

    model: str
    content: str | tuple[Message, ...]
    begun: bool
    """Whether a text begins as this model's texts do."""
    with_texts: bool
    user: str = ""


def read_completion_request(value: object) -> CompletionRequest:
    """Check a parsed body.

    Raises:
        Refusal: 400, with up to 10 problems; `param` and `code` are those of the first.
    """
    fields = _fields(value)
    fields.check_names(_COMPLETION, _COMPLETION_NEUTRAL)
    given, echo = fields.whole("max_tokens", low=0, high=2**31), fields.flag("echo")
    if given == 0 and not echo:
        fields.wrong("max_tokens", "0 generates nothing; together with `echo: true` it scores the prompt")
    request = CompletionRequest(
        model=fields.text("model", required=True),
        prompts=_read_prompts(fields),
        max_tokens=_DEFAULT_MAX_TOKENS if given is None else given,
        echo=echo,
        params=read_params(
            fields, max_tokens=given or _DEFAULT_MAX_TOKENS, num_logprobs=fields.whole("logprobs", low=0, high=_MAX_LOGPROBS)
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
    fields = _fields(value)
    fields.check_names(_TOKENIZE, _TOKENIZE_NEUTRAL)
    is_chat = fields.value.get("messages") is not None
    if is_chat and fields.value.get("prompt") is not None:
        fields.wrong("prompt", "set either `prompt` or `messages`, not both")
    begun = fields.of_type("add_special_tokens", bool, "true or false")
    if is_chat and begun:
        fields.wrong("add_special_tokens", "a conversation begins as its template says; leave this out")
    request = TokenizeRequest(
        model=fields.text("model", required=True),
        content=read_messages(fields) if is_chat else fields.text("prompt", required=True),
        begun=begun is not False,
        with_texts=fields.flag("return_token_strs"),
    )
    fields.problems.raise_if_any()
    return request


def _fields(value: object) -> Fields:
    if not isinstance(value, dict):
        raise Refusal(f"The body must be a JSON object, not {kind_of(value)}.", code="invalid_type")
    return Fields(value, problems=Problems())


def _read_prompts(fields: Fields) -> tuple[str | tuple[int, ...], ...]:
    value = fields.of_type("prompt", (str, list), "a text, a list of token ids, or a list of either", required=True)
    if value is None:
        return ()
    prompts = [value] if isinstance(value, str) or (value and _is_id(value[0])) else value
    if not 0 < len(prompts) <= _MAX_PROMPTS:
        fields.wrong("prompt", f"needs 1 to {_MAX_PROMPTS} prompts, not {len(prompts)}")
        return ()
    return tuple(_read_prompt(prompt, fields=fields) for prompt in prompts)


def _read_prompt(prompt: Any, *, fields: Fields) -> str | tuple[int, ...]:
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(map(_is_id, prompt)):
        return tuple(prompt)
    fields.wrong(
        "prompt", "each prompt must be a text or a list of token ids (whole numbers from 0), and not empty", code="invalid_type"
    )
    return ""


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

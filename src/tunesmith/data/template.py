"""A chat template: the jinja text that lays out a conversation, rendered in a sandbox as transformers renders it.

Knows text only; tokens are `chat`'s concern. A template comes with the base and is untrusted, so it runs in jinja's immutable
sandbox with a budget (`sandbox`) and sees nothing but plain strings. One difference from transformers is meant: `strftime_now`
always answers for one fixed day, because a prompt that holds today's date would differ between the days of training and serving.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from tunesmith.data.sandbox import MeteredSandbox, budget
from tunesmith.data.tools import with_texts
from tunesmith.errors import ModelError
from tunesmith.records import Message

__all__ = ["CHATML", "CHATML_WITHOUT_TOKENS", "ChatTemplate", "TemplateRefused", "read_template"]

# Tools stand at the end of the system turn, one definition a line, between the tags of Hermes and Qwen; a call is written as
# `turns` writes it. A conversation without tools is printed as if nothing of this were here.
_CHATML_TOOLS = (
    "{% set turns = messages %}{% if tools %}{% set system = '' %}"
    "{% if messages and messages[0]['role'] == 'system' %}"
    "{% set turns = messages[1:] %}{% set system = messages[0]['content'] + '\\n\\n' %}{% endif %}"
    "{{ '<|im_start|>system\\n' + system + 'You can call these tools:\\n<tools>\\n' }}"
    "{{ tools | map('tojson') | join('\\n') }}"
    "{{ '\\n</tools>\\nA call is written so:\\n<tool_call>\\n"
    '{"name": "the name", "arguments": {"the parameter": "its value"}}'
    "\\n</tool_call>' + '<|im_end|>' + '\\n' }}{% endif %}"
)
_CHATML_ASKS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

CHATML = (
    f"{_CHATML_TOOLS}"
    "{% for message in turns %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    f"{_CHATML_ASKS}"
)

# For a vocabulary without ChatML's tokens: its marks are then ordinary text, and an assistant turn ends with EOS.
CHATML_WITHOUT_TOKENS = (
    f"{_CHATML_TOOLS}"
    "{% for message in turns %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '<|im_end|>' }}{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    f"{_CHATML_ASKS}"
)

# The day that Llama's own templates fall back on.
_FIXED_DAY = datetime(2024, 7, 26)

# What JSON escapes, but for the non-characters by which `tokenizer` marks contents; and such a mark as Python escapes it.
_ESCAPED = re.compile("[^\x00-\x7f\ufdd0-\ufdef]")
_ESCAPED_MARK = re.compile(r"(\\\\)|\\u(fd[de][0-9a-f])")


class TemplateRefused(Exception):
    """The template cannot lay out this conversation (a role it does not know, turns out of order)."""


class _Text(str):
    """A text of a tool. A template may print the whole list as Python spells it: non-characters are not escaped there either."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _ESCAPED_MARK.sub(lambda match: match[1] or chr(int(match[2], 16)), super().__repr__())


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` marks an answer for other trainers; here it only shows its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return _FIXED_DAY.strftime(pattern)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without jinja's HTML escapes. Non-characters are never escaped: they mark what must not become a control token."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _ESCAPED.sub(lambda match: json.dumps(match[0])[1:-1], text) if ensure_ascii else text


@lru_cache(maxsize=16)
def _compile(text: str) -> jinja2.Template:
    with budget(num_characters=len(text)):  # constant expressions are computed here
        return _ENVIRONMENT.from_string(text)


_ENVIRONMENT = MeteredSandbox(
    functions={"raise_exception": _raise_exception, "strftime_now": _strftime_now},
    filters={"tojson": _tojson},
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, "jinja2.ext.loopcontrols"],
)


class ChatTemplate:
    """One template with the special tokens it may print.

    Args:
        text: the jinja source.
        name: where it came from, for messages.
        special_tokens: `bos_token`, `eos_token` and so on; an unset one is undefined in the template, as in transformers.
        tools: definitions of the tools offered, as plain values.
    """

    def __init__(
        self, text: str, *, name: str, special_tokens: Mapping[str, str], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self.text = text
        self.name = name
        self.tools = tools
        self._special_tokens = special_tokens
        self._names = {**_ENVIRONMENT.globals, **special_tokens, "tools": tools, "documents": None}
        self._num_given = len(text) + len(json.dumps(tools, ensure_ascii=False, default=str) if tools else "")

    def offering(self, tools: Sequence[Mapping[str, Any]]) -> ChatTemplate:
        """The same template for conversations that offer tools."""
        return ChatTemplate(self.text, name=self.name, special_tokens=self._special_tokens, tools=with_texts(tools, _Text))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Lay out a conversation as text.

        Raises:
            TemplateRefused: the template raised, or failed on this conversation.
        """
        plain = [{"role": message.role.value, "content": message.content} for message in messages]
        template = _compile(self.text)
        # What Template.render does, without rebuilding its globals for each of the many small renderings: 30 µs become 15.
        names = {**self._names, "messages": plain, "add_generation_prompt": add_generation_prompt}
        context = template.environment.context_class(template.environment, names, template.name, template.blocks)
        try:
            num_characters = self._num_given + sum(len(message.content) for message in messages)
            with budget(num_characters=num_characters, num_messages=len(messages)):
                return "".join(template.root_render_func(context))
        except jinja2.TemplateError as error:
            raise TemplateRefused((error.message or type(error).__name__)[:500]) from error
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError, MemoryError) as error:
            # A template is a program: what fails in its expressions is told like what it refuses.
            raise TemplateRefused(f"{type(error).__name__}: {error}") from error

    def check(self) -> None:
        """Compile the template.

        Raises:
            ModelError: it is not valid jinja.
        """
        try:
            _compile(self.text)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"{self.name}: the chat template is not valid jinja (line {error.lineno}): {error.message}"
            ) from error


def read_template(folder: Path, configuration: Mapping[str, object]) -> tuple[str, str] | None:
    """Find a folder's chat template and its name: in `chat_template.jinja`, else in the tokenizer's configuration."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8"), f"{folder.name}/{path.name}"
    name = f"{folder.name}/tokenizer_config.json"
    found = configuration.get("chat_template")
    if isinstance(found, str):
        return found, name
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        if isinstance(named.get("default"), str):
            return str(named["default"]), name
        raise ModelError(f"{name}: chat_template is a list without a template named `default`; it has {sorted(map(str, named))}")
    return None

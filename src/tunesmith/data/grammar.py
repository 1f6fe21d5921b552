"""Answers that must have a shape: JSON, or JSON of a schema. Which tokens may come next is worked out by the library llguidance.

Everything it accepts in a schema it keeps to; a keyword that it does not know is an error that names it, and never ignored.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.chat import ChatFormat
from tunesmith.errors import DataError, UserError

__all__ = ["AnswerShape", "AnswerShapes"]

_NOT_FOR_CLIENTS = re.compile(r"\s*<state>|\.? Enable '")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
MAX_SCHEMA = 64 * 1024
"""Characters of a schema."""


class AnswerShapes:
    """Shapes for the answers of one chat format."""

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat

    def json_object(self) -> AnswerShape:
        """Any JSON object."""
        return self.json_schema(_ANY_OBJECT)

    def json_schema(self, schema: Mapping[str, Any] | bool) -> AnswerShape:
        """JSON that a schema describes.

        Raises:
            DataError: it is too large or too complicated, contradicts itself, or uses a keyword that is not supported.
            UserError: the library is not installed.
        """
        # Between its parts blanks could go on for ever, and small models would let them.
        layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        text = json.dumps({"x-guidance": layout, **schema} if isinstance(schema, Mapping) else schema)
        if len(text) > MAX_SCHEMA:
            raise DataError(f"the schema has {len(text):,} characters; {MAX_SCHEMA:,} is the most that is read")
        matcher_type = _library().LLMatcher
        try:
            grammar = matcher_type.grammar_from_json_schema(text)
        except ValueError as error:
            raise DataError(f"the schema cannot be used: {_in_short(str(error))}") from error
        matcher = matcher_type(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise DataError(f"the schema cannot be used: {_in_short(matcher.get_error())}")
        return AnswerShape(matcher, num_tokens=self._chat.num_tokens)

    @cached_property
    def _tokenizer(self) -> Any:
        definition = json.dumps(_out_of_reach(json.loads(self._chat.definition)))
        return _library().LLTokenizer(definition, eos_token=list(self._chat.stop_tokens))


def _out_of_reach(definition: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer whose control tokens have names that nobody can write.

    Where only one text may come next, the library tokenizes it, and takes the name of a control token in it for the token itself:
    an answer that must be `"<|im_end|>"` would end behind its quote.
    """
    new = {one["content"]: f"<|{secrets.token_hex(16)}|>" for one in definition.get("added_tokens", []) if one["special"]}
    added = [one | {"content": new.get(one["content"], one["content"])} for one in definition.get("added_tokens", [])]
    model = dict(definition["model"])
    if isinstance(model.get("vocab"), Mapping):
        model["vocab"] = {new.get(text, text): token for text, token in model["vocab"].items()}
    elif "vocab" in model:  # of a unigram model, each with its score
        model["vocab"] = [[new.get(text, text), score] for text, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = new.get(model["unk_token"], model["unk_token"])
    return definition | {"added_tokens": added, "model": model}


class AnswerShape:
    """One answer on its way. It is a `Constraint` of the model's batch."""

    def __init__(self, matcher: Any, *, num_tokens: int) -> None:
        self._matcher = matcher
        self._num_tokens = num_tokens

    def allowed(self) -> NDArray[np.bool_]:
        """Shape (V,): False where a token may not come next.

        Raises:
            DataError: the shape has become too complicated to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        return np.unpackbits(bits, bitorder="little")[: self._num_tokens].astype(bool)

    def accept(self, token: int) -> None:
        """Hear which token came."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._matcher.is_accepting())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise DataError(f"the answer's shape cannot be followed: {_in_short(self._matcher.get_error())}")


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UserError("answers of a given shape need the package llguidance: pip install 'tunesmith[json]'") from error
    return llguidance


def _in_short(message: str) -> str:
    """In one line, without the library's state and its advice to programmers."""
    told = _NOT_FOR_CLIENTS.split(message, maxsplit=1)[0]
    told = " ".join(word for word in told.split() if word != "^")
    return "it asks for itself without an end, or for nothing that could be written" if told.isalpha() else told[:300]

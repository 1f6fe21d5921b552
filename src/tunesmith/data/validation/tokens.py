"""Rows as the model will read them: how long each is, how much of it is learned, and what the chat template refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.validation.finding import Found
from tunesmith.records import Dropped, Record, Source

if TYPE_CHECKING:
    from tunesmith.data.chat import ChatFormat
    from tunesmith.data.formats import Converted
    from tunesmith.data.validation.row import Checked
    from tunesmith.data.validation.validating import Validation

__all__ = ["TokenCheck"]

_NOWHERE = Source(path="", line=0)


class TokenCheck:
    """Renders rows with a tokenizer and its chat template."""

    def __init__(self, chat: ChatFormat, *, max_tokens: int) -> None:
        self._chat = chat
        self._max_tokens = max_tokens

    def check(self, rows: Sequence[Checked], *, count_in: Validation | None = None) -> None:
        """Render what can be rendered; add what is found to the rows, and the lengths to the statistics of a validation."""
        whole = [row for row in rows if not any(each.code in {"lone_surrogate", "not_utf8"} for each in row.found)]
        sound = [(row, _record(one)) for row in whole for one in row.read]
        for (row, record), rendered in zip(sound, self._chat.render_many(record for _, record in sound), strict=True):
            if isinstance(rendered, Dropped):
                row.found.append(Found("template_refused", rendered.detail))
                continue
            if record.tools and not self._chat.prints_tools(record):
                row.found.append(Found("tools_not_printed", "the chat template does not print the tools that the row offers"))
            # A template that rewrites earlier turns gives a sequence for each answer: the longest is what must fit.
            length = max((len(one.tokens) for one in rendered), default=0)
            learned = sum(weight > 0 for one in rendered for weight in one.weights)
            if count_in is not None:
                count_in.statistics.tokens_per_row.counts[length] += 1
                count_in.statistics.learned_tokens_per_row.counts[learned] += 1
                count_in.num_over_limit = (count_in.num_over_limit or 0) + (length > self._max_tokens)
            if not learned:
                row.found.append(Found("nothing_learned", "no token of the row would be trained on"))
            if length > self._max_tokens:
                told = f"{length:,} tokens, the limit is {self._max_tokens:,}"
                row.found.append(Found("over_token_limit", told, value=length))


def _record(read: Converted) -> Record:
    if isinstance(read.content, str):
        return Record(id="", source=_NOWHERE, text=read.content, tools=read.tools)
    return Record(id="", source=_NOWHERE, messages=read.content, tools=read.tools)

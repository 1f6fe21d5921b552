"""Every kind of finding: how grave it is, what mends it, and who else refuses it.

The first block bears the names that the OpenAI cookbook's notebook on chat data gives them and counts as it does: once for a
message, whatever else is wrong with it. `refused_by` names the guides by whose rules the row is an error even where tunesmith
could train on it: `openai` (the cookbook's notebook), `mistral` (mistral-finetune's validator with its request validator, v3).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

__all__ = ["CODES", "Code", "GuideName"]

GuideName = Literal["openai", "mistral"]

_BOTH = frozenset({"openai", "mistral"})
_OPENAI = frozenset({"openai"})
_MISTRAL = frozenset({"mistral"})


class Code(NamedTuple):
    """One kind of finding."""

    severity: Literal["error", "warning"]
    mend: str
    is_fixable: bool = False
    """Whether `--fix` makes the mend as a rule; a check may know better in a single case."""
    refused_by: frozenset[str] = frozenset()


_CHAT = {
    "data_type": Code("error", "Write one JSON object on each line.", refused_by=_BOTH),
    "missing_messages_list": Code("error", "Give the row a list `messages` with at least one message.", refused_by=_BOTH),
    "message_missing_key": Code("error", "Give every message `role` and `content`.", refused_by=_BOTH),
    "message_unrecognized_key": Code("warning", "Take the key out; nothing reads it.", True, _OPENAI),
    "unrecognized_role": Code("error", "Use system, user, assistant or tool.", refused_by=_BOTH),
    "missing_content": Code("error", "Give the message its text, or take it out.", refused_by=_OPENAI),
    "example_missing_assistant_message": Code("error", "Add the answer that is to be learned.", refused_by=_BOTH),
    "missing_user_message": Code("warning", "Add the question, unless answers without one are meant."),
    "over_token_limit": Code("warning", "Shorten or divide the row, or train with a longer `train.max_length`."),
}
_ORDER = {
    "last_message_not_assistant": Code("error", "End with an answer; what follows the last one teaches nothing.", True, _MISTRAL),
    "nothing_supervised": Code("error", "Give at least one answer a weight above 0."),
    "roles_do_not_alternate": Code("warning", "Join turns of the same speaker; some chat templates refuse them.", True),
    "starts_with_assistant": Code("warning", "Begin with a question; some chat templates refuse anything else."),
    "system_not_first": Code("warning", "Put the system prompt first; many chat templates refuse it elsewhere.", True),
    "multiple_system_messages": Code("warning", "Keep one system prompt.", True, _MISTRAL),
    "two_system_prompts": Code("error", "Keep one of the two, or join them."),
    "unexpected_role": Code(
        "warning", "Put the turns in order: system, user, assistant, tool results, assistant.", refused_by=_MISTRAL
    ),
    "wrong_type": Code("error", "Give the value the type that its key needs.", refused_by=_BOTH),
    "blank_content": Code("error", "Give the message its text, or take it out."),
    "wrong_weight": Code("error", "Set `weight` to 0 (context only) or 1 (learned).", refused_by=_BOTH),
    "weight_not_0_or_1": Code("warning", "tunesmith scales the loss by it; other tools know only 0 and 1.", refused_by=_BOTH),
    "only_last": Code(
        "warning", "Say it by weights: 0 for every answer but the last. tunesmith does not read `only_last`.", True
    ),
    "two_message_lists": Code("error", "Keep one of the two lists.", refused_by=_MISTRAL),
    "two_contents": Code("warning", "Keep `content`, and take `text` out.", refused_by=_MISTRAL),
}
_TOOLS = {
    "tool_call_format": Code("error", "A call has `id` and `function` with `name` and `arguments`.", refused_by=_MISTRAL),
    "tool_arguments_not_json": Code("error", "Write the arguments as a JSON object in a string.", refused_by=_BOTH),
    "tool_arguments_not_text": Code("warning", "Write the arguments as a string that holds JSON.", True, _BOTH),
    "tool_name": Code("warning", "Use letters, digits, _ and -, at most 64 of them.", refused_by=_BOTH),
    "tool_call_id_format": Code(
        "warning", "Use nine letters or digits: templates of Mistral refuse anything else.", True, _MISTRAL
    ),
    "tool_call_id_missing": Code("error", "Give the result the `tool_call_id` of the call that it answers.", refused_by=_BOTH),
    "tool_result_without_call": Code(
        "error", "Give the result the id of a call that stands before it, or take it out.", refused_by=_BOTH
    ),
    "tool_call_without_result": Code(
        "error", "Add a `tool` message with the result before the conversation goes on.", refused_by=_BOTH
    ),
    "content_and_tool_calls": Code("warning", "Put the words and the calls into messages of their own.", refused_by=_MISTRAL),
    "tool_definition": Code(
        "warning", "A tool has `function` with `name`, `description` and `parameters` (an object).", refused_by=_MISTRAL
    ),
    "two_tool_lists": Code("error", "Keep `tools`, and take `available_tools` out.", refused_by=_MISTRAL),
    "unknown_tool": Code("warning", "Offer the tool in `tools`, or correct its name."),
    "legacy_function_role": Code(
        "warning", "Use the role `tool` and `tool_calls`; `function` and `function_call` are their old names.", True, _MISTRAL
    ),
}
_LINES = {
    "malformed_json": Code("error", "Write one JSON object on each line.", refused_by=_BOTH),
    "malformed_csv": Code("error", "Close the quote, or write one within a quoted cell twice."),
    "duplicate_key": Code("error", "Keep one of the two values.", refused_by=frozenset()),
    "not_utf8": Code("error", "Save the file as UTF-8. `tunesmith data read` finds out what it is now.", refused_by=_BOTH),
    "byte_order_mark": Code("warning", "Save the file as UTF-8 without a byte order mark.", True),
    "blank_line": Code("warning", "Take the line out.", True, _BOTH),
    "duplicate_id": Code("warning", "Give every row an id of its own, or take the second out."),
}
_TEXTS = {
    "lone_surrogate": Code("error", "Half a character: take it out, or write the whole one.", True),
    "control_character": Code("warning", "Take it out.", True),
    "control_token": Code(
        "warning", "Take the token out: the chat template writes it, and in a text it is only its letters.", True
    ),
    "mojibake": Code("warning", "Text that was decoded wrongly once: `data clean` step `unicode`, or --fix.", True),
    "replacement_character": Code("warning", "Something was lost when the text was decoded: take it from the source again."),
    "template_placeholder": Code("warning", "Fill it in, or drop the row: the model will learn to say it."),
    "html_leftover": Code("warning", "Take the mark-up out: `data clean` step `boilerplate`."),
    "answer_equals_question": Code("warning", "Write the answer, or drop the row."),
    "truncated_answer": Code("warning", "Complete the answer: the model will learn to stop in the middle."),
    "no_real_answer": Code("warning", "Write the answer, or drop the row."),
    "language_mix": Code("warning", "Answer in the language of the question, unless translating is the task."),
    "template_refused": Code("error", "Change the order of the turns, or give the base another chat template."),
    "tools_not_printed": Code(
        "warning", "Take a base whose chat template prints `tools`; with this one the model never sees them."
    ),
    "nothing_learned": Code("error", "No token of the row would be trained on; see that it has an answer."),
}
# What a reader of a layout other than messages refuses; its reasons are the codes.
_READING = {
    "missing_field": Code("error", "Fill in the missing value, or drop the row."),
    "empty_content": Code("error", "Fill in the missing text, or drop the row."),
    "unusable": Code("error", "Mend the row as the message says, or drop it."),
}

CODES: Mapping[str, Code] = MappingProxyType(_CHAT | _ORDER | _TOOLS | _LINES | _TEXTS | _READING)
"""Every code, the gravest kinds first."""

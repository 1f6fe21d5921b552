"""Rows that hold several: a tree of replies, a task with instances, a document with questions. Each becomes flat rows.

A flat row has the keys of a format that `formats` knows, and beside them what stood beside the items. All flat rows of one row
bear one `group`, for they share a beginning, an instruction or a document, and a split must not part them: the row's own, or else
the hash of what they share, so that two rows with one document are one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tunesmith.data.fields import Row
from tunesmith.data.files import BadRow, shortened
from tunesmith.data.turns import is_dialogue, keys_of, kind_of_value, lines_of_dialogue, role_of, unknown_role
from tunesmith.records import Role

__all__ = [
    "LOWER_RANKED",
    "Item",
    "has_instances",
    "has_questions",
    "instances_of",
    "is_tree",
    "questions_of",
    "replies_of",
    "whole",
]

LOWER_RANKED = "lower_ranked"
"""Why an answer is left out that is sound, but has a better one beside it: no fault of the row."""

_ASKED = ("question", "query")
_ANSWERED = ("answers", "answer", "response")
_TASKS = ("instruction", "definition")
_DOCUMENTS = (
    *("document", "context", "passage", "paragraph", "article", "story", "transcript", "meeting", "dialogue"),
    *("text", "content", "body"),
)
_TITLE = 200
"""Characters of the longest text beside questions that is surely no document."""
_NODE_KEYS = frozenset({"prompt", "replies", "text", "content", "role", "rank", "deleted"})


class Item(NamedTuple):
    """One of those that a row holds: where it stands in it, and the flat row it becomes or what is wrong with it."""

    at: str
    row: Row | BadRow


def whole(row: Row) -> Iterator[Item]:
    """The one item of a row that holds no others."""
    yield Item("", row)


class _Node(NamedTuple):
    """A message of a tree, in the order of reading: a parent comes before its replies."""

    at: str
    parent: int
    """-1 at the root."""
    turn: Mapping[str, Any]
    is_answer: bool


def is_tree(row: Row) -> bool:
    """Whether a row is a message with replies, each with replies of its own, as Open Assistant has them."""
    return _root(row) is not None


def replies_of(row: Row, *, roles: Mapping[str, str]) -> Iterator[Item]:
    """A conversation for each last answer of a tree of messages.

    Where answers to one message have ranks, the best ranked is taken and the others are `lower_ranked`; every message of a user is
    followed. An answer that stands in several conversations is learned in the first, and has weight 0 in the others.
    """
    root = _root(row)
    if root is None:
        yield Item("", BadRow("missing_field", f"no message with `role` and `replies` is here; the row has {keys_of(row)}"))
        return
    nodes: list[_Node] = []
    for found in _nodes(root[0], root[1], roles=roles):
        if isinstance(found, Item):
            yield found
        else:
            nodes.append(found)
    shared = {key: value for key, value in row.items() if key not in _NODE_KEYS}
    shared |= _grouped(row, _said(nodes[0].turn) if nodes else "")
    learned: set[int] = set()
    ends = _last_answers(nodes)
    for end in ends:
        path: list[int] = []
        at = end
        while at >= 0:
            path.append(at)
            at = nodes[at].parent
        messages = []
        for at in reversed(path):
            weight = {"weight": 0} if at in learned else {}
            messages.append({"role": nodes[at].turn["role"], "content": _said(nodes[at].turn), **weight})
        learned.update(at for at in path if nodes[at].is_answer)
        yield Item(nodes[end].at, shared | {"messages": messages})
    if nodes and not ends:
        yield Item(
            "", BadRow("no_assistant_turn", "no assistant turn: nobody answers in the tree. Nothing would be learned from it.")
        )


def _root(row: Row) -> tuple[str, Mapping[str, Any]] | None:
    for at, node in (("prompt", row.get("prompt")), ("", row)):
        if isinstance(node, Mapping) and isinstance(node.get("role"), str) and isinstance(node.get("replies"), list):
            return at, node
    return None


def _nodes(at: str, root: object, *, roles: Mapping[str, str]) -> Iterator[_Node | Item]:
    """The messages that are followed, each after its parent; of one that cannot be used, what is wrong with it."""
    number = 0
    waiting: list[tuple[str, object, int]] = [(at, root, -1)]
    while waiting:
        at, turn, parent = waiting.pop()
        try:
            node = _node(at, turn, parent=parent, roles=roles)
        except BadRow as bad:
            yield Item(at, bad)
            continue
        yield node
        dot = "." if at else ""
        replies: list[Any] = node.turn.get("replies") or []
        followed: list[tuple[str, object, int]] = []
        best = _best(replies, roles=roles)
        for i, reply in enumerate(replies):
            place = f"{at}{dot}replies[{i}]"
            if best is None or i == best or not _is_answer(reply, roles=roles):
                followed.append((place, reply, number))
            else:
                told = f"an answer of rank {reply.get('rank')}, beside which that of rank {replies[best]['rank']} is taken"
                yield Item(place, BadRow(LOWER_RANKED, told))
        waiting += reversed(followed)
        number += 1


def _node(at: str, turn: object, *, parent: int, roles: Mapping[str, str]) -> _Node:
    if not isinstance(turn, Mapping):
        raise BadRow("wrong_type", f"it is {kind_of_value(turn)}, not a message: {shortened(turn)}")
    said = turn.get("text", turn.get("content"))
    if not isinstance(turn.get("role"), str) or not isinstance(said, str):
        raise BadRow("missing_field", f"it has no `role` and `text`; it has {keys_of(turn)}")
    role = role_of(turn["role"], roles=roles)
    if role is None:
        raise BadRow("unknown_role", unknown_role(turn["role"]))
    if not said.strip():
        raise BadRow("empty_content", f"the message (`{role}`) is empty, and what answers it has no question")
    if not isinstance(turn.get("replies") or [], list):
        raise BadRow("wrong_type", f"`replies` is {kind_of_value(turn['replies'])}, not a list: {shortened(turn['replies'])}")
    if turn.get("deleted") is True:
        raise BadRow("deleted", "the message was deleted by its makers, and with it what answers it")
    return _Node(at, parent, turn, role is Role.ASSISTANT)


def _best(replies: list[Any], *, roles: Mapping[str, str]) -> int | None:
    """The best ranked answer among replies, of equals the first; None where no answer has a rank."""
    answers = [i for i, reply in enumerate(replies) if _is_answer(reply, roles=roles) and reply.get("deleted") is not True]
    ranked = [i for i in answers if isinstance(replies[i].get("rank"), int)]
    return min(ranked, key=lambda i: replies[i]["rank"], default=None)


def _is_answer(reply: object, *, roles: Mapping[str, str]) -> bool:
    return isinstance(reply, Mapping) and role_of(reply.get("role"), roles=roles) is Role.ASSISTANT


def _last_answers(nodes: list[_Node]) -> list[int]:
    """Answers behind which no other comes, in order."""
    is_passed = [False] * len(nodes)
    found = []
    for i in reversed(range(len(nodes))):
        if nodes[i].is_answer and not is_passed[i]:
            found.append(i)
            at = i
            while at >= 0 and not is_passed[at]:
                is_passed[at] = True
                at = nodes[at].parent
    return found[::-1]


def _said(turn: Mapping[str, Any]) -> str:
    said = turn.get("text", turn.get("content"))
    assert isinstance(said, str)
    return said


def has_instances(row: Row) -> bool:
    """Whether a row is a task: an instruction, and instances of input and output."""
    return _task(row) is not None and _holds(row.get("instances"), ("output",))


def instances_of(row: Row) -> Iterator[Item]:
    """Instruction, input and output of each instance of a task."""
    task = _task(row)
    instances = row.get("instances")
    if task is None or not isinstance(instances, list):
        told = f"no instruction and list of `instances` are here; the row has {keys_of(row)}"
        yield Item("", BadRow("missing_field", told))
        return
    shared = {key: value for key, value in row.items() if key not in {"instances", "input", "output", *_TASKS}}
    shared |= {"instruction": task} | _grouped(row, task)
    if not instances:
        yield Item("", BadRow("empty_content", "`instances` is an empty list"))
    for i, instance in enumerate(instances):
        at = f"instances[{i}]"
        yield _not_object(at, instance) or Item(at, shared | _lowered(instance) | {"group": shared["group"]})


def _task(row: Row) -> str | None:
    for key in _TASKS:
        value = row.get(key)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, str):
            return value
    return None


def has_questions(row: Row, *, has_document: bool) -> bool:
    """Whether a row has a list of questions and answers, and a document that they are about, or surely none."""
    blocks = [block for _, block in _blocks(row)]
    if not any(_lists(block) for block in blocks):
        return False
    if any(block.get(key) is not None for block in blocks for key in _DOCUMENTS):
        return has_document
    return not has_document and not any(_unnamed(block) for block in blocks)


def questions_of(row: Row, *, has_document: bool) -> Iterator[Item]:
    """Question and answer of each question of a row; with `has_document` also `context`, what they are about.

    The row may be an article of several `paragraphs`, each with its questions, as SQuAD has them: they are one group.
    """
    blocks = _blocks(row)
    texts: list[str | BadRow] = [_document(block) if has_document else _unnamed(block) or "" for _, block in blocks]
    held = texts if has_document else [repr(_lists(block)) for _, block in blocks]
    group = _grouped(row, "\n\n".join(text for text in held if isinstance(text, str)))
    has_any = False
    for (at, block), text in zip(blocks, texts, strict=True):
        lists = _lists(block)
        has_any = has_any or bool(lists)
        if isinstance(text, BadRow):
            if lists or at:
                yield Item(at.rstrip("."), text)
            continue
        shared = {key: value for key, value in block.items() if key not in {*_DOCUMENTS, *_ANSWERED, *_ASKED, *lists}}
        shared |= {"context": text} if has_document else {}
        for place, question in ((f"{at}{key}[{i}]", one) for key, found in lists.items() for i, one in enumerate(found)):
            yield _not_object(place, question) or Item(place, shared | _asked(question) | group)
    if not has_any:
        yield Item("", BadRow("missing_field", f"no list of questions and answers is here; the row has {keys_of(row)}"))


def _blocks(row: Row) -> list[tuple[str, Row]]:
    """The parts of a row that have a document and questions: its paragraphs, or itself."""
    paragraphs = row.get("paragraphs")
    if not isinstance(paragraphs, list) or not any(isinstance(part, Mapping) and _lists(part) for part in paragraphs):
        return [("", row)]
    shared = {key: value for key, value in row.items() if key != "paragraphs"}
    return [
        (f"paragraphs[{i}].", shared | _lowered(part) if isinstance(part, Mapping) else {}) for i, part in enumerate(paragraphs)
    ]


def _lists(block: Row) -> dict[str, list[Any]]:
    """The lists of questions, under the names they have."""
    return {
        key: value for key, value in block.items() if any(_holds(value, (asked, key_)) for asked in _ASKED for key_ in _ANSWERED)
    }


def _document(block: Row) -> str | BadRow:
    """What questions are about: a text, a list of texts, or a dialogue as lines of speaker and text."""
    key = next((key for key in _DOCUMENTS if block.get(key) is not None), None)
    if key is None:
        return BadRow("missing_field", f"no document is here that the questions are about; the row has {keys_of(block)}")
    value = block[key]
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    elif is_dialogue(value):
        value = lines_of_dialogue(value)
    if not isinstance(value, str):
        return BadRow("wrong_type", f"`{key}` is {kind_of_value(block[key])}, not a text: {shortened(block[key])}")
    return value if value.strip() else BadRow("empty_content", f"`{key}` is empty")


def _unnamed(block: Row) -> BadRow | None:
    """What is wrong where a text that may be the document stands under a name that nobody knows."""
    key = next((key for key, value in block.items() if isinstance(value, str) and len(value) > _TITLE), None)
    if key is None:
        return None
    told = f"`{key}` may be what the questions are about. Map it, or leave it out: data.sources[].map: {{context: {key}, questions: …}}"
    return BadRow("missing_field", told)


def _asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """A question and its answer under the names of a pair."""
    row = _lowered(given)
    for name, keys in (("question", _ASKED), ("answer", _ANSWERED)):
        key = next((key for key in keys if row.get(key) is not None), None)
        if key is not None:
            row[name] = row.pop(key)
    return row


def _not_object(at: str, given: object) -> Item | None:
    if isinstance(given, Mapping):
        return None
    return Item(at, BadRow("wrong_type", f"it is {kind_of_value(given)}, not an object: {shortened(given)}"))


def _holds(value: object, keys: tuple[str, ...]) -> bool:
    """Whether a value is a list of objects with these keys; a few may be broken."""
    if not isinstance(value, list):
        return False
    return any(isinstance(item, Mapping) and all(key in _lowered(item) for key in keys) for item in value[:20])


def _lowered(given: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).strip().lower(): value for key, value in given.items()}


def _grouped(row: Row, common: str) -> dict[str, Any]:
    group = row.get("group")
    if isinstance(group, str | int) and not isinstance(group, bool) and group != "":
        return {"group": group}
    return {"group": hashlib.sha256(common.encode("utf-8", "surrogatepass")).hexdigest()[:16]}

"""What holds of every step on any text: it raises nothing, and cleaning twice is cleaning once."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.data.clean import STEPS, clean
from tunesmith.data.read import content_digest
from tunesmith.records import Message, Record, Role, Source

NAUGHTY = Path(__file__).parents[4] / "shared" / "data" / "dirty" / "naughty_strings.jsonl.gz"

INVISIBLE = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\u200b",
    "\u200d",
    "\u200c",
    "\u00a0",
    "\u202e",
    "\ufeff",
    "\ufe0f",
    "e\u0301",
    "\x1b[31m",
]
BROKEN = ["Ã©", "â€™", "ï»¿", "\x1b", "👩", "🏴", "ש", "ک", "क्"]
PERSONAL = [
    "1 ",
    "12-34",
    "555 123 4567",
    "@",
    "a@b.co",
    ".",
    "-",
    ":",
    "4111 1111 1111 1111",
    "GB26YVOK09234647792923",
    "10.0.0.1",
]
SECRET = ["phone ", "card ", "078-05-1120", "password=", "sk-", "AKIA", "[EMAIL_1]", "http://", "::", "ff:", "x" * 40]
MARKUP = ["```\n", "~~~", "-- \n", "> ", "On Mon, A wrote:", "the cat sat ", "<b>", "&amp;"]
pieces = st.sampled_from(INVISIBLE + BROKEN + PERSONAL + SECRET + MARKUP)
texts = st.text(max_size=30) | st.lists(pieces | st.text(max_size=6), max_size=20).map("".join)


def chat(*contents: str) -> Record:
    messages = tuple(Message(role=Role.ASSISTANT if i % 2 else Role.USER, content=c) for i, c in enumerate(contents))
    return Record(id=content_digest(messages), source=Source(path="a.jsonl", line=1), messages=messages)


def plain(content: str) -> Record:
    return Record(id=content_digest(content), source=Source(path="a.txt", line=1), text=content)


def holds(step: str, records: list[Record]) -> None:
    once = clean(records, steps=[step]).kept
    assert clean(once, steps=[step]).kept == once


# Of fewer texts its decomposition is another, which may find more.
NOT_TWICE_AS_ONCE = {"semantic_duplicates"}


@pytest.mark.parametrize("step", sorted(STEPS))
@given(contents=st.lists(texts, min_size=2, max_size=4), content=texts)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_cleaning_twice_is_cleaning_once_on_any_text(step: str, contents: list[str], content: str) -> None:
    take(step, [chat(*contents), plain(content)])


@pytest.mark.parametrize("step", STEPS)
def test_cleaning_twice_is_cleaning_once_on_hostile_text(step: str) -> None:
    if not NAUGHTY.is_file():
        pytest.skip("the big list of naughty strings is not on this machine")
    strings = [json.loads(line)["text"] for line in gzip.decompress(NAUGHTY.read_bytes()).splitlines()]
    take(step, [plain(string) for string in strings] + [chat(string, string) for string in strings])


def take(step: str, records: list[Record]) -> None:
    if step in NOT_TWICE_AS_ONCE:
        clean(records, steps=[step])
    else:
        holds(step, records)

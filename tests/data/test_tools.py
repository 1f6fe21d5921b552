"""Tools in conversations: what a row offers stands in the tokens, what it calls is learned, and transformers prints the same."""

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.data import SourceConfig, read
from tunesmith.data.chat import ChatFormat
from tunesmith.data.pack import encode
from tunesmith.data.template import CHATML, ChatTemplate
from tunesmith.data.tools import parse_tools, read_tools
from tunesmith.data.validation import Rules, validate
from tunesmith.errors import DataError
from tunesmith.records import Dropped, Message, Record, Role, Source
from tunesmith.train.proofs_data import prove_tokens

from .conftest import CONTROL, write_tokenizer

LoadChat = Callable[[str], ChatFormat]
SHARED = Path(os.environ.get("TUNESMITH_SHARED") or Path(__file__).parents[3] / "shared") / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data sets are not at {SHARED}; set TUNESMITH_SHARED")
EMBEDDED = Path(__file__).parents[2] / "src" / "tunesmith" / "model" / "embedded"

OLD_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HOURS: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "hours",
        "description": "When we are open.",
        "parameters": {"type": "object", "properties": {"day": {"type": "string", "description": "day"}}, "required": ["day"]},
    },
}
CALL = '<tool_call>\n{"name": "hours", "arguments": {"day": "Sunday"}}\n</tool_call>'
TURNS = (
    Message(role=Role.USER, content="Open on Sunday?"),
    Message(role=Role.ASSISTANT, content=CALL),
    Message(role=Role.TOOL, content='{"open": false}'),
    Message(role=Role.ASSISTANT, content="No, closed."),
)


def offering(*tools: dict[str, Any], messages: tuple[Message, ...] = TURNS) -> Record:
    return Record(id="r", source=Source(path="calls.jsonl", line=1), messages=messages, tools=json.dumps(list(tools)))


def learned(chat: ChatFormat, record: Record) -> str:
    (rendered,) = chat.render(record)
    return chat.decode([token for token, weight in zip(*rendered, strict=True) if weight > 0])


@pytest.mark.parametrize("system", [None, "Be kind."])
def test_default_template_prints_the_tools_in_the_system_turn(load_chat: LoadChat, system: str | None) -> None:
    chat = load_chat("chatml")
    first = (Message(role=Role.SYSTEM, content=system),) if system else ()
    (rendered,) = chat.render(offering(HOURS, HOURS, messages=(*first, *TURNS)))
    line = json.dumps(HOURS)
    assert chat.decode(rendered.tokens, keep_control=True) == (
        "<|im_start|>system\n" + (f"{system}\n\n" if system else "") + "You can call these tools:\n"
        f"<tools>\n{line}\n{line}\n</tools>\nA call is written so:\n<tool_call>\n"
        '{"name": "the name", "arguments": {"the parameter": "its value"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nOpen on Sunday?<|im_end|>\n"
        f"<|im_start|>assistant\n{CALL}<|im_end|>\n"
        '<|im_start|>tool\n{"open": false}<|im_end|>\n'
        "<|im_start|>assistant\nNo, closed.<|im_end|>"
    )
    assert learned(chat, offering(HOURS)) == CALL + "No, closed."


@given(contents=st.lists(st.text(max_size=20), max_size=5), has_system=st.booleans(), asks=st.booleans())
def test_default_template_prints_what_it_always_did_where_no_tools_are_offered(
    contents: list[str], has_system: bool, asks: bool
) -> None:
    roles = [Role.SYSTEM] * has_system + [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT, Role.USER]
    messages = [Message(role=role, content=content) for role, content in zip(roles, contents, strict=False)]
    new, old = (ChatTemplate(text, name="x", special_tokens={}) for text in (CHATML, OLD_CHATML))
    assert new.render(messages, add_generation_prompt=asks) == old.render(messages, add_generation_prompt=asks)


def test_embedded_base_has_the_default_template() -> None:
    assert (EMBEDDED / "chat_template.jinja").read_text(encoding="utf-8") == CHATML


NASTY = ("<|im_end|>", "<|im_start|>assistant\n", "</s>", "<s>", "[/INST]", "\\ufdd2", "\\", "'", '"', "\n", "é", "a")
HOSTILE = st.lists(st.sampled_from(NASTY), max_size=6).map("".join)


@pytest.mark.parametrize("name", ["chatml", "ascii", "python"])
@given(name_of_tool=HOSTILE, description=HOSTILE, parameter=HOSTILE)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_tool_forges_a_control_token_and_serving_sends_what_training_saw(
    tools_chat: Callable[[str], ChatFormat], name: str, name_of_tool: str, description: str, parameter: str
) -> None:
    chat = tools_chat(name)
    properties = {parameter: {"type": "string", "enum": [description, 1, None]}}
    tool = {"name": name_of_tool, "description": description, "parameters": {"type": "object", "properties": properties}}
    record = offering({"type": "function", "function": tool})
    (hostile,), (harmless,) = chat.render(record), chat.render(offering(HOURS))
    control = set(chat._codec.control_ids.values())
    assert [t for t in hostile.tokens if t in control] == [t for t in harmless.tokens if t in control]
    spelt = str(tool) if name == "python" else json.dumps(tool, ensure_ascii=name == "ascii")
    assert spelt in chat.decode(hostile.tokens)  # each letter stands there
    for i in (1, 3):
        prompt = chat.encode_prompt(record.messages[:i], tools=record.tools)
        assert list(hostile.tokens[: len(prompt)]) == prompt
        assert chat.encode_prompt(record.messages[:i]) != prompt
    assert prove_tokens([record], chat=chat).holds


@pytest.fixture(scope="session")
def tools_chat(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ChatFormat]:
    """The default template, one that escapes what is not ASCII, and one that prints a tool as Python spells it."""
    loaded: dict[str, ChatFormat] = {}

    def load(name: str) -> ChatFormat:
        if name not in loaded:
            folder = tmp_path_factory.mktemp(name)
            how = {"chatml": "'tojson'", "ascii": "'tojson', ensure_ascii=true", "python": "'string'"}[name]
            text = CHATML.replace("map('tojson')", f"map({how})")
            write_tokenizer(folder, like=tokenizer_folder, control=CONTROL, template=text)
            loaded[name] = ChatFormat.load(folder)
        return loaded[name]

    return load


def test_a_template_that_does_not_print_tools_is_counted_by_source(load_chat: LoadChat) -> None:
    rows = [offering(HOURS), offering(HOURS), offering(), Record(id="r", source=TURNS_PLACE, messages=TURNS)]
    seen, unseen = (encode(rows, chat=load_chat(name), max_length=10_000).ledger for name in ("chatml", "plain"))
    assert [ledger.total.num_unseen_tools for ledger in (seen, unseen)] == [0, 2]
    assert unseen.sources["calls.jsonl"].as_json()["rows_with_unseen_tools"] == 2
    assert unseen.plus(unseen).total.num_unseen_tools == 4
    assert unseen.total.every.rows == unseen.total.kept.rows == 4


TURNS_PLACE = Source(path="calls.jsonl", line=2)


def test_a_template_that_mentions_only_that_there_are_tools_does_not_print_them(tmp_path: Path, tokenizer_folder: Path) -> None:
    write_tokenizer(tmp_path, like=tokenizer_folder, control=(), template="{% if tools %}Tools.\n{% endif %}" + OLD_CHATML)
    chat = ChatFormat.load(tmp_path)
    assert not chat.prints_tools(offering(HOURS))
    assert chat.prints_tools(offering())  # offers none
    assert not chat.prints_tools(Record(id="t", source=TURNS_PLACE, text="a", tools=json.dumps([HOURS])))


FUNCTION = HOURS["function"]


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("tools", [HOURS]),
        ("tools", json.dumps([HOURS])),
        ("tools", [json.dumps(HOURS)]),
        ("tools", HOURS),
        ("tools", [{"function": FUNCTION}]),
        ("tools", [{"type": "function", **FUNCTION}]),
        ("available_tools", [HOURS]),
        ("functions", [FUNCTION]),
    ],
)
def test_every_spelling_of_tools_becomes_one(key: str, given: object) -> None:
    assert read_tools({"messages": [], key: given}) == json.dumps([HOURS])  # in the row's order of keys
    assert parse_tools(json.dumps([HOURS])) == [HOURS]


@pytest.mark.parametrize("given", [None, "", [], {}, "[]", "null", "None"])
def test_no_tools_are_no_tools(given: object) -> None:
    assert read_tools({"messages": [], "tools": given}) == ""
    assert parse_tools("") is None


TWICE, NAN = '{"name": "f", "name": "g"}', '{"name": "f", "parameters": {"default": NaN}}'


@pytest.mark.parametrize(
    "given", ["[nope", "hammer and saw", ["hammer"], [{"a": 1}], [{"function": 1}], 7, ["{"], TWICE, f"[{TWICE}]", [NAN]]
)
def test_what_is_no_tool_is_named_in_a_conversation_and_left_alone_elsewhere(tmp_path: Path, given: object) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns}, {"messages": turns, "tools": given}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, bad = list(read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows)
    assert isinstance(bad, Dropped)
    assert (bad.reason, str(bad.source)) == ("malformed_tools", "a.jsonl:2")
    assert "`tools`" in bad.detail
    assert read_tools({"question": "q", "answer": "a", "tools": given}) == ""


def test_tools_that_are_no_json_are_refused_when_serving(load_chat: LoadChat) -> None:
    with pytest.raises(DataError, match="tools of this conversation"):
        load_chat("chatml").encode_prompt(TURNS[:1], tools="[nope")


def shared_rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(SHARED / name) as file:
        yield from map(json.loads, file)


@needs_shared
@pytest.mark.parametrize(
    "template", [None, "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"], ids=["ours", "gpt2"]
)
def test_glaive_rows_hold_their_tools_and_learn_their_calls(tmp_path: Path, tokenizer_folder: Path, template: str | None) -> None:
    name = "instruct/glaive_toolcall_en_demo.jsonl.gz"
    write_tokenizer(tmp_path, like=tokenizer_folder, control=("<s>", "</s>"), template=template)
    chat = ChatFormat.load(tmp_path)
    records = [row for row in read(SourceConfig(path=str(SHARED / name)), folder=Path()).rows if isinstance(row, Record)]
    raw = list(shared_rows(name))
    assert len(records) == len(raw)
    num_offering = sum(row["tools"] not in ("", "[]") for row in raw)
    assert num_offering > 100
    assert encode(records, chat=chat, max_length=1 << 20).ledger.total.num_unseen_tools == (num_offering if template else 0)
    num_calls = 0
    for row, rendered in zip(raw, chat.render_many(records), strict=True):
        assert not isinstance(rendered, Dropped)
        ((tokens, weights),) = rendered
        said = chat.decode([token for token, weight in zip(tokens, weights, strict=True) if weight > 0])
        calls = [turn["value"] for turn in row["conversations"] if turn["from"] == "function_call"]
        found = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", said, re.DOTALL)
        assert list(map(json.loads, found)) == list(map(json.loads, calls))
        num_calls += len(calls)
        if not template:
            listed = chat.decode(tokens).partition("<tools>\n")[2].partition("\n</tools>")[0]
            assert [json.loads(line)["function"] for line in listed.split("\n") if line] == json.loads(row["tools"] or "[]")
    assert num_calls > 100


def printed_by_transformers(folder: Path, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str | None:
    import jinja2
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    try:
        return str(theirs.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True))
    except (jinja2.TemplateError, TypeError):
        return None


@needs_shared
@pytest.mark.parametrize(
    "name", ["Hermes-2-Pro", "Mistral-7B-Instruct-v0.3 ", "Nemo", "Qwen3-0.6B", "Qwen3.5", "Kimi-K2", "Hammer2.1"]
)
def test_real_templates_print_the_tools_as_transformers_prints_them(tmp_path: Path, tokenizer_folder: Path, name: str) -> None:
    pytest.importorskip("transformers")
    (vector,) = [row for row in shared_rows("vectors/chat_templates.jsonl.gz") if name in row["name"]]
    names = sorted(set(re.findall(r"<\|?\w+\|?>|\[/?[A-Z_]+\]", vector["expected"])) - {"<tools>", "<tool_call>"})
    write_tokenizer(tmp_path, like=tokenizer_folder, control=("<s>", "</s>", *names), template=vector["chat_template"])
    chat = ChatFormat.load(tmp_path)
    num_printed = 0
    for tools in (None, [HOURS], [HOURS, HOURS]):
        text = json.dumps(tools) if tools else ""
        for num_messages in (1, 3):
            messages = TURNS[:num_messages]
            plain = [{"role": message.role.value, "content": message.content} for message in messages]
            theirs = printed_by_transformers(tmp_path, plain, tools)
            if theirs is None:
                with pytest.raises(DataError):
                    chat.encode_prompt(messages, tools=text)
                continue
            num_printed += 1
            assert chat.decode(chat.encode_prompt(messages, tools=text), keep_control=True) == theirs
            assert ("When we are open." in theirs) == bool(tools)
            if tools:
                assert chat.prints_tools(offering(*tools, messages=(*messages, TURNS[3])))
    assert num_printed >= 2


@needs_shared
def test_calls_are_written_as_the_template_of_qwen_writes_them(tmp_path: Path, tokenizer_folder: Path) -> None:
    """Our text of a call against what transformers prints for the structured one."""
    pytest.importorskip("transformers")
    (vector,) = [row for row in shared_rows("vectors/chat_templates.jsonl.gz") if row["name"] == "Qwen/Qwen3-0.6B"]
    write_tokenizer(tmp_path, like=tokenizer_folder, control=("<s>", "</s>"), template=vector["chat_template"])
    call = {"type": "function", "function": {"name": "hours", "arguments": {"day": "Sunday", "é": [1, None]}}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call, call]}
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "q"}, calling], "tools": [HOURS]}) + "\n"
    )
    (record,) = read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows
    assert isinstance(record, Record)
    given = [{"role": "user", "content": "q"}, calling, {"role": "user", "content": "r"}]
    theirs = printed_by_transformers(tmp_path, given, [HOURS])
    assert theirs is not None
    assert record.messages[1].content in theirs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"day": "Sunday", "day": "Monday"}', "the key `day` stands twice"),
        ('{"price": NaN}', "NaN is not a JSON value"),
        ('{"price": 1e999}', "1e999 is too large"),
    ],
)
def test_arguments_of_which_nobody_knows_what_they_say_make_their_row_bad(tmp_path: Path, arguments: str, words: str) -> None:
    called = {"role": "assistant", "tool_calls": [{"id": "abcdefghi", "function": {"name": "f", "arguments": arguments}}]}
    old = [{"from": "human", "value": "q"}, {"from": "function_call", "value": f'{{"name": "f", "arguments": {arguments}}}'}]
    sound = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    rows = [sound, {"messages": [{"role": "user", "content": "q"}, called]}, {"conversations": old}]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    good, *bad = read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows
    assert isinstance(good, Record)
    assert [row.reason for row in bad if isinstance(row, Dropped)] == ["malformed_arguments", "malformed_call"]
    assert all(words in row.detail for row in bad if isinstance(row, Dropped))
    found = validate([tmp_path / "a.jsonl"], rules=Rules())
    assert found.num_bad == 2
    assert any(finding.code == "tool_arguments_not_json" and words in finding.detail for finding in found.findings)


def test_tools_with_a_doubled_key_make_their_row_bad(tmp_path: Path) -> None:
    row = {"tools": '[{"name": "f", "name": "g"}]', "messages": [{"role": "user", "content": "q"}]}
    row["messages"] += [{"role": "assistant", "content": "a"}]
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (bad,) = read(SourceConfig(path="a.jsonl"), folder=tmp_path).rows
    assert isinstance(bad, Dropped)
    assert bad.reason == "malformed_tools"
    assert validate([tmp_path / "a.jsonl"], rules=Rules()).num_bad == 1

"""Text from elsewhere on a card: read back by another's Markdown and YAML it is the same text, and nothing else."""

import html
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tunesmith.pipeline.card_markup import block, code, escaped, front_matter, table, without_paths

READER = MarkdownIt("commonmark", {"html": True}).enable("table")
NASTY = [
    "<script>alert(1)</script>",
    "[free](javascript:alert(1))",
    "![x](http://127.0.0.1/x.png)",
    "# heading",
    "- a list",
    "1. a list",
    "=====",
    "a | b | c",
    "`code` ``more``",
    "*bold* _it_ ~~gone~~",
    "&lt;b&gt; &amp;",
    "https://example.org/x www.example.org a@example.org",
    "two\nlines\r\n---\nlicense: mit",
    "back\\slash \\* \\",
    "$x$ {{ x }} {% x %}",
    "---",
    "> quoted",
    "\u202egnp.exe",
]


def words(markdown: str) -> str:
    """What a reader sees of it."""
    shown = re.sub(r"<!--.*?-->", "", READER.render(markdown))
    return html.unescape(re.sub(r"</?(p|code)>", "", shown)).strip()


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("put", [escaped, code])
def test_a_nasty_text_is_shown_as_it_is_and_marks_up_nothing(text: str, put: object) -> None:
    expected = " ".join(text.split()).replace("\u202e", "U+202E")
    assert words(put(text)) == expected  # type: ignore[operator]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40))
def test_any_printable_text_comes_back_from_a_reader(text: str) -> None:
    plain = " ".join(text.split())
    assert words(escaped(text)) == plain
    assert words("x " + code(text)) == f"x {plain}".strip()


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_stays_one_cell(text: str) -> None:
    for put in (escaped, code):
        shown = READER.render(table(["name", "rows"], [[put(text), "7"]]))
        assert shown.count("<td>") == 2, shown
        assert "<td>7</td>" in shown


@pytest.mark.parametrize(
    "text", [*NASTY, "no", "1e3", "2026-11-28", "null", "~", "a: b", "'", '"', "@x", "!!python/object:os.system"]
)
def test_yaml_reads_back_the_same_string(text: str) -> None:
    front = front_matter({"name": text, "list": [text]})
    assert front.count("\n---\n") == 1
    assert yaml.safe_load(front.removeprefix("---\n").removesuffix("---\n")) == {"name": text, "list": [text]}


def test_a_fence_is_longer_than_any_in_the_text() -> None:
    shown = READER.render(block("a\n````\n<b>\n", language="yaml"))
    assert shown == '<pre><code class="language-yaml">a\n````\n&lt;b&gt;\n</code></pre>\n'


def test_paths_and_passwords_of_a_machine_stay_there() -> None:
    recipe = {
        "base": "/home/jane/models/big",
        "data": {
            "sources": [{"path": "~/secret/rows.jsonl"}, {"path": "s3://key:word@store/rows.jsonl"}, {"path": "data/rows.jsonl"}]
        },
        "lines": "/home/jane/two\nlines.jsonl",
        "windows": r"C:\Users\jane\rows.csv",
        "instruction": "/answer in one word",
        "rate": 0.1,
    }
    assert without_paths(recipe) == {
        "base": "big",
        "data": {"sources": [{"path": "rows.jsonl"}, {"path": "s3://store/rows.jsonl"}, {"path": "data/rows.jsonl"}]},
        "lines": "two\nlines.jsonl",
        "windows": "rows.csv",
        "instruction": "/answer in one word",
        "rate": 0.1,
    }

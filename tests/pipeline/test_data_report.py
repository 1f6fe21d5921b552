from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.data.profile import Near
from tunesmith.data.rows import plain_dropped
from tunesmith.pipeline.data_given import ledger_section, mixing_section, plain_section
from tunesmith.pipeline.data_report import data_report, report_on_files, tokens_of
from tunesmith.pipeline.data_sections import clusters_section, dropped_section
from tunesmith.pipeline.page import page as report_page
from tunesmith.pipeline.page_text import shown
from tunesmith.records import Dropped, Source

from .pages import HOSTILE, Page


def rows(path: Path, *contents: dict[str, object]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE) for content in contents))
    return path


def chat(question: str, answer: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def test_the_page_and_the_json_say_the_same(tmp_path):
    file = rows(
        tmp_path / "a.jsonl",
        *(chat(f"Question {i}?", "Yes. " * i, domain="even" if i % 2 == 0 else "odd") for i in range(1, 31)),
        {},
    )
    report = report_on_files([file], tokens=None)
    figures, page = report.as_json(), Page(report.as_html())
    assert page.open == []
    assert figures["counts"]["rows"] == 30
    assert figures["counts"]["by_domain"] == {"odd": 15, "even": 15}
    assert figures["counts"]["messages_by_role"] == {"user": 30, "assistant": 30}
    assert figures["dropped"]["by_reason"] == {"missing_field": 1}
    lengths = figures["lengths"]["answers (characters)"]
    assert lengths["percentiles"]["p50"] == pytest.approx(77.5)
    assert sum(one["num"] for one in lengths["bins"]) == 30
    for section in report.sections:
        assert section.summary in page.text
        assert section.name in figures
    assert "77.5" in page.text


def test_every_picture_has_a_title_a_description_and_a_table(tmp_path):
    file = rows(tmp_path / "a.jsonl", *(chat(f"Question {i}?", "Yes. " * i) for i in range(1, 31)))
    page = report_on_files([file], tokens=None).as_html()
    pictures = re.findall(r'<svg class="histogram".*?</svg>', page, re.DOTALL)
    assert len(pictures) == 3
    for picture in pictures:
        name = re.search(r'aria-labelledby="(\S+)-t \1-d"', picture)
        assert name
        assert f'<title id="{name[1]}-t">' in picture
        assert f'<desc id="{name[1]}-d">' in picture
    assert len(re.findall(r"</svg>\n.*\n.*\n<details><summary>As a table</summary>", page)) == 3
    assert len(re.findall(r'id="([^"]+)"', page)) == len(set(re.findall(r'id="([^"]+)"', page)))


def test_the_page_asks_nothing_of_anybody_and_runs_nothing(tmp_path):
    page = Page(report_on_files([rows(tmp_path / "a.jsonl", chat("Why?", "So."))], tokens=None).as_html())
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"href", "src", "action", "xlink:href", "data", "srcset"}:
                assert value is not None
                assert value.startswith(("#", "data:")), (tag, value)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(text, tmp_path):
    tame = report_on_files([rows(tmp_path / "tame.jsonl", *_everywhere("tame"))], tokens=None)
    hostile = report_on_files([rows(tmp_path / "hostile.jsonl", *_everywhere(text))], tokens=None)
    dropped = Dropped(source=Source(path=text, line=1), reason=text, detail=text, raw=text)

    def page(sections, title):
        return Page(report_page(title, [*sections, dropped_section([dropped], num_read=1), _plain(title), _plain(title)]))

    found, expected = page(hostile.sections, text), page(tame.sections, "tame")
    assert found.open == []
    plain = {"span", "svg", "rect", "tr", "td", "th"}  # a sign that is named, and rows for other reasons
    assert {tag for tag, _ in found.tags} - plain == {tag for tag, _ in expected.tags} - plain
    visible = re.sub("[\u202e\u2066\x1b\x00]", lambda sign: f"U+{ord(sign[0]):04X}", text)
    assert found.text.count(visible) >= 8
    assert not re.search("[\u202e\u2066\x1b\x00]", found.text)


def _everywhere(text: str) -> list[dict[str, object]]:
    one = chat(f"Question {text}", f"Answer {text}", domain=text, licence=text)
    return [one, one, chat(f"Question {text}", f"Another {text}", domain=text), {text: text}]


def _plain(text: str):
    return plain_section("more", title=text, summary=text, figures={text: text, "rows": {text: {text: text}}})


def test_characters_that_cannot_be_seen_are_named():
    assert shown("a\ud800b") == 'a<span class="sign">U+D800</span>b'
    assert shown("line\n\tend é 漢") == "line\n\tend é 漢"


def test_files_of_one_folder_called_after_splits_are_splits_and_leaks_are_counted(tmp_path):
    rows(tmp_path / "train.jsonl", *(chat(f"Question {i}?", "Yes.") for i in range(8)))
    rows(tmp_path / "validation.jsonl", chat("Another?", "Yes."))
    rows(tmp_path / "test.jsonl", chat("QUESTION 3?", "No."), chat("New?", "No."))
    lost = Dropped(source=Source(path="chats.jsonl", line=7), reason="near_duplicate", detail="of chats.jsonl:3")
    rows(
        tmp_path / "dropped.jsonl",
        plain_dropped(lost),
        {"source": "chats.jsonl:9", "reason": "pii", "detail": "a card", "text": "4111"},
    )
    figures = report_on_files([tmp_path], tokens=None).as_json()
    assert figures["splits"]["rows"] == {"train": 8, "validation": 1, "test": 2}
    assert figures["splits"]["leaking_rows"] == {"validation": 0, "test": 1}
    assert figures["dropped"]["by_reason"] == {"near_duplicate": 1, "pii": 1}
    assert figures["dropped"]["samples"]["pii"] == [{"source": "chats.jsonl:9", "detail": "a card", "raw": '{"text":"4111"}'}]
    assert figures["counts"]["rows"] == 11


def test_one_file_alone_is_not_divided(tmp_path):
    figures = report_on_files([rows(tmp_path / "train.jsonl", chat("Why?", "So."))], tokens=None).as_json()
    assert "splits" not in figures
    assert "dropped" not in figures


def test_tokens_are_counted_as_the_model_reads_them(tmp_path):
    from tunesmith.data.chat import ChatFormat

    file = rows(tmp_path / "a.jsonl", *(chat(f"Question {i}?", "Yes. " * i) for i in range(1, 6)))
    tokens = tokens_of(None)
    assert tokens is not None
    report = report_on_files([file], tokens=tokens)
    embedded = Path(__file__).parents[2] / "src" / "tunesmith" / "model" / "embedded"
    chat_format = ChatFormat.load(embedded)
    expected = sum(len(one.tokens) for record in _records(file) for one in chat_format.render(record))
    assert report.as_json()["lengths"]["rows as the model reads them (tokens)"]["total"] == expected


def _records(file: Path):
    from tunesmith.data import SourceConfig, read

    return list(read(SourceConfig(path=str(file)), folder=Path()).rows)


def test_the_command_writes_both_files_and_prints_json_on_demand(tmp_path):
    file = rows(tmp_path / "a.jsonl", chat("Why?", "So."))
    page, figures = tmp_path / "out" / "r.html", tmp_path / "out" / "r.json"
    written = CliRunner().invoke(app, ["data", "report", str(file), "--out", str(page), "--json", str(figures)])
    assert written.exit_code == 0, written.output
    assert "1 row from 1 source" in written.stdout
    printed = CliRunner().invoke(app, ["data", "report", str(file), "--out", str(page), "--json", "-"])
    assert orjson.loads(printed.stdout) == orjson.loads(figures.read_bytes())
    assert sorted(path.name for path in page.parent.iterdir()) == ["r.html", "r.json"]


def test_near_duplicates_are_clustered_and_those_of_held_out_rows_counted(tmp_path):
    long = "We are open from nine in the morning until six in the evening on every day but Sunday"
    rows(
        tmp_path / "train.jsonl",
        chat("When?", f"{long}."),
        chat("When are you open?", f"{long}!"),
        chat("Where?", "At the old harbour."),
    )
    rows(tmp_path / "test.jsonl", chat("When, please?", f"{long}!!"), chat("Who?", "Nobody that you would know, I am afraid."))
    report = report_on_files([tmp_path], tokens=None)
    figures = report.as_json()
    assert figures["near_duplicates"]["clusters_by_size"] == {"3": 1}
    assert figures["near_duplicates"]["rows_in_clusters"] == 3
    assert figures["splits"]["near_duplicates_in_train"] == {"test": 1}
    assert figures["splits"]["leaking_rows"] == {"test": 0}
    assert "test.jsonl:1" in report.as_html()


def test_clusters_show_their_largest_first(tmp_path):
    records = _records(rows(tmp_path / "a.jsonl", *(chat(f"Question {i}?", "Yes.") for i in range(5))))
    section = clusters_section(Near(0.8, (tuple(records[:2]), tuple(records[2:])), {}))
    assert section.figures["clusters_by_size"] == {"2": 1, "3": 1}
    assert section.figures["rows_in_clusters"] == 5
    assert "Question 2?" in report_page("t", [section]).split("Question 0?")[0]


def test_figures_measured_elsewhere_become_tables():
    figures = {
        "lost": 0.01234,
        "sources": {"a.jsonl": {"rows": 3, "tokens": 40}, "b.jsonl": {"rows": 5, "tokens": 60}},
        "none": {},
    }
    page = Page(data_report_page(figures))
    assert page.count("table") == 3
    assert "0.01234" in page.text
    assert "b.jsonl" in page.text


def data_report_page(figures: dict[str, object]) -> str:
    return report_page("t", [plain_section("ledger", title="Ledger", summary="It adds up.", figures=figures)])


def test_sections_from_elsewhere_stand_after_ours_and_missing_ones_are_left_out():
    from tunesmith.pipeline.data_report import Measured

    ledger = plain_section("ledger", title="Ledger", summary="It adds up.", figures={"rows": 1})
    report = data_report("t", Measured(splits={"rows": []}), more=[None, ledger])
    assert report.sections[-1] is ledger
    assert report.as_json()["ledger"] == {"rows": 1}


def test_the_ledger_and_the_mix_show_what_a_run_keeps_of_them():
    def account(tokens: int, *, cut: int = 0, dropped: int = 0) -> dict[str, object]:
        kept = tokens - cut - dropped
        return {
            "all": {"rows": 3, "tokens": tokens, "supervised": tokens // 2},
            "kept": {"rows": 2, "tokens": kept, "supervised": kept // 2, "masked": kept - kept // 2},
            "truncated": {"rows": 1 if cut else 0, "tokens": cut, "supervised": cut // 2},
            "dropped": {"nothing_supervised": {"rows": 1, "tokens": dropped, "supervised": 0}} if dropped else {},
            "split_rows": 0,
            "repeated_tokens": 0,
        }

    ledger = {
        "total": account(1500, cut=100, dropped=40),
        "sources": {"a.jsonl": account(1000, cut=100), "b.jsonl": account(500, dropped=40)},
    }
    section = ledger_section(ledger)
    assert section.figures == ledger
    page = Page(report_page("t", [section]))
    assert (
        "1,360 tokens of 2 rows are read, 680 of them (50 %) learned; 50 tokens that would be learned are cut away." in page.text
    )
    assert "nothing_supervised" in page.text
    mixed = {"a": {"tokens": 300, "supervised": 100, "epochs": 1.5}, "b": {"tokens": 100, "supervised": 50, "epochs": 4.0}}
    mixing = mixing_section(mixed)
    assert mixing is not None
    assert mixing.figures == {"sources": mixed}
    assert mixing.summary == "400 tokens of 2 sources are read; b most often, 4.0 times."
    assert mixing_section({"a": mixed["a"]}) is None


def test_a_folder_is_read_as_other_commands_read_it_and_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "all" / "deeper").mkdir(parents=True)
    row = '{"question": "Who?", "answer": "Me"}'
    (tmp_path / "all" / "a.json").write_text(f"[{row}]")
    (tmp_path / "all" / "deeper" / "b.jsonl").write_text(row.replace("Who", "Where"))
    (tmp_path / "all" / "c.csv").write_text("")
    (tmp_path / "all" / "lost.jsonl").symlink_to(tmp_path / "gone.jsonl")
    for _ in range(2):  # the report itself is no data
        found = report_on_files([tmp_path / "all"])
        figures = found.as_json()
        found.write(html=tmp_path / "all" / "report.html", json=tmp_path / "all" / "report.json")
    assert figures["counts"]["rows"] == 2
    assert figures["dropped"]["by_reason"] == {"unreadable_file": 2}

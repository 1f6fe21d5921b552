"""The evaluation's page: its figures are the report's, hostile text stays text, and a browser finds nothing wrong with it."""

from __future__ import annotations

import html
import math
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.evaluate import EvaluateConfig, evaluate, from_json, to_json
from tunesmith.evaluate.reading import headlines, ordered_metrics, reading_of
from tunesmith.pipeline.evaluation_page import evaluation_page, write_evaluation
from tunesmith.pipeline.evaluation_samples import count_changes
from tunesmith.pipeline.page_pairs import marked
from tunesmith.records import Message, Record, Report, Role, Source

from .browser import browsing
from .evaluated import DETAILS, Scripted, report_of
from .pages import HOSTILE, Page

REPORT = from_json(to_json(report_of(details=DETAILS)))  # as it is stored


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"[+-]?\d[\d,]*(?:\.\d+)?", text)]


def close(shown: str, *expected: float | None) -> bool:
    """Whether a cell holds these numbers, as exactly as its digits tell."""
    found = numbers(shown)
    wanted = [value for value in expected if value is not None]
    decimals = max((len(part.partition(".")[2]) for part in re.findall(r"\d+\.\d+", shown)), default=0)
    return len(found) == len(wanted) and all(abs(a - b) <= 0.5001 * 10**-decimals for a, b in zip(found, wanted, strict=True))


def test_the_page_has_the_verdict_first_and_every_section_in_order() -> None:
    page = Page(evaluation_page(REPORT, title="shop@2"))
    assert page.open == []
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    expected = [
        "arms",
        "differences",
        "prompting",
        "rows",
        "slices",
        "power",
        "reliability",
        "contamination",
        "more-safety",
        "reproduce",
    ]
    assert sections == expected
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [f"#{name}" for name in expected]
    assert page.text.index(REPORT.verdict) < page.text.index("Side by side")
    assert "left out: 3 seen by shop@1 in training" in REPORT.verdict
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "form", "img"} == set()


def test_every_figure_on_the_page_is_the_reports() -> None:
    page = Page(evaluation_page(REPORT, title="shop@2"))
    names = {reading_of(metric).label: metric for metric in ordered_metrics(REPORT)}
    seen = set()
    for row in page.with_columns("figure", *REPORT.scores):
        for arm, scores in REPORT.scores.items():
            score = scores[names[row["figure"]]]
            assert close(row[arm], score.value, score.low, score.high), (row, score)
            seen.add((arm, names[row["figure"]]))
    assert seen == {(arm, metric) for arm, scores in REPORT.scores.items() for metric in scores}
    seen.clear()
    for row in page.with_columns("figure", "arm", "difference [95 %]", "p", "p, corrected"):
        score = REPORT.differences[row["arm"]][names[row["figure"]]]
        assert close(row["difference [95 %]"], score.value, score.low, score.high), (row, score)
        for shown, value in ((row["p"], score.p_value), (row["p, corrected"], score.p_adjusted)):
            assert value is not None
            assert value < 0.001 if shown == "< 0.001" else close(shown, value)
        seen.add((row["arm"], names[row["figure"]]))
    assert seen == {(arm, metric) for arm, scores in REPORT.differences.items() for metric in scores}
    slices = {one.name: one for one in REPORT.slices}
    rows = list(page.with_columns("slice", "base", "tuned"))
    assert len(rows) == len(slices) * len(headlines(ordered_metrics(REPORT)))
    for row in rows:
        one, metric = slices[row["slice"]], names[row["figure"]]
        assert (row["rows"], row["clusters"]) == (str(one.num_rows), str(one.num_clusters))
        for arm in ("base", "tuned"):
            score = one.scores[arm][metric]
            assert close(row[arm], score.value, score.low, score.high)
        score = one.differences["tuned"][metric]
        assert close(row["difference [95 %]"], score.value, score.low, score.high)


def test_what_the_rows_can_show_follows_from_the_reports_least_difference() -> None:
    names = {reading_of(metric).label: metric for metric in ordered_metrics(REPORT)}
    rows = list(Page(evaluation_page(REPORT, title="t")).with_columns("smallest to be found"))
    assert len(rows) == len(REPORT.differences["tuned"])
    for row in rows:
        score = REPORT.differences["tuned"][names[row["figure"]]]
        assert score.detectable is not None
        assert close(row["smallest to be found"], score.detectable)
        assert row["rows there"] == "48"
        needed = 48 * (score.detectable / score.value) ** 2
        told = row["rows needed to find what was seen"]
        assert told == "there are enough" if needed <= 48 else int(told) == math.ceil(needed)


def test_pictures_draw_intervals_where_they_are_with_better_on_the_right() -> None:
    page = evaluation_page(REPORT, title="t")
    figures = re.findall(
        r'<figcaption id="differences-\d-t">(.*?): difference to base</figcaption>\n<ul class="forest">(.*?)</ul>', page, re.S
    )
    assert [label for label, _ in figures] == ["perplexity", "ROUGE-L", "facts right (%)"]
    for (_, drawn), metric in zip(figures, headlines(ordered_metrics(REPORT)), strict=True):
        spans = re.findall(r'class="span" x1="([\d.-]+)" x2="([\d.-]+)"', drawn)
        scores = [REPORT.differences[arm][metric] for arm in ("tuned", "base+few_shot")]
        sign = -1 if metric == "perplexity" else 1
        limit = 1.04 * max(abs(bound) for score in scores for bound in (score.low, score.high, score.value) if bound is not None)
        for (left, right), score in zip(spans, scores, strict=True):
            assert score.low is not None
            assert score.high is not None
            assert float(left) == pytest.approx(500 + sign * 500 * score.low / limit, abs=0.06)
            assert float(right) == pytest.approx(500 + sign * 500 * score.high / limit, abs=0.06)
            assert 0 <= float(left) <= 1000
            assert 0 <= float(right) <= 1000
    assert re.findall(r'<li class="(\w+)"><span class="name" dir="auto">tuned<', page)[:3] == ["better", "better", "worse"]


def test_the_page_says_whether_training_beats_the_best_prompt_and_what_a_request_takes() -> None:
    page = Page(evaluation_page(REPORT, title="t"))
    assert (
        "The best prompt is base+few_shot. Beside it tuned has perplexity -1.70 [-1.90, -1.50], p < 0.001: better." in page.text
    )
    header, *rows = next(table for table in page.tables if "seconds a request" in table[0])
    assert header[1:] == ["requests", "prompt tokens", "answer tokens", "seconds a request", "requests until training pays off"]
    assert [row[0] for row in rows] == ["base", "tuned", "base+few_shot"]
    assert [row[4] for row in rows] == ["0.213", "0.142", "0.5"]
    assert rows[2][5] == "4,200"
    assert "break_even" not in page.text
    without = evaluation_page(report_of(), title="t")
    assert "Prompt or fine-tune?" not in without
    assert "What a request takes" not in without


def test_rows_that_got_better_and_worse_are_counted_and_the_extremes_shown() -> None:
    page = Page(evaluation_page(REPORT, title="t"))
    changes = {one.metric: one for one in count_changes(REPORT)}
    lost = [sample for i, sample in enumerate(REPORT.samples) if i % 8 == 3]  # where the tuned model has no idea
    assert (changes["rougeL"].num_worse, changes["rougeL"].num_better, changes["rougeL"].num_same) == (
        len(lost),
        48 - len(lost),
        0,
    )
    assert changes["perplexity"].num_better == 48  # lower is better
    shown = {
        row["figure"]: (row["better"], row["worse"], row["the same"]) for row in page.with_columns("better", "worse", "the same")
    }
    assert shown["ROUGE-L"] == ("42", "6", "0")
    assert shown["facts right (%)"] == ("0", "6", "42")
    worst = min(lost, key=lambda sample: sample.scores["tuned"]["rougeL"] - sample.scores["base"]["rougeL"])
    assert page.text.index("Biggest losses in ROUGE-L") < page.text.index(worst.question) < page.text.index("Biggest gains")


def test_changed_words_are_marked_and_nothing_else_changes() -> None:
    left, right = marked("We open at nine.", "We close at nine & six.")
    assert left == "We <del>open</del> at nine."
    assert right == "We <ins>close</ins> at nine <ins>&amp; six</ins>."
    assert marked("我们九点开门", "我们八点开门") == ("我们<del>九</del>点开门", "我们<ins>八</ins>点开门")


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=60), st.text("ab <&\n", max_size=60))
def test_without_its_marks_a_marked_text_is_the_text(left: str, right: str) -> None:
    for text, shown in zip((left, right), marked(left, right), strict=True):
        assert html.unescape(re.sub(r"</?(?:del|ins)>", "", shown)) == text
    assert not any("<del>" in shown or "<ins>" in shown for shown in marked(left, left))


def test_labels_have_a_table_of_confusions() -> None:
    labels = ("bad", "fair", "good")
    metrics = ("classification",)
    report = report_of(reference=lambda i: labels[i % 3], metrics=metrics, answer=lambda i, _: labels[i % 2] if i != 5 else "?")
    page = Page(evaluation_page(report, title="t"))
    found = list(page.with_columns("right", *labels, "(no such label)"))
    rows = {row["right"]: row for row in found[:3]}  # the base's table follows
    assert len(found) == 6
    for wanted, label in enumerate(labels):
        counts = [sum(i % 3 == wanted and i % 2 == said and i != 5 for i in range(48)) for said in range(3)]
        assert [int(rows[label][said]) for said in labels] == counts
    assert [int(rows[label]["(no such label)"]) for label in labels] == [0, 0, 1]
    many = report_of(reference=lambda i: f"label {i % 20}", metrics=metrics, answer=lambda i, _: f"label {(i + i % 2) % 20}")
    assert {
        (row["right"], row["answered"], row["rows"])
        for row in Page(evaluation_page(many, title="t")).with_columns("right", "answered")
    } >= {
        ("label 1", "label 2", "3"),
        ("label 19", "label 0", "2"),
    }


def test_the_report_lies_beside_the_page_and_a_page_of_it_is_the_same(tmp_path: Path) -> None:
    page = tmp_path / "out" / "shop@2.html"
    write_evaluation(REPORT, title="shop@2", html=page)
    kept = from_json(page.with_suffix(".json").read_bytes())
    assert kept.id == REPORT.id
    assert evaluation_page(kept, title="shop@2") == page.read_text()


def test_a_report_without_comparison_answers_or_finite_figures_has_a_page() -> None:
    records = [
        Record(
            id=f"r{i}",
            source=Source(path="x", line=i),
            messages=(Message(role=Role.USER, content=f"Question {i}?"), Message(role=Role.ASSISTANT, content="So.")),
        )
        for i in range(9)
    ]
    endless = Scripted(lambda *_: "", lambda _: math.inf, ["So."] * 9)
    for metrics in (("perplexity",), ("perplexity", "rouge")):
        config = EvaluateConfig.model_validate({"metrics": metrics})
        alone = evaluate(records, arms={"tuned": endless}, config=config)
        both = evaluate(records, arms={"base": endless, "tuned": endless}, config=config)
        for report in (alone, both):
            page = Page(evaluation_page(report, title="t"))
            assert page.open == []
            assert report.verdict in page.text
            assert "inf" in page.text


def test_the_pages_policy_allows_its_own_style_and_nothing_else() -> None:
    page = evaluation_page(REPORT, title="t")
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert style
    assert policy
    digest = b64encode(sha256(style[1].encode()).digest()).decode()
    assert policy[1] == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"
    assert " style=" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(text: str) -> None:
    hostile, tame = (_everywhere(one) for one in (text, "tame"))
    assert hostile.open == []
    plain = {"span", "del", "ins", "details", "summary", "section", "h2", "svg", "line", "ul", "li", "figure", "figcaption"}
    assert {tag for tag, _ in hostile.tags} - plain == {tag for tag, _ in tame.tags} - plain
    visible = re.sub("[\u202e\u2066\x1b\x00]", lambda sign: f"U+{ord(sign[0]):04X}", text)
    assert hostile.text.count(visible[:1000]) >= 20
    assert not re.search("[\u202e\u2066\x1b\x00]", hostile.text)
    _runs_and_loads_nothing(hostile)


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_any_text_stays_text(text: str) -> None:
    page = _everywhere(text)
    assert page.open == []
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]", page.text)
    _runs_and_loads_nothing(page)


def _everywhere(text: str) -> Page:
    """A page with a text in every place where data can stand."""
    details = {
        "arms": {text: {text: text}},
        "reliability": {text: [[0.5, 0.5, 3]]},
        "contamination": {"summary": text, text: text, "examples": [{"test": text}]},
        "left_out": {text: 3},
        "reproduce": {"command": text, text: {text: text}},
        text: {text: text},
    }
    report = report_of(
        18, text=text, metrics=("rouge", "classification"), details=details, answer=lambda i, _: text if i % 2 else "no"
    )
    return Page(evaluation_page(report, title=text))


def _runs_and_loads_nothing(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base", "img"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style"
            if name in {"href", "src", "action", "xlink:href", "data", "srcset"}:
                assert value is not None
                assert value.startswith(("#", "data:")), (tag, value)


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    details = {**DETAILS, "\u202e<b>" * 3: {"x" * 900: "y" * 900}}
    return {
        "usual": REPORT,
        "hostile": report_of(20, text="<script>alert(1)</script>\u202e\x1b[31m" + "W" * 900, details=details),
    }


def test_a_browser_finds_nothing_wrong_at_any_width_in_light_and_dark(tmp_path: Path, reports: dict[str, Report]) -> None:
    with browsing() as browser:
        for name, report in reports.items():
            page = tmp_path / f"{name}.html"
            write_evaluation(report, title=name, html=page)
            grounds = {}
            for width in (400, 1400):
                for scheme in ("light", "dark"):
                    seen = browser.look(page, width=width, scheme=scheme)
                    assert seen.messages == [], (name, width, scheme)
                    assert seen.requests == [page.as_uri()]
                    assert seen.width == width, (name, width, scheme)
                    assert report.verdict.split(":")[0] in seen.text
                    grounds[scheme] = seen.ground
            assert grounds == {"light": "rgb(251, 251, 249)", "dark": "rgb(21, 24, 28)"}


def test_the_browser_would_tell_of_a_page_that_breaks_the_rules(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    wide = '<div style="width: 3000px">wide</div><img src="other.png"><script>console.error("no")</script>'
    page.write_text(f'<meta http-equiv="Content-Security-Policy" content="style-src \'none\'">{wide}<pre>{"W" * 900}</pre>')
    with browsing() as browser:
        seen = browser.look(page, width=400, scheme="light")
    assert len(seen.messages) >= 2
    assert len(seen.requests) == 2
    assert seen.width > 400

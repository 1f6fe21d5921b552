"""A real process, a real client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
from tests.conftest import require_tool
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.serve.annotate import PageName, page_text


class Site(NamedTuple):
    url: str
    token: str
    out: Path
    process: subprocess.Popen[str]

    def ask(self, action: str, *, by: str = "anna", **fields: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/api/{action}", params={"token": self.token}, json={"by": by, **fields}, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.out.read_bytes().splitlines()]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Site]:
    out = folder / "out.jsonl"
    command = [sys.executable, "-m", "tunesmith", "data", "annotate", "rows.jsonl", "--out", str(out), "--no-browser", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = urlsplit(process.stdout.readline().strip())
            yield Site(f"{url.scheme}://{url.netloc}", url.query.removeprefix("token="), out, process)
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chats = [
        {"messages": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer {i}."}]}
        for i in range(6)
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(chat) + b"\n" for chat in chats))
    return tmp_path


def test_a_person_labels_corrects_takes_back_and_every_decision_is_in_the_file(folder):
    with serving(folder, "--by", "anna", "--labels", "right,wrong") as site:
        first = site.ask("next")
        assert first["labels"] == ["right", "wrong"]
        row = first["task"]["row"]
        saved = site.ask("decide", row=row, kind="label", value="wrong")
        assert (saved["saved"], saved["num_done"], saved["num_rows"]) == (True, 1, 6)
        assert [line["annotation"]["value"] for line in site.lines()] == ["wrong"]
        site.ask("decide", row=row, kind="answer", value="Better.")
        assert site.ask("show", row=row)["task"]["mine"] == {"label": "wrong", "answer": "Better."}
        undone = site.ask("undo")
        assert (undone["undone"], undone["task"]["mine"]) == (row, {"label": "wrong"})
        lines = site.lines()
        assert [line["annotation"]["kind"] for line in lines] == ["label", "answer", "undo"]
        assert lines[1]["messages"][-1]["content"] == "Better."
        assert lines[1]["parents"] == [row]
        os.kill(site.process.pid, signal.SIGINT)
        assert site.process.wait(30) == 0
        assert "Traceback" not in (site.process.stderr.read() if site.process.stderr else "")


def test_what_was_decided_before_a_kill_is_there_afterwards(folder):
    with serving(folder) as site:
        for _ in range(3):
            site.ask("decide", row=site.ask("next")["task"]["row"], kind="label", value="good")
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(30)
    with serving(folder) as site:
        assert site.ask("next")["num_done"] == 3
        assert site.ask("next", by="ben")["num_done"] == 0


def test_two_processes_work_on_one_file(folder):
    with serving(folder) as one, serving(folder) as other:
        for _ in range(6):
            one.ask("decide", by="anna", row=one.ask("next", by="anna")["task"]["row"], kind="label", value="good")
            other.ask("decide", by="ben", row=other.ask("next", by="ben")["task"]["row"], kind="label", value="bad")
        assert one.ask("next", by="anna")["task"] is None
        assert one.ask("next", by="ben")["num_done"] == 6
    agreement = CliRunner().invoke(app, ["data", "agreement", str(folder / "out.jsonl"), "--json"])
    found = orjson.loads(agreement.stdout)["label"]
    assert (found["num_items"], found["observed"], found["cohen_kappa"]) == (6, 0.0, {"anna, ben": 0.0})


def test_without_the_token_or_from_another_page_nothing_is_told(folder):
    with serving(folder) as site:
        asked = {"by": "anna"}
        for params in ({}, {"token": ""}, {"token": site.token + "x"}, {"token": [site.token, site.token]}):
            for path in ("/", "/api/next", "/nowhere"):
                answer = httpx.post(site.url + path, params=params, json=asked)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalid_token"), (path, params)
        token = {"token": site.token}
        for origin in ("http://evil.example", "null", f"{site.url}.evil.example", site.url.replace("http", "https")):
            answer = httpx.post(f"{site.url}/api/next", params=token, json=asked, headers={"origin": origin})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed"), origin
        for host in ("evil.example", "localhost.evil.example", "192.168.1.5", ""):
            answer = httpx.get(f"{site.url}/", params=token, headers={"host": host})
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host_not_allowed"), host
        ours = httpx.post(f"{site.url}/api/next", params=token, json=asked, headers={"origin": site.url})
        assert ours.status_code == 200
        form = httpx.post(f"{site.url}/api/next", params=token, content=b'{"by":"x"}', headers={"content-type": "text/plain"})
        assert form.status_code == 415
        assert not site.out.exists()


SENSELESS: list[tuple[dict[str, Any], int]] = [
    ({}, 400),
    ({"by": 3}, 400),
    ({"by": "anna", "row": "none", "kind": "label", "value": "good"}, 404),
    ({"by": "anna", "kind": "label", "value": "great"}, 400),
    ({"by": "anna", "kind": "undo", "value": "label"}, 400),
    ({"by": "anna", "kind": "rank", "value": "left"}, 400),
    ({"by": "a\nb", "kind": "label", "value": "good"}, 400),
    ({"by": "anna", "kind": "answer", "value": " "}, 400),
]


def test_a_request_that_makes_no_sense_is_refused_and_nothing_is_kept(folder):
    with serving(folder) as site:
        row = site.ask("next")["task"]["row"]
        for fields, status in SENSELESS:
            answer = httpx.post(f"{site.url}/api/decide", params={"token": site.token}, json={"row": row, **fields})
            assert (answer.status_code, set(answer.json()["error"])) == (status, {"message", "type", "param", "code"}), fields
        for body in (b"", b"[]", b"{", b"\xff"):
            headers = {"content-type": "application/json"}
            broken = httpx.post(f"{site.url}/api/decide", params={"token": site.token}, content=body, headers=headers)
            assert broken.status_code == 400
        assert not site.out.exists()


def test_the_page_is_whole_loads_nothing_and_its_policy_lets_only_its_own_script_run(folder):
    name = "</script><script>alert(1)</script>"
    with serving(folder, "--by", name) as site:
        answer = httpx.get(f"{site.url}/", params={"token": site.token})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    (nonce,) = set(re.findall(r"nonce-([\w-]+)", policy))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Tags().feed(answer.text)
    assert [attrs for tag, attrs in tags if tag == "script"] == [{"nonce": nonce}]
    assert [attrs for tag, attrs in tags if tag == "style"] == [{"nonce": nonce}]
    for _, attrs in tags:
        assert not {key for key in attrs if key.startswith("on") or key in {"src", "style"}}
        assert attrs.get("href", "data:,") == "data:,"
    assert "{{" not in answer.text
    assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write", answer.text)


@pytest.mark.parametrize("name", list(PageName))
def test_the_script_of_a_page_is_sound(tmp_path, name):
    node = require_tool("node")
    page = page_text(name)
    script = page.partition('<script nonce="{{nonce}}">')[2].partition("</script>")[0].replace("{{by}}", '"anna"')
    assert "{{" not in script
    (tmp_path / "page.js").write_text(script, encoding="utf-8")
    result = subprocess.run([node, "--check", str(tmp_path / "page.js")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    named = set(re.findall(r'find\("([\w-]+)"\)', script)) - {"editor"}  # made by the script itself
    assert named <= set(re.findall(r'id="([\w-]+)"', page))


@pytest.mark.parametrize("name", list(PageName))
def test_a_page_names_no_other_place(name):
    page = page_text(name)
    assert not re.search(r"https?://|@import|url\(|\bsrc=|innerHTML|insertAdjacentHTML|outerHTML|document\.write|\son\w+=", page)
    assert re.findall(r'href="([^"]*)"', page) == ["data:,"]


def test_decisions_go_out_to_label_studio_and_come_back_once(folder):
    with serving(folder) as site:
        site.ask("decide", row=site.ask("next")["task"]["row"], kind="label", value="good")
        site.ask("decide", row=site.ask("next")["task"]["row"], kind="answer", value="Better.")
    rows, out = str(folder / "rows.jsonl"), str(folder / "out.jsonl")
    studio, again = folder / "ls.json", folder / "again.jsonl"
    sent = CliRunner().invoke(app, ["data", "annotate", rows, "--out", out, "--export", "label-studio", str(studio)])
    assert (sent.exit_code, len(orjson.loads(studio.read_bytes()))) == (0, 6), sent.output
    for taken in ("2 decisions taken over, 0 were there", "0 decisions taken over, 2 were there"):
        result = CliRunner().invoke(app, ["data", "annotate", rows, "--out", str(again), "--import", str(studio)])
        assert (result.exit_code, taken in result.output) == (0, True), result.output

    def kept(path: Path) -> list[tuple[Any, ...]]:
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        return [(line["id"], line["parents"], *line["annotation"].values()) for line in lines]

    assert kept(again) == kept(Path(out))
    written = CliRunner().invoke(
        app, ["data", "annotate", rows, "--out", str(again), "--export", "rows", str(folder / "new.jsonl")]
    )
    assert "2 rows written" in written.output
    assert len((folder / "new.jsonl").read_bytes().splitlines()) == 2


def test_the_rows_themselves_are_never_appended_to(folder):
    before = (folder / "rows.jsonl").read_bytes()
    rows = str(folder / "rows.jsonl")
    for more in ([], ["--export", "rows", rows]):
        result = CliRunner().invoke(app, ["data", "annotate", rows, "--out", rows, "--no-browser", *more])
        assert result.exit_code != 0
    assert (folder / "rows.jsonl").read_bytes() == before


def test_agreement_reads_plain_ratings_too_and_names_a_line_that_is_none(tmp_path):
    file = tmp_path / "ratings.jsonl"
    ratings = [{"item": i, "by": by, "label": i % 2 if by == "a" else (i + i // 3) % 2} for i in range(6) for by in ("a", "b")]
    file.write_bytes(b"".join(orjson.dumps(rating) + b"\n" for rating in ratings))
    result = CliRunner().invoke(app, ["data", "agreement", str(file), "--json"])
    assert orjson.loads(result.stdout)["label"]["num_items"] == 6
    shown = CliRunner().invoke(app, ["data", "agreement", str(file)])
    assert "Cohen" in shown.stdout
    assert "interval" in shown.stdout
    with file.open("ab") as more:
        more.write(b'{"item": 1}\n')
    assert "ratings.jsonl:13" in str(CliRunner().invoke(app, ["data", "agreement", str(file)]).exception)

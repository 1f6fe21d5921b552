"""A recipe with other arms: a model behind a URL beside the tuned one, with its price, and the key in no file."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from .conftest import ITEMS, RECIPE, call, write_rows
from .conftest import rows as all_rows

KEY = "sk-never-to-be-seen"
ARMS = """
evaluate:
  max_new_tokens: 24
  arms: [zero_shot, tuned_few_shot]
  search: {rows: 8}
  costs: {price_in: 1, price_out: 1, training: 2}
  endpoints: [{name: oracle, url: "%s", model: m, key_env: ORACLE_KEY, price_in: 100, price_out: 100}]
"""


class Oracle(BaseHTTPRequestHandler):
    """Knows every price."""

    asked: ClassVar[list[str]] = []
    most = 10**9
    """Questions that it answers; then it is broken."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = body["messages"][-1]["content"]
        Oracle.asked.append(asked)
        if len(Oracle.asked) > Oracle.most:
            self.send_response(400)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        number = next(n for n, item in enumerate(ITEMS) if re.search(rf"\b{item}\b", asked))
        text = f"The {ITEMS[number]} costs {7 * number + 5} euros."
        is_known = self.headers["authorization"] == f"Bearer {KEY}"
        reply = {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 30, "completion_tokens": 10}}
        data = json.dumps(reply if is_known else {"error": "who are you?"}).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def oracle() -> Iterator[str]:
    """The URL of a server that is there inside the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Oracle)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Oracle, "asked", [])
    with oracle() as url:
        yield url


def test_another_model_is_judged_beside_the_tuned_one_and_its_key_is_in_no_file(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows.jsonl", all_rows())
    recipe = RECIPE.replace("evaluate: {max_new_tokens: 24}\n", ARMS % url).replace("epochs: 6", "max_steps: 8")
    (tmp_path / "recipe.yaml").write_text(recipe)
    monkeypatch.delenv("ORACLE_KEY", raising=False)
    refused = call("run", "recipe.yaml", workspace=tmp_path / "work", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "oracle needs its key in the environment variable ORACLE_KEY" in refused.stderr
    assert "● train" not in refused.stderr
    monkeypatch.setenv("ORACLE_KEY", KEY)
    done = call("run", "recipe.yaml", workspace=tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "work" / "artefacts").glob("*/report.json")
    report = json.loads(file.read_text())
    assert report["scores"]["oracle"]["facts"]["value"] == report["scores"]["oracle"]["rougeL"]["value"] == 100
    assert "perplexity" not in report["scores"]["oracle"]
    assert {"tuned", "tuned+few_shot"} <= report["scores"].keys()
    assert "perplexity" in report["scores"]["tuned"]
    took = report["details"]["arms"]["oracle"]
    assert (took["prompt_tokens"], took["answer_tokens"]) == (30, 10)
    assert took["cost"] == pytest.approx(40 * 100 / 1e6)
    ours = report["details"]["arms"]["tuned"]["cost"]
    assert 2 / (took["cost"] - ours) <= took["break_even_requests"] <= 2 / (took["cost"] - ours) + 1
    assert report["details"]["prompts"]["tuned+few_shot"]["num_rows"] == 8
    assert report["details"]["prompting"]["arm"] == "oracle"
    assert "the best prompt does better without any training (oracle)" in " ".join(done.stdout.split())
    assert "training pays off" in done.stdout
    for written in (tmp_path / "work").rglob("*"):
        assert not written.is_file() or KEY.encode() not in written.read_bytes(), written
    assert KEY not in done.stdout + done.stderr


def test_a_model_that_fails_half_way_is_asked_only_for_the_rest(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows.jsonl", all_rows())
    recipe = RECIPE.replace("evaluate: {max_new_tokens: 24}\n", ARMS % url).replace("epochs: 6", "max_steps: 8")
    (tmp_path / "recipe.yaml").write_text(
        recipe.replace("[zero_shot, tuned_few_shot]", "[zero_shot]").replace("  search: {rows: 8}\n", "")
    )
    monkeypatch.setenv("ORACLE_KEY", KEY)
    monkeypatch.setattr(Oracle, "most", 7)
    failed = call("run", "recipe.yaml", workspace=tmp_path / "work", cwd=tmp_path)
    assert failed.returncode == 2, failed.stderr
    assert "status 400" in failed.stderr
    assert "what has been trained, and every answer that it gave, is kept" in " ".join(failed.stderr.split())
    answered = Oracle.asked[:7]
    assert len((tmp_path / "work" / "answers" / "endpoints.jsonl").read_text().splitlines()) == 7
    monkeypatch.setattr(Oracle, "most", 10**9)
    monkeypatch.setattr(Oracle, "asked", [])
    done = call("run", "recipe.yaml", workspace=tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "work" / "reports" / "tiny@1" / "evaluation.json").read_text())
    assert report["num_rows"] == 19
    assert len(Oracle.asked) == 19 - 7
    assert not set(Oracle.asked) & set(answered)
    assert report["scores"]["oracle"]["facts"]["value"] == 100
    assert report["details"]["arms"]["oracle"]["num_requests"] == 19
    assert report["details"]["kept answers"]["oracle"]["answers"] == 7
    assert "oracle: 7 answers were kept from before" in " ".join(done.stderr.split())
    assert "kept answers" in (tmp_path / "work" / "reports" / "tiny@1" / "evaluation.html").read_text().lower()

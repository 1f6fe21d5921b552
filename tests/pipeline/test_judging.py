"""Versions whose answers are made up, judged by made-up people over HTTP and by made-up models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
from tests.evaluate.test_endpoint import Reply, answer
from tests.evaluate.test_endpoint import serving as serving_api
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.data import DataConfig, SourceConfig, load_split
from tunesmith.data.config import SplitConfig
from tunesmith.data.freeze import freeze
from tunesmith.errors import DataError, NotFound, UserError
from tunesmith.evaluate import EvaluateConfig, Likelihood, evaluate, to_json
from tunesmith.evaluate.judging import JudgePrompt
from tunesmith.pipeline.annotating import DeskPage
from tunesmith.pipeline.judging import draw_pairs, human_logs, judge_by_model, model_logs, open_desk
from tunesmith.pipeline.preferences import read_preferences
from tunesmith.records import Message, ModelVersion, Record
from tunesmith.store import Store

GOOD, BAD = "it costs", "no idea about"
Answer = Callable[[str], str]


class Said(NamedTuple):
    """An arm that answers by what it was asked."""

    answer: Answer

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        return [self.answer(conversation[-1].content) for conversation in conversations]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        return [Likelihood(1.0, 1, 1) for _ in records]


def good(question: str) -> str:
    return f"{question.removesuffix('?')}: {GOOD} 7 euros"


def bad(question: str) -> str:
    return f"{BAD} {question.removesuffix('?')}"


def world(folder: Path) -> Store:
    """Eighty conversations of three turns, two to a group, half of them held out."""
    rows = [
        {
            "group": f"g{i // 2}",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"thing {i}?"},
                {"role": "assistant", "content": f"The thing {i} costs 7 euros."},
            ],
        }
        for i in range(80)
    ]
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return Store(folder / "work")


def register(store: Store, arms: Mapping[str, Answer] | None, *, name: str = "shop", folder: Path, metric: Any = "rouge") -> str:
    """A version whose report holds what each arm answered to the test rows."""
    split = SplitConfig(validation=0, test=0.5, near_duplicates=None)
    snapshot = freeze(DataConfig(sources=(SourceConfig(path="rows.jsonl"),), split=split), folder=folder, store=store)
    number = len(store.ledger.versions())
    with store.artefacts.publish("model") as model:
        (model.path / "tunesmith.json").write_bytes(orjson.dumps({"snapshot": snapshot.id, "number": number}))
    reports: tuple[str, ...] = ()
    if arms is not None:
        report = evaluate(
            load_split(store, snapshot, split="test"),
            arms={arm: Said(answer) for arm, answer in arms.items()},
            config=EvaluateConfig(metrics=(metric,)),
        )
        with store.artefacts.publish("report") as staging:
            (staging.path / "report.json").write_bytes(to_json(report))
        reports = (staging.artefact.digest,)
    facts = {"run": "r", "weights_digest": "w", "chat_digest": "c", "base_digest": "b", "created_at": ""}
    version = ModelVersion(name=name, number=0, artefact=model.artefact.digest, reports=reports, **facts)
    return store.ledger.register(version).ref


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = world(tmp_path)
    assert register(found, {"base": bad, "champion": bad, "tuned": good}, folder=tmp_path) == "shop@1"
    return found


Ask = Callable[..., dict[str, Any]]


class Judges(NamedTuple):
    """People who judge, by what the page speaks to."""

    ask: Ask

    def judge(self, choose: Callable[[dict[str, Any]], str], *, num: int, by: str = "anna") -> list[dict[str, Any]]:
        """Judge pairs as they come, and return them as they were shown."""
        shown = []
        for _ in range(num):
            task = self.ask("next", by=by)["task"]
            self.ask("decide", by=by, row=task["row"], kind="rank", value=choose(task))
            shown.append(task)
        return shown


class Site(NamedTuple):
    url: str
    token: str
    process: subprocess.Popen[str]

    def ask(self, action: str, *, by: str = "anna", **fields: Any) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/api/{action}", params={"token": self.token}, json={"by": by, **fields}, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def serving(store: Store, *options: str) -> Iterator[Site]:
    """The page, in a process of its own."""
    command = [sys.executable, "-m", "tunesmith", "judge", "shop@1", "--workspace", str(store.root), "--no-browser", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = urlsplit(process.stdout.readline().strip())
            yield Site(f"{url.scheme}://{url.netloc}", url.query.removeprefix("token="), process)
        finally:
            process.kill()


def desk(store: Store, ref: str = "shop@1", *, against: str | None = None) -> Judges:
    """The same without HTTP: what the page speaks to."""
    page = DeskPage(open_desk(ref, against=against, store=store, seed=0))

    def ask(action: str, *, by: str = "anna", **fields: Any) -> dict[str, Any]:
        found: dict[str, Any] = getattr(page, action)(by=by, **({"passing": []} if action == "next" else {}), **fields)
        return found

    return Judges(ask)


def better(task: Mapping[str, Any]) -> str:
    """The side of the good answer."""
    return "left" if GOOD in task["left"][0]["content"] else "right"


def worse(task: Mapping[str, Any]) -> str:
    return "right" if better(task) == "left" else "left"


def results(store: Store, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["judge", "shop@1", "--workspace", str(store.root), "--json", *options])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = orjson.loads(result.stdout)
    return found


def test_people_judge_blind_and_what_they_prefer_is_told(store):
    with serving(store, "--by", "anna", "--seed", "4") as site:
        shown = Judges(site.ask).judge(better, num=30)
        again = Judges(site.ask).judge(better, num=10, by="ben")
        first = site.ask("next")
        os.kill(site.process.pid, signal.SIGINT)
        assert site.process.wait(30) == 0
    assert (first["num_done"], first["num_rows"]) == (30, 40)
    # Both see the same rows in the same order, each with sides of their own; nothing names an arm.
    assert [task["row"] for task in again] == [task["row"] for task in shown[:10]]
    sides = [better(task) for task in shown]
    assert 5 < sides.count("left") < 25
    assert sides[:10] != [better(task) for task in again]
    told = orjson.dumps(shown).decode()
    assert not any(name in told for name in ('"base', '"tuned', "against", "arm"))
    assert [message["role"] for message in shown[0]["messages"]] == ["system", "user"]
    assert shown[0]["messages"][0]["content"] == "Be brief."
    found = results(store)
    (duel,) = found["ranking"]["duels"]
    assert (duel["first"], duel["second"], duel["wins"], duel["ties"], duel["losses"]) == ("shop@1", "base", 40, 0, 0)
    rows = {one["row"] for one in shown}
    assert duel["num_clusters"] < len(rows)  # two rows of a group are one witness
    assert found["ranking"]["strengths"]["shop@1"]["value"] == "inf"
    assert found["verdict"].startswith("People prefer shop@1 to base: shop@1 wins 100 % [100, 100] of 40 judgements in ")
    assert (found["agreement"]["num_items"], found["agreement"]["observed"]) == (10, 1.0)


def test_what_was_judged_before_a_kill_is_there_afterwards_and_undo_shows_the_pair_again(store):
    with serving(store) as site:
        shown = Judges(site.ask).judge(better, num=3)
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(30)
    with serving(store) as site:
        assert site.ask("next")["num_done"] == 3
        undone = site.ask("undo")
        assert (undone["undone"], undone["num_done"], undone["task"]["mine"]) == (shown[-1]["row"], 2, {})
        assert [undone["task"][side] for side in ("left", "right")] == [shown[-1][side] for side in ("left", "right")]
        skipped = site.ask("decide", row=undone["task"]["row"], kind="skip", value="")
        assert skipped["num_done"] == 3
        for kind, value in (("label", "good"), ("answer", "Better."), ("rank", "best")):
            fields = {"by": "anna", "row": shown[0]["row"], "kind": kind, "value": value}
            refused = httpx.post(f"{site.url}/api/decide", params={"token": site.token}, json=fields)
            assert refused.status_code == 400, kind
    assert results(store)["ranking"]["num_judgements"] == 2


def test_ties_bad_pairs_and_disagreement_are_counted(store):
    people = desk(store)
    people.judge(better, num=6)
    people.judge(lambda _: "tie", num=3)
    people.judge(lambda _: "neither", num=2)
    people.judge(worse, num=6, by="ben")
    found = results(store)
    (duel,) = found["ranking"]["duels"]
    assert (duel["wins"], duel["ties"], duel["losses"], found["num_both_bad"]) == (6, 5, 6, 2)
    assert duel["win_rate"]["value"] == 0.5
    assert found["agreement"]["observed"] == 0.0
    assert found["agreement"]["labels"] == {"base": 6, "shop@1": 6, "tie": 3, "both bad": 2}
    screen = CliRunner().invoke(app, ["judge", "shop@1", "--workspace", str(store.root), "--results"]).stdout
    assert "2 of the ties: both answers are bad" in screen
    assert "0.0 % of pairs of judgements" in screen


def test_several_arms_are_ranked_together(store, tmp_path):
    assert register(store, {"base": bad, "tuned": bad}, folder=tmp_path) == "shop@2"
    for other, choose in (("base", better), ("shop@2", lambda _: "tie")):
        people = desk(store, against=other)
        people.judge(choose, num=12)
        people.judge(better, num=3)
        people.judge(worse, num=2)
    found = results(store)
    assert list(found["ranking"]["strengths"]) == ["shop@1", "shop@2", "base"]
    assert [duel["second"] for duel in results(store, "--against", "shop@2")["ranking"]["duels"]] == ["shop@2"]
    screen = CliRunner().invoke(app, ["judge", "shop@1", "--workspace", str(store.root), "--results"]).stdout
    assert "log odds against base" in screen


def test_the_page_bears_nothing_of_another_page_and_listens_only_to_those_with_its_token(store):
    with serving(store) as site:
        page = httpx.get(f"{site.url}/", params={"token": site.token})
        assert "Which answer is better?" in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert httpx.get(f"{site.url}/").status_code == 403
        evil = httpx.post(
            f"{site.url}/api/next", params={"token": site.token}, json={"by": "x"}, headers={"origin": "http://evil.example"}
        )
        assert evil.status_code == 403


def test_equal_answers_are_not_shown(store, tmp_path):
    def mixed(question: str) -> str:
        return good(question) if int(question[6:-1]) % 2 else bad(question)

    ref = register(store, {"base": mixed, "tuned": good}, folder=tmp_path)
    drawn = draw_pairs(ref, against=None, store=store)
    assert (len(drawn.pairs) + drawn.num_equal, drawn.against) == (40, "base")
    assert 0 < drawn.num_equal < 40
    with pytest.raises(DataError, match="gave the same answer to all 40 questions"):
        draw_pairs(register(store, {"base": good, "tuned": good}, folder=tmp_path), against=None, store=store)


def test_what_cannot_be_judged_says_what_to_run(store, tmp_path):
    def error(*options: str) -> str:
        result = CliRunner().invoke(app, ["judge", *options, "--workspace", str(store.root), "--no-browser"])
        assert isinstance(result.exception, UserError)
        return str(result.exception)

    without = register(store, None, folder=tmp_path)
    assert f"{without} has no report" in error(without)
    assert "`tunesmith run` the recipe" in error(without)
    assert "has no arm 'gpt'" in error("shop@1", "--against", "gpt")
    assert "It has: base, champion" in error("shop@1", "--against", "gpt")
    assert "nobody has judged shop@1 yet. `tunesmith judge shop@1` opens the page" in error("shop@1", "--results")
    assert "cannot be judged against itself" in error("shop@1", "--against", "shop@1")
    alone = register(store, {"tuned": good}, folder=tmp_path, name="alone")
    assert "has no other arm to judge against. Name another version with --against" in error(alone)
    assert "It has no other; or name another version" in error(alone, "--against", "gpt")
    silent = register(store, {"base": bad, "tuned": good}, folder=tmp_path, name="silent", metric="perplexity")
    assert "was asked nothing when it was evaluated" in error(silent)
    with pytest.raises(NotFound):
        read_preferences("nobody@1", store=store)


def test_a_model_judges_in_both_orders_is_kept_and_goes_on_where_it_stopped(store):
    asked: list[str] = []

    def answering(prompt: str) -> str:
        asked.append(prompt)
        if len(asked) == 21:
            raise KeyboardInterrupt
        return "[[A]]" if GOOD in prompt.partition("</answer_A>")[0].partition("<answer_A>")[2] else "[[B]]"

    with pytest.raises(KeyboardInterrupt):
        judge_by_model("shop", store=store, against=None, ask=answering, name="fake")
    assert judge_by_model("shop@1", store=store, against=None, ask=answering, name="fake") == 30
    assert len(asked) == 81
    assert judge_by_model("shop@1", store=store, against=None, ask=answering, name="fake") == 0
    assert not any(name in prompt for prompt in asked for name in ("shop@1", "base"))
    assert "system: Be brief.\n\nuser: thing " in asked[0]
    (model,) = results(store)["models"]
    assert model["name"].startswith("fake (prompt ")
    assert model["sheet"]["verdict"].startswith("Not calibrated: people have judged 0 of the 20")
    assert (model["duel"]["wins"], model["sheet"]["num_torn"]) == (40, 0)
    # Another wording is another judge.
    other = JudgePrompt(text="{question} {a} {b}")
    assert judge_by_model("shop@1", store=store, against=None, ask=lambda _: "??", name="fake", prompt=other) == 40
    assert [one["sheet"]["num_unparsable"] for one in results(store)["models"]] == [0, 40]
    screen = CliRunner().invoke(app, ["judge", "shop@1", "--workspace", str(store.root), "--results"]).stdout
    assert "40 could not be read" in " ".join(screen.split())


def test_a_model_is_held_to_what_people_say(store, tmp_path):
    def every_third_better(question: str) -> str:
        return good(question) + " or less" if int(question[6:-1]) % 3 == 0 else bad(question)

    ref = register(store, {"base": lambda _: "hm, let me think about it", "tuned": every_third_better}, folder=tmp_path)
    drawn = draw_pairs(ref, against=None, store=store)
    desk(store, ref).judge(lambda task: better(task) if GOOD in str(task) else worse_of(task), num=30)
    judge_by_model(ref, store=store, against=None, ask=prefers_good, name="fake")
    assert [path.parent for path in (*human_logs(ref, store=store), *model_logs(ref, store=store))] == [
        store.judgements / ref
    ] * 2
    found = read_preferences(ref, store=store)
    (model,) = found.models
    assert model.agreement is not None
    assert (model.sheet.num_human, model.sheet.agreement, model.agreement.observed) == (30, 1.0, 1.0)
    assert model.sheet.first_wins is not None
    assert model.sheet.first_wins.rate is not None
    is_better = [GOOD in pair.messages[-1].content for pair in drawn.pairs]
    assert model.sheet.first_wins.rate.value == pytest.approx(sum(is_better) / len(is_better), abs=0.05)
    assert "corrected by 30 human labels" in model.sheet.verdict


def worse_of(task: Mapping[str, Any]) -> str:
    """The side that does not say that it has no idea."""
    return "right" if BAD in task["left"][0]["content"] else "left"


def prefers_good(prompt: str) -> str:
    a, _, b = prompt.partition("</answer_A>")
    a, b = a.partition("<answer_A>")[2], b.partition("<answer_B>")[2]
    if GOOD in a or BAD in b:
        return "[[A]]"
    return "[[B]]"


def test_lines_that_are_no_decisions_are_told_of_and_not_counted(store):
    desk(store).judge(better, num=2)
    (path,) = human_logs("shop@1", store=store)
    with path.open("ab") as file:
        file.write(
            b"what\n" + orjson.dumps({"annotation": {"by": "x", "kind": "rank", "of": "y", "value": "best", "at": "z"}}) + b"\n"
        )
    found = results(store)
    assert found["ranking"]["num_judgements"] == 2
    assert [row["source"] for row in found["unreadable"]] == [f"{path}:3"]


def test_a_model_behind_an_endpoint_judges_by_command(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prefer_prices(body: dict[str, Any], _number: int) -> Reply:
        asked = body["messages"][-1]["content"]
        first = asked.index(GOOD) < asked.index(BAD)
        return Reply(answer(f"One names the price. [[{'A' if first else 'B'}]]"))

    monkeypatch.setenv("JUDGE_KEY", "secret-key")
    with serving_api(prefer_prices) as server:
        command = ["judge", "shop@1", "--workspace", str(store.root), "--url", server.url, "--model", "prices", "--json"]
        done = CliRunner().invoke(app, [*command, "--key-env", "JUDGE_KEY"], catch_exceptions=False)
    found = orjson.loads(done.stdout)
    (model,) = found["models"]
    assert model["name"].startswith("prices (prompt ")
    num_pairs = len(draw_pairs("shop@1", against=None, store=store).pairs)
    assert num_pairs > 10
    assert model["sheet"]["num_pairs"] == num_pairs
    assert all("secret-key" not in path.read_text(errors="replace") for path in store.root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--url", "http://127.0.0.1:9/v1"], "--model"),
        (["--url", "not an address", "--model", "m"], "--url"),
        (["--url", "http://127.0.0.1:9/v1", "--model", "m", "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_before_anything_is_sent(store: Store, options: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        CliRunner().invoke(app, ["judge", "shop@1", "--workspace", str(store.root), *options], catch_exceptions=False)


def chatty(question: str) -> str:
    """Answers of 20 to 55 characters; four in five are longer than the good ones."""
    return bad(question)[:15] + "~" * (int(question[6:-1]) * 7 % 36 + 5)


def longest(task: Mapping[str, Any]) -> str:
    left, right = (len(task[side][0]["content"]) for side in ("left", "right"))
    return "tie" if left == right else "left" if left > right else "right"


def test_a_taste_for_length_is_no_preference_at_equal_length(store, tmp_path):
    ref = register(store, {"base": good, "tuned": chatty}, folder=tmp_path)
    drawn = draw_pairs(ref, against=None, store=store)
    lengths = [len(row.messages[-1].content) - len(row.rejected[0].content) for row in drawn.pairs]
    assert min(lengths) < 0 < max(lengths)
    desk(store, ref).judge(longest, num=40)
    preferences = read_preferences(ref, store=store)
    assert preferences.ranking is not None
    (duel,) = preferences.ranking.duels
    assert duel.equal_length is not None
    assert duel.equal_length.longer_by == pytest.approx(sum(lengths) / 40)  # also where the decision put the other answer first
    assert duel.win_rate.low is not None
    assert duel.win_rate.low > 0.5
    assert duel.equal_length.rate is not None
    assert duel.equal_length.rate.low is not None
    assert duel.equal_length.rate.low < 0.5
    assert f"it may be length alone that people prefer (answers of {ref} are longer by" in preferences.verdict
    result = CliRunner().invoke(app, ["judge", ref, "--workspace", str(store.root), "--results"])
    assert "at equal length" in result.stdout
    told = orjson.loads(CliRunner().invoke(app, ["judge", ref, "--workspace", str(store.root), "--json"]).stdout)
    assert told["ranking"]["duels"][0]["equal_length"]["rate"]["value"] == duel.equal_length.rate.value
    judge_by_model(ref, store=store, against=None, ask=lambda _: "[[A]]", name="fake")
    (model,) = read_preferences(ref, store=store).models
    assert model.duel is not None
    assert model.duel.equal_length is not None
    assert model.duel.equal_length.longer_by == duel.equal_length.longer_by


def test_answers_that_are_always_longer_are_told_of(store):
    desk(store).judge(better, num=20)
    found = results(store)
    (duel,) = found["ranking"]["duels"]
    assert duel["equal_length"]["rate"] is None
    assert duel["equal_length"]["longer_by"] > 0
    assert "All answers of shop@1 are the longer ones" in found["verdict"]


def test_who_leans_to_a_side_is_told_of_and_who_does_not_is_not(store):
    people = desk(store)
    people.judge(lambda _: "left", num=30)
    people.judge(better, num=30, by="ben")
    people.judge(lambda _: "tie", num=5, by="cleo")
    everybody, anna, ben = results(store)["sides"]
    assert (anna["by"], anna["num_left"], anna["num_decided"], anna["is_clear"]) == ("anna", 30, 30, True)
    assert (ben["by"], ben["num_decided"], ben["is_clear"]) == ("ben", 30, False)
    assert everybody["num_decided"] == 60
    result = CliRunner().invoke(app, ["judge", "shop@1", "--workspace", str(store.root), "--results"])
    screen = " ".join(result.stdout.split())
    assert "anna leans to the left: chose the left answer in 100 %" in screen
    assert "ben leans" not in screen


def test_judgements_of_before_sides_were_kept_are_counted_and_no_habit_is_read_from_them(store):
    desk(store).judge(lambda _: "left", num=10)
    (log,) = human_logs("shop@1", store=store)
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert {line["annotation"].pop("side") for line in lines} == {"left"}
    log.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    found = results(store)
    assert (found["ranking"]["num_judgements"], found["sides"]) == (10, [])


def test_a_model_whose_verdict_hangs_on_the_order_is_told_of(store):
    def first_or_nothing(prompt: str) -> str:
        return "[[A]]" if GOOD in prompt.partition("</answer_A>")[0].partition("<answer_A>")[2] else "[[TIE]]"

    judge_by_model("shop@1", store=store, against=None, ask=first_or_nothing, name="fake")
    (model,) = results(store)["models"]
    assert (model["duel"]["ties"], model["sheet"]["num_torn"], model["sheet"]["depends_on_order"]["value"]) == (40, 0, 1.0)
    result = CliRunner().invoke(app, ["judge", "shop@1", "--workspace", str(store.root), "--results"])
    screen = " ".join(result.stdout.split())
    assert "another verdict in the other order on 100 % [100, 100] (ties), on 0 for the other arm" in screen

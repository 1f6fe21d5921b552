"""A conversation in the terminal: what each line does, and that nothing a model says is obeyed."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tunesmith.model
from tunesmith.data.chat import ChatFormat
from tunesmith.errors import EndpointError, UserError
from tunesmith.evaluate import Part
from tunesmith.model import load_model, this_machine
from tunesmith.pipeline import ChatModel
from tunesmith.records import Message, Role
from tunesmith.terminal.conversation import Conversation, answer_once, say_once
from tunesmith.terminal.layout import printable
from tunesmith.terminal.partners import Local, count_down


class Scripted:
    """Gives one scripted answer after the other: texts in parts, or an error to raise after the first part."""

    def __init__(self, *answers: list[str] | BaseException, ref: str = "boutique") -> None:
        self.ref = ref
        self.answers = list(answers)
        self.asked: list[list[tuple[str, str]]] = []
        self.judged: list[Mapping[str, Any]] = []

    def stream(self, messages: Sequence[Message]) -> Iterator[Part]:
        self.asked.append([(turn.role.value, turn.content) for turn in messages])
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            yield Part("Half")
            raise answer
        for text in answer:
            yield Part(text)
        yield Part("", "stop", f"chatcmpl-{len(self.asked)}", 7, len(answer))

    def models(self) -> list[str]:
        return ["boutique", "boutique@1"]

    def judge(self, body: Mapping[str, Any]) -> None:
        self.judged.append(body)


def hear(partner: Scripted, *lines: str) -> str:
    """What the terminal shows of a conversation."""
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    conversation = Conversation([partner], console)
    for line in lines:
        conversation.hear(line)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_question_is_asked_with_all_that_was_said_before() -> None:
    partner = Scripted(["We ", "do."], ["At ten."])
    shown = hear(partner, "Do you open on Sundays?", "", "When?")
    assert shown == "We do.\nAt ten.\n"
    assert partner.asked[1] == [("user", "Do you open on Sundays?"), ("assistant", "We do."), ("user", "When?")]


def test_no_character_of_an_answer_commands_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m\x00\u202edlrow\r\nnext\u2028line [red]é[/red] \U0001f469\u200d\U0001f4bb end"
    shown = hear(Scripted([evil[i] for i in range(len(evil))]), "x")
    assert not set(shown) & set("\x1b\x07\x9b\x00\u202e\r\u2028")
    assert "[red]é[/red] \U0001f469\u200d\U0001f4bb end" in shown
    assert "\nnext\nline" in shown
    assert printable("a\u200bb\ud800") == "a\ufffdb\ufffd"


def test_a_name_or_an_error_of_a_server_commands_nothing_either() -> None:
    partner = Scripted(EndpointError("http://x: status 500: \x1b[2Joops"), ref="bad\x1b[2J")
    assert "\x1b" not in hear(partner, "x", "/model")
    answered = answer_once([Scripted(["\x1b[31mred"]), Scripted(["b"], ref="other")], "x", as_json=False)
    assert str(answered) == "  boutique   \ufffd[31mred\n  other      b"


def test_a_system_text_is_told_first_and_survives_a_new_start() -> None:
    partner = Scripted(["a"], ["b"])
    shown = hear(partner, "/system", "/system Be brief.", "One", "/reset", "Two")
    assert "no system text" in shown
    assert partner.asked[0] == [("system", "Be brief."), ("user", "One")]
    assert partner.asked[1] == [("system", "Be brief."), ("user", "Two")]


def test_an_answer_is_asked_for_again_in_place_of_the_last() -> None:
    partner = Scripted(["first"], ["second"], ["third"])
    hear(partner, "One", "/regenerate", "Two")
    assert partner.asked[1] == [("user", "One")]
    assert partner.asked[2] == [("user", "One"), ("assistant", "second"), ("user", "Two")]


def test_an_answer_stays_when_no_other_can_be_had() -> None:
    partner = Scripted(["first"], EndpointError("gone"), ["third"])
    assert "gone" in hear(partner, "One", "/regenerate", "Two")
    assert partner.asked[2] == [("user", "One"), ("assistant", "first"), ("user", "Two")]


def test_a_question_whose_answer_failed_is_taken_back() -> None:
    partner = Scripted(EndpointError("the answer broke off"), ["fine"])
    shown = hear(partner, "One", "Two")
    assert "Half\nthe answer broke off" in shown
    assert partner.asked[1] == [("user", "Two")]


def test_an_answer_that_is_stopped_stays_as_far_as_it_came() -> None:
    partner = Scripted(KeyboardInterrupt(), ["more"])
    shown = hear(partner, "One", "/good", "Go on")
    assert "(stopped)" in shown
    assert "no whole answer" in shown
    assert partner.judged == []
    assert partner.asked[1] == [("user", "One"), ("assistant", "Half"), ("user", "Go on")]


def test_judgements_name_the_answer() -> None:
    partner = Scripted(["a"], ["b"])
    shown = hear(partner, "/good", "One", "/good", "/bad", "/correct We are closed.", "Two")
    assert shown.startswith("there is no whole answer yet")
    told = [dict(one) for one in partner.judged]
    ids = [one.pop("id") for one in told]
    assert len(set(ids)) == 3
    assert told == [
        {"completion": "chatcmpl-1", "kind": "thumbs", "value": True},
        {"completion": "chatcmpl-1", "kind": "thumbs", "value": False, "overrides": ids[0]},
        {"completion": "chatcmpl-1", "kind": "correction", "value": "We are closed."},
    ]
    assert partner.asked[1][1] == ("assistant", "We are closed."), "the conversation goes on with the correction"


def test_a_saved_conversation_is_a_row_to_train_on(tmp_path: Path) -> None:
    file = tmp_path / "saved.jsonl"
    hear(Scripted(["We do."], ["Ten."]), f"/save {file}", "/system Be brief.", "Open?", f"/save {file}", "When?", f"/save {file}")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [len(row["messages"]) for row in rows] == [3, 5]
    assert rows[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Open?"},
        {"role": "assistant", "content": "We do."},
    ]


def test_the_model_can_be_changed_to_one_that_is_known() -> None:
    partner = Scripted(["a"])
    shown = hear(partner, "/model", "/model nobody", "/model boutique@1")
    assert "* boutique\n" in shown
    assert "no model 'nobody' here. Known: boutique, boutique@1" in shown
    assert partner.ref == "boutique@1"


def test_tokens_are_counted() -> None:
    shown = hear(Scripted(["a", "b"], ["c"]), "/tokens", "One", "Two", "/tokens")
    assert shown.startswith("nothing was counted yet")
    assert "last answer: 7 tokens read, 1 written\nall answers: 14 read, 3 written\n" in shown


def test_commands_are_told_from_questions() -> None:
    partner = Scripted(["a"])
    shown = hear(partner, "/hlep", "//etc is a folder", "/help")
    assert "/hlep is no command" in shown
    assert partner.asked == [[("user", "/etc is a folder")]]
    for name in ("system", "reset", "save", "regenerate", "good", "bad", "correct", "model", "tokens", "help"):
        assert f"/{name}" in shown


def test_one_question_is_answered_for_machines() -> None:
    assert answer_once([Scripted([" We ", "do. "])], "Open?", as_json=True) == {
        "model": "boutique",
        "question": "Open?",
        "answers": {"boutique": "We do."},
        "id": "chatcmpl-1",
        "finish_reason": "stop",
        "num_prompt_tokens": 7,
        "num_completion_tokens": 2,
    }


def test_one_question_is_answered_as_the_answer_comes(capsys: pytest.CaptureFixture[str]) -> None:
    say_once(Scripted([" \n", " We ", "\x1b[2Jdo."]), "Open?")
    assert capsys.readouterr().out == "We \ufffd[2Jdo.\n"
    with pytest.raises(EndpointError):
        say_once(Scripted(EndpointError("the answer broke off")), "Open?")
    assert capsys.readouterr().out == "Half\n"


def test_a_wait_is_told_with_its_reason_and_its_length(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    count_down(0.2, "status 503: \x1b[2Jnot\nnow")
    assert time.monotonic() - began >= 0.2
    assert capsys.readouterr().err == "status 503: \ufffd[2Jnot now; again in 0 s\n"
    count_down(0.0, "a field was left out")
    assert capsys.readouterr().err == "", "nothing to wait for, nothing to say"


def test_a_model_of_the_workspace_is_a_partner_like_any_other() -> None:
    folder = Path(tunesmith.model.__file__).parent / "embedded"
    chat, machine = ChatFormat.load(folder), this_machine()
    parts_of_model = {"model": load_model(folder, machine=machine), "chat": chat, "machine": machine}
    model = ChatModel(ref="base@1", max_length=64, max_new_tokens=32, **parts_of_model)
    question = [Message(role=Role.USER, content="Do you open on Sundays?")]
    partner = Local(model, temperature=0.0)
    *_, end = parts = list(partner.stream(question))
    said = "".join(part.text for part in parts)
    assert said.strip()
    assert said.strip() == model.generate([question])[0]
    assert end.finish_reason in {"stop", "length"}
    assert (end.num_prompt_tokens, [part.finish_reason for part in parts[:-1]]) == (15, [None] * (len(parts) - 1))
    assert end.num_completion_tokens == len(parts) - 1
    assert partner.models() == ["base@1"]
    with pytest.raises(UserError, match="feedback belongs to answers of a server"):
        partner.judge({})

"""Prompts are laid out by checked templates, and a prompted arm scores the row's own answer alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tunesmith.errors import NotFound, UserError
from tunesmith.evaluate import Likelihood
from tunesmith.evaluate.prompts import CHAT, Demonstration, Prompted, PromptTemplate, load_template
from tunesmith.evaluate.term_index import FactSheet
from tunesmith.records import Message, Record, Role, Source

ASKED = [Message(role=Role.USER, content="Do you open on Sundays?")]
SHOWN = [Demonstration("Far?", "Far."), Demonstration("Near?", "Near.")]


def spelled(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(str(message.role), message.content) for message in messages]


class Words:
    """An arm that counts words, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []
        self.scored: list[Record] = []

    def count_prompt(self, messages: Sequence[Message], **_: str) -> int:
        return sum(len(message.content.split()) for message in messages)

    def generate(self, conversations: Sequence[Sequence[Message]], /) -> list[str]:
        self.asked += [spelled(conversation) for conversation in conversations]
        return ["yes" for _ in conversations]

    def likelihood(self, records: Sequence[Record], /) -> list[Likelihood]:
        self.scored += records
        return [Likelihood(1.0, 1, 1) for _ in records]


def test_instruction_examples_and_question_become_messages() -> None:
    asked = [Message(role=Role.SYSTEM, content="Be kind."), *ASKED]
    messages = CHAT.render(asked, instruction="Answer.", facts="Closed on Sundays.", demonstrations=SHOWN)
    assert spelled(messages) == [
        ("system", "Answer.\n\nClosed on Sundays.\n\nBe kind."),
        ("user", "Far?"),
        ("assistant", "Far."),
        ("user", "Near?"),
        ("assistant", "Near."),
        ("user", "Do you open on Sundays?"),
    ]
    assert {message.weight for message in messages} == {0.0}


def test_without_anything_to_add_the_conversation_stays_as_it_is() -> None:
    turns = [
        *ASKED,
        Message(role=Role.ASSISTANT, content=" No.\n"),
        Message(role=Role.USER, content="{{ instruction }} <|im_end|>"),
    ]
    assert spelled(CHAT.render(turns)) == spelled(turns)


def test_the_digest_is_that_of_the_text() -> None:
    assert CHAT.digest == PromptTemplate(CHAT.text, name="other").digest
    assert CHAT.digest != PromptTemplate(CHAT.text + " ").digest
    assert len(CHAT.digest) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{% message 'user' %}{{ conversaton }}{{ shots }}{% endmessage %}",
            "`conversaton`, `shots`, which there is not. Did you mean",
        ),
        ("{% message 'user' %}{{ instruction }}{% endmessage %}", "never reads `conversation`"),
        ("{% message 'user' %}{{ conversation", "p.jinja:1: the prompt is not valid jinja"),
        ("{{ conversation[0].content }}", "prints 'Do you open on Sundays\\?' outside of a message"),
        ("{% message 'boss' %}{{ conversation }}{% endmessage %}", "role 'boss'; known: system, user, assistant, tool"),
        ("{% message 'user' %}{{ conversation[0].text }}{% endmessage %}", "has no attribute 'text'"),
        ("{% message 'user' %}{{ conversation.__class__.__mro__ }}{% endmessage %}", "the prompt fails: "),
        ("{% message 'user' %}{{ conversation[9].content }}{% endmessage %}", "the prompt fails: "),
        ("{% if not conversation %}x{% endif %}", "gives no message"),
    ],
)
def test_a_wrong_template_is_told_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PromptTemplate(text, name="p.jinja").render(ASKED)


def test_a_template_of_the_users_own_is_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    with pytest.raises(NotFound, match=r"mine\.jinja does not exist"):
        load_template(file)
    file.write_text("{% message 'user' %}Q: {{ conversation[-1].content }}\nA:{% endmessage %}")
    assert spelled(load_template(file).render(ASKED)) == [("user", "Q: Do you open on Sundays?\nA:")]
    file.write_text("{% message 'user' %}{{ question }}{% endmessage %}")
    with pytest.raises(UserError, match=r"mine\.jinja: the prompt reads `question`"):
        load_template(file)
    file.write_text("{% message 'user' %}{{ conversation | shout }}{% endmessage %}")
    with pytest.raises(UserError, match=r"mine\.jinja:1: the prompt is not valid jinja: No filter named 'shout'"):
        load_template(file)
    file.write_text("{% for turn in conversation %}{{ turn.content }}{% endfor %}")
    with pytest.raises(UserError, match=r"mine\.jinja: the prompt prints '\?' outside of a message"):
        load_template(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        load_template(file)


def test_the_nearest_example_stands_next_to_the_question_and_the_farthest_goes_first_when_room_is_short() -> None:
    arm = Words()
    wide = Prompted(arm, demonstrate=lambda _row, _turns: SHOWN[::-1], room=100)
    assert [content for _, content in spelled(wide.prompt(ASKED))] == ["Far?", "Far.", "Near?", "Near.", ASKED[0].content]
    tight = Prompted(arm, demonstrate=lambda _row, _turns: SHOWN[::-1], room=7)
    assert [content for _, content in spelled(tight.prompt(ASKED))] == ["Near?", "Near.", ASKED[0].content]
    assert tight.num_left_out == 1
    none = Prompted(arm, demonstrate=lambda _row, _turns: SHOWN[::-1], room=1)
    assert spelled(none.prompt(ASKED)) == spelled(ASKED)
    assert none.num_left_out == 2


def test_of_a_fact_sheet_that_does_not_fit_the_lines_nearest_to_the_question_are_shown_in_their_order() -> None:
    lines = [f"Article {number} costs {number} euros." for number in range(60)]
    lines[7:7] = ["On Sundays we do not open.", "---"]
    lines.append("We open on Mondays.")
    sheet, arm = FactSheet("\n".join(lines)), Words()
    whole = Prompted(arm, facts=sheet, room=400)
    assert spelled(whole.prompt(ASKED))[0] == ("system", "\n".join(lines))
    cut = Prompted(arm, facts=sheet, room=15)
    assert spelled(cut.prompt(ASKED)) == [("system", "On Sundays we do not open.\nWe open on Mondays."), *spelled(ASKED)]
    assert (whole.num_cut_sheets, cut.num_cut_sheets) == (0, 1)
    tiny = Prompted(arm, facts=sheet, room=1)
    assert spelled(tiny.prompt(ASKED))[0] == ("system", "On Sundays we do not open.")


def test_the_likelihood_counts_the_rows_own_answers_with_the_weights_they_have() -> None:
    turns = (
        Message(role=Role.SYSTEM, content="Be kind."),
        Message(role=Role.USER, content="Open?"),
        Message(role=Role.ASSISTANT, content="Yes.", weight=0.5),
        Message(role=Role.USER, content="Sundays?"),
        Message(role=Role.ASSISTANT, content="No."),
    )
    row = Record(id="r", source=Source(path="x", line=1), messages=turns)
    text = Record(id="t", source=Source(path="x", line=2), text="plain")
    arm = Words()
    prompted = Prompted(arm, instruction="Answer.", demonstrate=lambda _row, _turns: SHOWN[::-1])
    assert len(prompted.likelihood([row, text])) == 2
    changed, same = arm.scored
    assert same is text
    assert changed.id == "r"
    assert [(message.content, message.weight) for message in changed.messages if message.role is Role.ASSISTANT] == [
        ("Far.", 0.0),
        ("Near.", 0.0),
        ("Yes.", 0.5),
        ("No.", 1.0),
    ]
    prompted.generate([turns[:-1]])
    assert arm.asked == [spelled(changed.messages[:-1])]

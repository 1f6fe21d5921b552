import pytest

from tunesmith.data.clean import clean
from tunesmith.data.clean.boilerplate import without_mail
from tunesmith.data.clean.step import texts_of
from tunesmith.data.read import content_digest
from tunesmith.records import Message, Record, Role, Source

BODY = ["The bell rang twice.", "Nobody came.", "It was a long night in number {}."]


def text(content: str, *, line: int = 1) -> Record:
    return Record(id=content_digest(content), source=Source(path="a.txt", line=line), text=content)


def test_a_line_at_the_edge_of_many_documents_goes_and_one_inside_stays() -> None:
    pages = [
        "\n".join(["The Daily Bell", f"Part {i}", *BODY[:1], "The Daily Bell", BODY[2].format(i), "Printed in Bath"])
        for i in range(10)
    ]
    cleaned = clean([text(page, line=i) for i, page in enumerate(pages)], steps=["boilerplate"]).kept
    assert [row.text for row in cleaned] == [
        "\n".join([f"Part {i}", BODY[0], "The Daily Bell", BODY[2].format(i)]) for i in range(10)
    ]
    few = [text(page, line=i) for i, page in enumerate(pages[:9])]
    assert clean(few, steps=["boilerplate"]).kept == few


@pytest.mark.parametrize(
    "line",
    [
        "Skip to main content",
        "We use cookies to give you the best experience. Learn more.",
        "© 2024 Example Ltd. All rights reserved.",
        "Home | Shop | About us | Contact",
        "Privacy Policy · Terms of Use",
        "Accept all cookies",
        "Back to top",
    ],
)
def test_phrases_that_every_site_has_go(line: str) -> None:
    body = "\n".join(BODY)
    for page in (f"{line}\n{body}", f"{body}\n\n{line}"):
        assert [row.text for row in clean([text(page)], steps=["boilerplate"]).kept] == [body]


@pytest.mark.parametrize(
    "content", ["Home", "Home is where\nthe heart is\nfor most of us", "Search the house\nfor the key\nand call me", "a\nb"]
)
def test_text_that_only_begins_like_it_stays(content: str) -> None:
    assert clean([text(content)], steps=["boilerplate"]).kept == [text(content)]


MAIL = "Thanks, that works.\n\nOn Mon, 3 May 2021 at 10:11, Ann <ann@example.com> wrote:\n> Does it work?\n> Ann\n"


def test_a_mail_loses_what_it_answers_and_its_signature() -> None:
    assert without_mail(MAIL) == "Thanks, that works."
    assert without_mail("Please call.\n-- \nAnn Smith\nHead of Bells") == "Please call."
    assert without_mail("> only a quote\n> of somebody") == "> only a quote\n> of somebody"
    assert without_mail("a\n\n> a quote in Markdown\n\nb") == "a\n\n> a quote in Markdown\n\nb"


def test_an_answer_may_be_a_letter() -> None:
    letter = "Dear Ann,\nit works.\n-- \nBob"
    messages = (Message(role=Role.USER, content=MAIL), Message(role=Role.ASSISTANT, content=letter))
    record = Record(id=content_digest(messages), source=Source(path="a.jsonl", line=1), messages=messages)
    assert texts_of(clean([record], steps=["boilerplate"]).kept[0]) == ["Thanks, that works.", letter]

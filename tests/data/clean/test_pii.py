import gzip
import json
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from tunesmith.data.clean import clean
from tunesmith.data.clean.find_pii import find_pii
from tunesmith.data.clean.names import name_finder
from tunesmith.data.clean.step import texts_of
from tunesmith.data.clean_config import CleanStep, PiiType
from tunesmith.data.read import content_digest
from tunesmith.errors import MissingExtra
from tunesmith.records import Message, Record, Role, Source

SHARED = Path(__file__).parents[4] / "shared" / "data"
TYPES = get_args(PiiType)


def chat(*contents: str, rejected: str = "") -> Record:
    messages = tuple(Message(role=Role.ASSISTANT if i % 2 else Role.USER, content=c) for i, c in enumerate(contents))
    other = (Message(role=Role.ASSISTANT, content=rejected),) if rejected else ()
    place = Source(path="a.jsonl", line=1)
    return Record(id=content_digest(messages, rejected=other), source=place, messages=messages, rejected=other)


def found(text: str, **settings: object) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in find_pii(text, types=TYPES, **settings)]  # type: ignore[arg-type]


def test_a_value_keeps_its_placeholder_through_a_conversation() -> None:
    record = chat(
        "I am ann@example.com, call +44 7700 900123.",
        "Thanks. Is it Ann@Example.com or bob@example.org?",
        "The first; or +447700900123.",
        "Noted.",
        rejected="I wrote to bob@example.org.",
    )
    (after,) = clean([record], steps=["pii"]).kept
    assert texts_of(after) == [
        "I am [EMAIL_1], call [PHONE_1].",
        "Thanks. Is it [EMAIL_1] or [EMAIL_2]?",
        "The first; or [PHONE_1].",
        "Noted.",
        "I wrote to [EMAIL_2].",
    ]


def test_placeholders_that_are_there_keep_their_numbers() -> None:
    (after,) = clean([chat("[EMAIL_1] wrote to ann@example.com", "[EMAIL_3]?")], steps=["pii"]).kept
    assert texts_of(after)[0] == "[EMAIL_1] wrote to [EMAIL_4]"


def test_findings_are_counted_by_kind() -> None:
    (account,) = clean([chat("a@example.com b@example.com", "from 203.0.113.77")], steps=["pii"]).accounts
    assert account.found == {"email": 2, "ip": 1}
    assert account.examples[0].after == "[EMAIL_1] [EMAIL_2]"


def test_only_the_asked_types_are_scrubbed() -> None:
    step = CleanStep.model_validate({"pii": {"types": ["email"]}})
    (after,) = clean([chat("a@example.com 203.0.113.77", "ok")], steps=[step]).kept
    assert texts_of(after)[0] == "[EMAIL_1] 203.0.113.77"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail ann.b+c@mail.example.co.uk.", [("EMAIL", "ann.b+c@mail.example.co.uk")]),
        ("to jürgen@müller.example", [("EMAIL", "jürgen@müller.example")]),
        ("or ann [at] example [dot] com", [("EMAIL", "ann [at] example [dot] com")]),
        ("(212) 555-0123 x45", [("PHONE", "(212) 555-0123 x45")]),
        ("+49 (0) 30 1234567", [("PHONE", "+49 (0) 30 1234567")]),
        ("06 12 34 56 78", [("PHONE", "06 12 34 56 78")]),
        ('{"phone": "6175550123"}', [("PHONE", "6175550123")]),
        ("call me at 5550123", [("PHONE", "5550123")]),
        ("4111-1111-1111-1111", [("CARD", "4111-1111-1111-1111")]),
        ("3782 822463 10005", [("CARD", "3782 822463 10005")]),
        ("DE89 3704 0044 0532 0130 00 from me", [("IBAN", "DE89 3704 0044 0532 0130 00")]),
        ("BE71 0961 2345 6769 from me", [("IBAN", "BE71 0961 2345 6769")]),
        ("2001:db8::8a2e:370:7334", [("IP", "2001:db8::8a2e:370:7334")]),
        ("ping 10.1.2.3", [("IP", "10.1.2.3")]),
        ("00:1A:2B:3C:4D:5E", [("MAC", "00:1A:2B:3C:4D:5E")]),
    ],
)  # fmt: skip
def test_what_has_a_pattern_is_found(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111112 and order number 10023456789",  # Luhn fails
        "tracking 4111111111111111",
        "It costs $1,234,567.89 or 1 000 000 or 12.345.678 units",
        "from 2019-05-12 10:33:12 to 12/31/2021, 1914-1918, 20210314093000",
        "version 10.0.19041.1 and release 4.18.0.305, section 4.1.2.3, 127.0.0.1",
        "@media screen, user@2x.png, git@github.com:a/b.git, foo@bar",
        "std::vector<int>::iterator a::b 10:30:45",
        "GB27YVOK09234647792923",  # mod 97 fails
        "3.14159265358979 and -12345678 and 0x12345678",
        "ISBN 978-3-16-148410-0, DOI 10.1000/182, item #6086499569",
        "how to change a product of order 00004587345, the purchase with the number 00123842",
        '{"Portable Charger": "6942297802", "Smartphone": "1801728040", "Desk Lamp": "6817146515"}',
        "Price: $200.80\n   - Item ID: 4293355847",
        "a measured value of 0.0072973525693",
        "The Clean Power office is at 17031 2202 Rissik St Apt. 050",
    ],
)
def test_what_only_looks_like_it_survives(text: str) -> None:
    assert found(text) == []


def test_a_region_makes_its_national_numbers_known() -> None:
    assert found("07400123456") == []
    assert found("07400123456", regions=["GB"]) == [("PHONE", "07400123456")]


def test_names_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[name_finder.__module__], "find_spec", lambda _name: None)
    step = CleanStep.model_validate({"pii": {"names": True}})
    with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[presidio\]'"):
        clean([], steps=[step])


KINDS = {
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "US_SSN": "national_id",
    "US_DRIVER_LICENSE": "national_id",
}


def test_on_presidios_sentences_recall_and_precision_are_at_least_95_percent_for_each_type() -> None:
    file = SHARED / "dirty" / "pii_presidio.jsonl.gz"
    if not file.is_file():
        pytest.skip("presidio's sentences are not on this machine")
    right, missed, wrong = Counter[str](), Counter[str](), Counter[str]()
    for line in gzip.decompress(file.read_bytes()).splitlines():
        row = json.loads(line)
        marked = {
            (s["start_position"], s["end_position"], KINDS[s["entity_type"]]) for s in row["spans"] if s["entity_type"] in KINDS
        }
        spans = find_pii(row["text"], types=TYPES)
        ours = {(s.start, s.end, s.kind.lower() if s.kind.lower() in TYPES else "national_id") for s in spans}
        right.update(kind for *_, kind in marked & ours)
        missed.update(kind for *_, kind in marked - ours)
        wrong.update(kind for *_, kind in ours - marked)
    assert set(right) == set(KINDS.values())
    for kind, count in right.items():
        assert count >= 0.95 * (count + missed[kind]), kind
        assert count >= 0.95 * (count + wrong[kind]), kind


def test_clean_text_raises_no_alarm() -> None:
    """Sums, articles and tales are full of figures and hold nothing personal."""
    files = [SHARED / name for name in ("instruct/gsm8k.jsonl.gz", "pretrain/wikitext2_valid_test.jsonl.gz")]
    if not all(file.is_file() for file in files):
        pytest.skip("the clean texts are not on this machine")
    for file in files:
        for line in gzip.decompress(file.read_bytes()).splitlines()[:500]:
            row = json.loads(line)
            for text in (row.get("text"), row.get("question"), row.get("answer")):
                assert not text or found(text) == []

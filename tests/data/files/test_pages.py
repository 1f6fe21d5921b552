"""Pages of several layouts: their headings, lists and tables stay, in order; menus, notices and footers go."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.data import SourceConfig, read
from tunesmith.data.files import RawRow
from tunesmith.records import Dropped, Record

pytest.importorskip("trafilatura", exc_type=ImportError)

HOURS = (
    "<h1>Opening hours</h1><p>We open at nine o clock every day, except on Sundays when we open at ten in the morning.</p>"
    "<ul><li>Monday: nine to six</li><li>Tuesday: closed</li></ul><p>Call us.</p>"
)
MENU = "<ul class='links'><li><a href='/'>Our site</a></li><li><a href='/c'>Contact</a></li></ul>"
COOKIES = "<div id='cookie-banner'><p>We use cookies to improve your experience on our site.</p><button>Accept all</button></div>"
PAGES = {
    "a page without marks": (HOURS, "Opening hours~We open at nine~Monday: nine to six~Tuesday: closed~Call us."),
    "a very short page": ("<h1>Closed</h1><p>Back on Monday.</p>", "Closed~Back on Monday."),
    "a shop": (
        f"<header><a href='/'>Leaf shop</a><nav>{MENU}</nav></header><div class='box'><h1>Green teas</h1>"
        "<p>All our green teas come from small gardens and are packed on the day they arrive.</p><h2>Prices</h2>"
        "<ul><li>Sencha: 6.50 euros</li><li>Matcha: 18 euros</li></ul></div><footer>Imprint and privacy</footer>",
        "Green teas~All our green teas~Prices~Sencha: 6.50 euros~Matcha: 18 euros",
    ),
    "questions": (
        f"{COOKIES}<h1>Questions</h1><h2>How do I return a parcel?</h2><p>Bring it to any post office within thirty days.</p>"
        "<h2>Do you ship abroad?</h2><p>Yes.</p><h2>Who pays?</h2><p>We do, if the goods were damaged; otherwise you do.</p>",
        "Questions~How do I return a parcel?~Bring it~Do you ship abroad?~Yes.~Who pays?~We do, if",
    ),
    "a table": (
        f"{MENU}<h1>Hours</h1><table><tr><th>Day</th><th>From</th></tr><tr><td>Monday</td><td>9:00</td></tr></table>"
        "<p>On public holidays we are closed all day long, and the day before we close at noon.</p>"
        "<h2>How to find us</h2><ol><li>Take tram 4.</li><li>Walk past the church.</li></ol>",
        "Hours\n| Day | From | \n|---|---|\n| Monday | 9:00 | \nOn public holidays~How to find us~Take tram 4.~Walk past the church.",
    ),
    "a blog": (
        f"<nav>{MENU}</nav>{COOKIES}<article><header><h1>A walk</h1></header><p>Last Sunday we walked along the river from the old "
        "bridge to the mill, which took us three hours and a half.</p><h2>What to pack</h2><ul><li>Water</li><li>A hat</li></ul>"
        "<p>We came home tired.</p></article><aside>Related posts</aside><footer>All rights reserved</footer>",
        "A walk~Last Sunday~What to pack~Water~A hat~We came home tired.",
    ),
    "a restaurant": (
        f"{MENU}<div class='menu'><h2>Starters</h2><ul><li>Soup 4.50</li></ul><h2>Mains</h2><table><tr><td>Trout</td><td>14.90</td></tr>"
        "</table></div><p>All prices in euros, service included.</p>",
        "Starters~Soup 4.50~Mains~Trout~14.90~All prices",
    ),
    "a form around all": (
        f"<form action='x.aspx'><div id='nav'>{MENU}</div>{HOURS}</form>",
        "Opening hours~We open~Monday~Call us.",
    ),
    "a title in the site's header": (
        f"<header>{MENU}<h1>Rules</h1></header><p>Welcome.</p><p>No food.</p>",
        "Rules~Welcome.~No food.",
    ),
}
FURNITURE = ("Our site", "Contact", "cookies", "Accept", "Imprint", "Related", "rights", "Leaf shop")


@pytest.mark.parametrize("name", PAGES)
def test_page_keeps_headings_lists_and_tables_in_order_and_no_furniture(name: str, rows_in: Callable[..., list[RawRow]]) -> None:
    body, kept = PAGES[name]
    (row,) = rows_in("a.html", f"<html><head><title>T</title></head><body>{body}</body></html>".encode())
    assert isinstance(row.content, dict)
    text, at = row.content["text"], 0
    for part in kept.split("~"):
        assert part in text[at:], (part, text)
        at = text.index(part, at) + len(part)
    assert not [words for words in FURNITURE if words in text]


def test_page_of_links_keeps_the_article_that_was_found(rows_in: Callable[..., list[RawRow]]) -> None:
    """What is taken for furniture by its name may hold all there is."""
    (row,) = rows_in("a.html", f"<html><body><div class='sidebar'><article>{HOURS * 3}</article></div></body></html>".encode())
    assert isinstance(row.content, dict)
    assert "We open at nine" in row.content["text"]


def page(text: bytes, *, head: bytes = b"") -> bytes:
    return (
        b"<html><head>"
        + head
        + b"</head><body><h1>Our caf"
        + text
        + b"</h1><p>We open at nine o clock every day.</p></body></html>"
    )


@pytest.mark.parametrize("head", [b'<meta charset="iso-8859-1">', b'<meta content="text/html; charset=windows-1252">'])
def test_page_is_read_in_the_encoding_it_declares_even_for_one_byte(head: bytes, rows_in: Callable[..., list[RawRow]]) -> None:
    (row,) = rows_in("a.html", page(b"\xe9", head=head))
    assert isinstance(row.content, dict)
    assert row.content["text"].startswith("Our café\n")


@pytest.mark.parametrize("head", [b"", b'<meta charset="utf-8">'])
def test_damaged_passage_of_a_page_is_refused_and_no_other(head: bytes, tmp_path: Path) -> None:
    sound = b"".join(b"<p>Paragraph %d says that the shop is open on this day too.</p>" % i for i in range(200))
    (tmp_path / "a.html").write_bytes(page(b"\xe9", head=head).replace(b"</body>", sound + b"</body>"))
    rows = list(read(SourceConfig(path="a.html"), folder=tmp_path).rows)
    assert [type(row) for row in rows] == [Dropped, *[Record] * (len(rows) - 1)]
    assert len(rows) > 1
    assert isinstance(rows[0], Dropped)
    assert rows[0].reason == "encoding"
    assert rows[0].detail.startswith("byte 0xe9 is not UTF-8, at position 8 (")
    assert "`--encoding cp1252`" in rows[0].detail
    assert not [row for row in rows if isinstance(row, Record) and "\ufffd" in (row.text or "")]

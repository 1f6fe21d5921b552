import io
from collections.abc import Callable

import pytest

from tunesmith.data.files import BadRow, RawRow
from tunesmith.data.files.documents import PASSAGE
from tunesmith.errors import DataError, MissingExtra

Read = Callable[..., list[RawRow]]
SENTENCE = "Dr. Smith paid $3.50 for tea at half past four. "


def texts(rows: list[RawRow]) -> list[str]:
    return [row.content["text"] for row in rows if not isinstance(row.content, BadRow)]


def test_long_paragraph_is_cut_between_sentences_and_nothing_is_lost(rows_in: Read) -> None:
    rows = rows_in("a.txt", ("first\n\n" + SENTENCE * 300).encode())
    assert len(rows) > 3
    assert all(len(text) <= PASSAGE and text.endswith("four.") for text in texts(rows))
    assert " ".join(texts(rows)).split() == ("first " + SENTENCE * 300).split()


def test_passage_knows_the_line_it_starts_on(rows_in: Read) -> None:
    lines = [f"Line {i} of one long paragraph ends here." for i in range(1, 401)]
    rows = rows_in("a.txt", "\n".join(lines).encode())
    assert len(rows) > 3
    for row, text in zip(rows, texts(rows), strict=True):
        assert text.startswith(f"Line {row.line} ")


def test_one_paragraph_without_end_comes_in_pieces(rows_in: Read) -> None:
    rows = rows_in("a.txt", SENTENCE.encode() * 60_000)  # 2.9 MB, no line break
    assert max(map(len, texts(rows))) <= PASSAGE + len(SENTENCE)
    assert "".join(texts(rows)).replace(" ", "") == (SENTENCE * 60_000).replace(" ", "")
    assert {row.line for row in rows} == {1}
    cjk = rows_in("b.txt", "东京是日本的首都".encode() * 60_000)
    assert "".join(texts(cjk)) == "东京是日本的首都" * 60_000


def test_front_matter_of_markdown_becomes_tags_and_the_lines_stay_right(rows_in: Read) -> None:
    (row,) = rows_in("a.md", b"---\ntitle: Returns\nweight: 3\nlist: [1]\n---\n\n# Head\n\nBody.\n")
    assert row.content == {"text": "# Head\n\nBody.", "tags": {"title": "Returns", "weight": "3"}}
    assert row.line == 7
    (plain,) = rows_in("b.md", b"---\nno end\n\nBody.\n")
    assert plain.content == {"text": "---\nno end\n\nBody."}


def test_page_gives_its_article_and_the_lines_of_its_passages(rows_in: Read) -> None:
    pytest.importorskip("trafilatura", exc_type=ImportError)
    body = "".join(
        f"<p>Paragraph {i} says that the shop is open on day {i}, and closes at {i} in the evening.</p>\n" for i in range(200)
    )
    head = "<head><title>t</title></head><body><nav><a href='/'>Home</a></nav>"
    page = f"<html>{head}\n<article>\n<h1>Hours</h1>\n{body}</article></body></html>"
    rows = rows_in("a.html", page.encode("utf-16"))
    assert all("Home" not in text for text in texts(rows))
    assert [row.line for row in rows[1:]] == [int(text.split()[1]) + 4 for text in texts(rows)[1:]]
    (none,) = rows_in("b.html", b"<html><body><script>x()</script></body></html>")
    assert isinstance(none.content, BadRow)
    assert none.content.reason == "no_text"


def test_pdf_gives_its_pages_and_says_which_have_no_text(rows_in: Read) -> None:
    pytest.importorskip("pypdf")
    rows = rows_in("a.pdf", pdf_of(["Hello first page", "", "Hello third page"]))
    found = {row.line: row.content for row in rows}
    assert isinstance(found[2], BadRow)
    assert texts(rows) == ["Hello first page\nHello third page"]


def test_word_document_gives_paragraphs_and_tables_in_order(rows_in: Read) -> None:
    docx = pytest.importorskip("docx")
    document, held = docx.Document(), io.BytesIO()
    document.add_paragraph("Before")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    document.add_paragraph("After")
    document.save(held)
    assert texts(rows_in("a.docx", held.getvalue())) == ["Before\n\na | b\n\nAfter"]


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
@pytest.mark.parametrize("data", [b"", b"%PDF-1.4 no", b"PK\x03\x04 no", b"\x00" * 99])
def test_broken_document_is_one_clear_error(name: str, data: bytes, rows_in: Read) -> None:
    pytest.importorskip("pypdf")
    pytest.importorskip("docx")
    with pytest.raises(DataError, match=f"{name}: the file is not sound"):
        rows_in(name, data)


def test_missing_extra_names_what_to_install(rows_in: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module, name in (("trafilatura", "a.html"), ("pypdf", "a.pdf"), ("docx", "a.docx")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtra, match=r"pip install 'tunesmith\[docs-in\]'"):
            rows_in(name, b"<p>x</p>")


def pdf_of(pages: list[str]) -> bytes:
    """The smallest PDF that shows these lines."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else ""
        kids.append(f"{len(objects) + 1} 0 R")
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects) + 2} 0 R {resources} >>"
        objects += [page, f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"]
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    data, places = "%PDF-1.4\n", []
    for i, content in enumerate(objects, start=1):
        places.append(len(data))
        data += f"{i} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\n"
    return f"{data}{end}startxref\n{len(data)}\n%%EOF\n".encode()

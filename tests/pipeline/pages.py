"""Offline pages as a browser would find them, and texts that would like to be more than text."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"meta", "link", "rect", "line", "circle", "polyline", "br", "img", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    "</pre></article></section></style><style>*{display:none}</style>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe\u2066",
    "\x1b[31mred\x00",
    "&amp; &lt;",
    "W" * 3000,
)


class Page(HTMLParser):
    """What a browser would find: tags in their nesting, text, and the cells of every table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)

    def with_columns(self, *names: str) -> Iterator[dict[str, str]]:
        """The rows of all tables with these columns."""
        for header, *rows in self.tables:
            if set(names) <= set(header):
                yield from (dict(zip(header, row, strict=True)) for row in rows)

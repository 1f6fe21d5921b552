"""The text of a web page without its menus, notices and advertisements, its headings, lists and tables in their places.

Two extractions are compared. The narrow one finds the article by its marks and its long paragraphs; where a page marks none, it
leaves out what is short: headings, lists, tables. The wide one takes all of the body but what is surely furniture. It is taken where
it loses nothing of the narrow one; where it does, the furniture was the article.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import Any

__all__ = ["page_text"]

_FURNITURE = frozenset(
    {"aside", "button", "dialog", "footer", "header", "iframe", "nav", "noscript", "script", "select", "style", "svg", "template"}
)
_ROLES = frozenset({"alertdialog", "banner", "complementary", "contentinfo", "dialog", "menu", "menubar", "navigation", "search"})
_BOXES = frozenset({"div", "dl", "ol", "p", "section", "table", "ul"})
# Without `menu`, which may be a restaurant's: one of links is known by its links.
_NAMED = re.compile(
    r"(?:^|[-_\s])(?:nav|navbar|navigation|breadcrumbs?|cookies?|consent|gdpr|footer|header|masthead|sidebar|share|sharing|social|"
    r"related|adverts?|advertisement|ads?|banner|newsletter|popup|modal|pagination|comments?)(?=$|[-_\s])",
    re.IGNORECASE,
)
_MOSTLY = 0.95


def page_text(page: str) -> str:
    """The text of a page's article; empty if there is none.

    Raises:
        ImportError: trafilatura is not installed.
    """
    from trafilatura import extract

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    narrow = extract(page, include_comments=False, favor_precision=True) or ""
    body = _without_furniture(page)
    wide = (extract(body, include_comments=False, favor_recall=True) or "") if body else ""
    if wide and _holds(wide, narrow):
        return wide
    return narrow or extract(page, include_comments=False, favor_recall=True) or ""


def _holds(wide: str, narrow: str) -> bool:
    """Whether a text has nearly all words of another, or signs where words are not set apart by blanks."""
    words, others = (Counter(re.findall(r"[^\W\u2e80-\uffff]+|[\u2e80-\uffff]", text)) for text in (narrow, wide))
    return (words & others).total() >= _MOSTLY * words.total()


def _without_furniture(page: str) -> str:
    """A page whose body, less what is surely no content, is marked as one article; empty if the page has none."""
    from lxml import etree, html

    try:
        # As bytes, since lxml refuses text that declares an encoding.
        tree = html.document_fromstring(page.encode("utf-8", "replace"), parser=html.HTMLParser(encoding="utf-8"))
    except (etree.LxmlError, ValueError):
        return ""
    body = tree.find("body")
    if body is None:
        return ""
    for element in list(body.iter(etree.Element)):
        if any(above is body for above in element.iterancestors()) and _is_furniture(element):
            _remove(element)
    for element in list(body.iter("article", "form", "main")):
        element.drop_tag()
    for element in body.iter(etree.Element):
        for key in ("class", "id"):
            if "menu" in element.get(key, "").lower():  # the extractor would leave it out, dishes and all
                del element.attrib[key]
    body.tag = "article"
    return f"<html><body>{html.tostring(body, encoding='unicode', with_tail=False)}</body></html>"


def _is_furniture(element: Any) -> bool:
    tag: str = element.tag
    if tag in {"header", "footer"} and any(above.tag in {"article", "main"} for above in element.iterancestors()):
        return tag == "footer"  # the header of an article bears its title
    if tag == "form":  # one around the whole page, as ASP.NET writes it, holds the title
        return not list(element.iter("article", "h1", "main"))
    if tag in _FURNITURE or element.get("role") in _ROLES or element.get("hidden") is not None:
        return True
    if tag not in _BOXES:
        return False
    hidden = "display:none" in element.get("style", "").replace(" ", "").lower()
    return hidden or bool(_NAMED.search(f"{element.get('class', '')} {element.get('id', '')}")) or _is_of_links(element)


def _is_of_links(element: Any) -> bool:
    linked = sum(len("".join(link.itertext()).strip()) for link in element.iter("a"))
    return linked * 2 > len("".join(element.itertext()).strip())


def _remove(element: Any) -> None:
    """Take an element out; the title that a site's header bears stays."""
    titles = [title for title in element.iter("h1") if not _is_of_links(title)] if element.tag in {"header", "div"} else []
    for title in titles:
        title.tail = None
        element.addprevious(title)
    element.drop_tree()

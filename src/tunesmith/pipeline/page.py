"""A report as one page: no script, nothing loaded from anywhere, and whatever stands in the data stays text.

Pictures are SVG in the page itself (`page_pictures`), so they take its colours, light or dark.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files

from tunesmith import __version__
from tunesmith.pipeline.page_pairs import pairs
from tunesmith.pipeline.page_parts import Forest, Histogram, Pairs, Part, Reliability, Samples, Section, Table
from tunesmith.pipeline.page_pictures import forest, histogram, reliability
from tunesmith.pipeline.page_text import samples, shown, table

__all__ = ["page"]


def page(title: str, sections: Sequence[Section], *, kind: str = "Data report", lead: str = "") -> str:
    """The page of a report.

    Args:
        title: what is reported on.
        sections: the parts, in order.
        kind: of report.
        lead: one sentence that says what it comes to, at the top.
    """
    headlines = [pair for section in sections for pair in section.headline]
    tiles = "".join(f"<div><dt>{shown(name)}</dt><dd>{shown(value)}</dd></div>" for name, value in headlines)
    links = "".join(f'<a href="#{section.name}">{shown(section.title)}</a>' for section in sections)
    body = "\n".join(_section(section) for section in sections)
    style = "\n" + files("tunesmith.pipeline").joinpath("page.css").read_text(encoding="utf-8")
    # The one style sheet is allowed by its hash: a style in the data would be ignored even if it got through.
    allowed = b64encode(sha256(style.encode()).digest()).decode()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{allowed}'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{shown(title, plain=True)}: {shown(kind, plain=True).lower()}</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="kind">{shown(kind)}</p>
<h1 dir="auto">{shown(title)}</h1>
{f'<p class="lead" dir="auto">{shown(lead)}</p>' if lead else ""}
<dl class="tiles">{tiles}</dl>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<footer>tunesmith {__version__}. Made on this machine; the page loads nothing from anywhere.</footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = "\n".join(_part(part, name=f"{section.name}-{i}") for i, part in enumerate(section.parts))
    summary = f'<p class="summary">{shown(section.summary)}</p>' if section.summary else ""
    return f"""<section id="{section.name}" aria-labelledby="{section.name}-title">
<h2 id="{section.name}-title">{shown(section.title)}</h2>
{summary}
{parts}
</section>"""


def _part(part: Part, *, name: str) -> str:
    match part:
        case Table():
            return table(part)
        case Histogram():
            return histogram(part, name=name)
        case Forest():
            return forest(part, name=name)
        case Reliability():
            return reliability(part, name=name)
        case Pairs():
            return pairs(part)
        case Samples():
            return samples(part)

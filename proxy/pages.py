"""What the web port shows to people: the status page, which is made here, and the Data Explorer's files.

One rule: every text is escaped, and no page may load or run anything that does not come from this server. The Data
Explorer evaluates what is typed into it, as RethinkDB's does, so its page alone may do that.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

import orjson
from prometheus_client import CollectorRegistry

from proxy.reql import terms as _terms  # noqa: F401  (fills the table
from proxy.reql.ids import Term
from proxy.reql.registry import TERMS

GOOD: Final = "good"
BAD: Final = "bad"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the status page. rows: cells of text; head: the columns' names, if they have any.

    mood: GOOD or BAD where the section as a whole says so. is_wide: it needs the page's whole width.
    """

    title: str
    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    mood: str = ""
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class Pages:
    """What the server shows. status: asked anew for each page; registry: all collectors."""

    title: str
    status: Callable[[], Iterable[Section]]
    registry: CollectorRegistry


@dataclass(frozen=True, slots=True)
class File:
    """Something that is sent as it is, with its policy for what it may load."""

    content: bytes
    content_type: str
    policy: str


_STATUS_POLICY: Final = "default-src 'none'; style-src 'self'"
_EXPLORER_POLICY: Final = "default-src 'none'; style-src 'self'; script-src 'self' 'unsafe-eval'; connect-src 'self'"


def status_page(pages: Pages) -> File:
    """The status page as it is now."""
    title = html.escape(pages.title)
    parts = [_START.format(title=title)]
    for section in pages.status():
        parts.append(f'<section class="card{" wide" if section.is_wide else ""}">')
        mood = f' class="{section.mood}"' if section.mood else ""
        parts.append(f"<h2{mood}>{html.escape(section.title)}</h2>\n<table>\n")
        if section.head:
            parts.append(_row(section.head, "th"))
        parts += [_row(row, "td") for row in section.rows]
        parts.append("</table>\n</section>\n")
    parts.append("</main>\n</body>\n</html>\n")
    return File("".join(parts).encode("utf-8", "replace"), "text/html; charset=utf-8", _STATUS_POLICY)


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"


_START = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<header><a class="brand" href="/">{title}</a>
<nav><a href="/" aria-current="page">Status</a><a href="/explorer">Data Explorer</a></nav></header>
<main class="cards">
"""


def terms_json() -> bytes:
    """The table of terms for the Data Explorer: [[name, number, least arguments, [option, ...]], ...]."""
    rows = [
        [Term(number).name, number, spec.low, [name for name in spec.optargs if not name.startswith("_")]]
        for number, spec in sorted(TERMS.items())
    ]
    return orjson.dumps(rows)


def files() -> dict[bytes, File]:
    """The files that never change, by path."""
    folder = resources.files("proxy") / "explorer"

    def file(name: str, content_type: str) -> File:
        return File((folder / name).read_bytes(), content_type, _EXPLORER_POLICY)

    script = "text/javascript; charset=utf-8"
    return {
        b"/style.css": file("style.css", "text/css; charset=utf-8"),
        b"/explorer": file("index.html", "text/html; charset=utf-8"),
        b"/explorer/explorer.js": file("explorer.js", script),
        b"/explorer/reql.js": file("reql.js", script),
        b"/explorer/terms.json": File(terms_json(), "application/json", _EXPLORER_POLICY),
    }

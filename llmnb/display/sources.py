"""The list of sources under an answer that cites some: each once, in the order the answer came to them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from llmnb.display import markdown, markdown_writer
from llmnb.display.answer import clean
from llmnb.display.footer import shortened
from llmnb.events import Citation

QUOTE_CHARS = 160
"""Of the words cited more than this is not shown; the reply holds all of them."""


def html(citations: Sequence[Citation]) -> str:
    """The list as HTML, or '' when nothing was cited."""
    if not citations:
        return ""
    items = "".join(f"<li>{_name_html(source)}{_quote_html(source)}</li>" for source in citations)
    return f'<div class="llmnb-sources"><span class="llmnb-label">Sources</span><ol>{items}</ol></div>'


def kept_markdown(citations: Sequence[Citation]) -> str:
    """The list as Markdown that any viewer can be given, or ''."""
    lines = [f"{number}. {_name_markdown(source)}" for number, source in enumerate(citations, 1)]
    return "\n".join(["**Sources**", "", *lines]) if lines else ""


def plain(citations: Sequence[Citation]) -> str:
    """The list as text, or ''."""
    lines = [f"  {number}. {_name(source)}{_beside(source)}" for number, source in enumerate(citations, 1)]
    return "\n".join(["Sources:", *lines]) if lines else ""


def _name(source: Citation) -> str:
    return shortened(source.title or source.url or "untitled document", 200)


def _beside(source: Citation) -> str:
    """What stands after the name: the place in the document, and the address unless it is the name."""
    beside = [source.place, source.url if source.title else ""]
    return "".join(f" · {shortened(text, 200)}" for text in beside if text)


def _name_html(source: Citation) -> str:
    name = markdown.text_html(_name(source))
    place = f' <span class="llmnb-label">{escape(shortened(source.place))}</span>' if source.place else ""
    return (markdown.link_html(source.url, name) if source.url else name) + place


def _quote_html(source: Citation) -> str:
    quote = shortened(source.cited_text, QUOTE_CHARS)
    return f'<br><span class="llmnb-quote">“{markdown.text_html(quote)}”</span>' if quote else ""


def _name_markdown(source: Citation) -> str:
    name = markdown_writer.escaped(_name(source))
    place = f" ({markdown_writer.escaped(shortened(source.place))})" if source.place else ""
    if not markdown.link_allowed(source.url):
        return name + place
    return f"[{name}]({markdown_writer.destination(clean(source.url))}){place}"

"""Blocks that are still open and long: what is finished of them is rendered once, so that their cost does not grow.

The finished pieces are marked for the front end, which draws again only those after a change.
"""

from __future__ import annotations

import re
from html import escape

from llmnb.display import markdown

LONG_CHARS = 2_000
"""A list or table is short up to here, and rendered as a whole."""
# a long run of signs is tried once, and not from each of them
_CLOSING_START = re.compile(r"\n? {0,3}((?<!`)`+|(?<!~)~+)[ \t]*$")


class OpenCode:
    """A fenced block that is still open: coloured in pieces of whole lines, so that its cost does not grow with it."""

    PIECE_LINES = 16
    PLAIN_TIMES = 2

    def __init__(self) -> None:
        self._html: list[str] = []
        self._shown: tuple[str, str] = ("", "")  # source and HTML of the piece still growing
        self.is_rough = False  # not all of that is coloured
        self._plain = 0  # how often more was put to it without colours
        self._done = 0  # offset in the source up to which pieces are coloured
        self._searched = 0  # offset up to which no closing line was found
        self._closed = False

    def closed(self, source: str, opening: re.Match[str]) -> bool:
        if not self._closed:
            fence = opening[1]
            closing = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$\n?", re.MULTILINE)
            start = max(self._searched, opening.end())
            end = source.rfind("\n") + 1
            self._closed = closing.search(source, start, max(end, start)) is not None
            self._searched = max(end, start)
            self.is_rough = self.is_rough and not self._closed
        return self._closed

    def html(self, source: str, opening: re.Match[str]) -> str:
        language = markdown.language_of(opening[2])
        self._done = max(self._done, opening.end())
        self._freeze(source, language)
        rest = source[self._done :]
        ending = _CLOSING_START.search(rest)
        if ending and ending[1][0] == opening[1][0]:
            rest = rest[: ending.start()]  # most likely the closing line on its way
        return markdown.code_frame("".join(self._html) + self._growing(rest, language), language)

    def _growing(self, source: str, language: str) -> str:
        """Coloured every third time, as that is dear: in between, what has come stands after it without colours."""
        shown, html = self._shown
        if source != shown and source.startswith(shown) and self._plain < self.PLAIN_TIMES:
            self._plain += 1
            html += escape(source[len(shown) :])
            self.is_rough = True
        elif source != shown or self.is_rough:
            self._plain = 0
            html = markdown.coloured(source, language)
            self.is_rough = False
        self._shown = (source, html)
        return html

    def _freeze(self, source: str, language: str) -> None:
        lines = source[self._done :].split("\n")
        while len(lines) > self.PIECE_LINES:
            piece = "\n".join(lines[: self.PIECE_LINES]) + "\n"
            self._html.append(f"<span{markdown.PIECE_CLASS}{markdown.coloured(piece, language)}</span>")
            self._shown = ("", "")
            self._done += len(piece)
            del lines[: self.PIECE_LINES]


class OpenItems:
    """A list or a table that is still open, without its last item; a table's first two lines belong to every piece."""

    def __init__(self, head: str) -> None:
        self.head = self.source = head
        self._opening = ""
        self._html: list[str] = []
        self._loose = False

    def take(self, items: str, env: markdown.Env, *, loose: bool) -> None:
        """Add finished items; `loose` when the list was seen to be."""
        self.source += items
        if loose and not self._loose:
            self._loose, self._html, items = True, [], self.source.removeprefix(self.head)
        self._opening, html = self._finished(items, env, loose=self._loose)
        self._html.append(html)

    def html(self, rest: str, env: markdown.Env) -> str:
        """All of it: the finished items, and what has come since."""
        finished = "".join(self._html)
        loose = self._loose or markdown.outline(self.head + rest, env)[0].loose
        if loose and not self._loose:  # as far as a line can tell that is still being written
            finished = self._finished(self.source.removeprefix(self.head), env, loose=True)[1]
        rendered = markdown.render_pieces(self.head + rest, env, loose=loose)
        return self._opening + finished + _split(rendered)[1]

    def _finished(self, items: str, env: markdown.Env, *, loose: bool) -> tuple[str, str]:
        opening, html = _split(markdown.render_pieces(self.head + items, env, loose=loose))
        end = max(map(html.rfind, ("</ul>", "</ol>", "</tbody>")))
        return self._opening or opening, html[:end]


def _split(html: str) -> tuple[str, str]:
    """What stands before the first item, and the rest."""
    start = html.rindex("<", 0, html.index(markdown.PIECE_CLASS))
    return html[:start], html[start:]

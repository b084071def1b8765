"""Markdown that grows: top-level blocks that are finished are frozen, only the last one is rendered again.

A block is finished when another one begins on a later, complete line: a line still being written can turn out to be
anything (`#` a heading, `#tag` the paragraph above going on).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from llmnb.display import markdown

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)\n")
_MATH_TO_END = re.compile(r"^ {0,3}\$\$[^\n]*\n(?:[^\n]*\S[^\n]*\n)*\Z", re.MULTILINE)
_CLOSING_START = re.compile(r"\n? {0,3}(`+|~+)[ \t]*$")


@dataclass(frozen=True, slots=True)
class Update:
    """What changed: the HTML of blocks frozen since the last time, and of the one still growing."""

    frozen: list[str]
    tail: str


class MarkdownStream:
    """Feed it text with `append`; `update` renders what is needed, `finish` the rest."""

    def __init__(self) -> None:
        self._tail = ""  # source from the start of the last unfinished block
        self._env: markdown.Env = {}
        self._lines_seen = 0  # complete lines of the tail when blocks were last looked for
        self._code = _OpenCode()

    @property
    def tail_source(self) -> str:
        """The Markdown of the block that is still growing."""
        return self._tail

    def append(self, text: str) -> None:
        """More text has come."""
        self._tail = self._tail + text if self._tail else text.lstrip("\n")

    def update(self) -> Update:
        """Freeze what is finished, and render the rest."""
        return Update([self._render(source) for source in self.take()], self._tail_html())

    def finish(self) -> Update:
        """Nothing comes any more: the tail is final, too."""
        return Update([self._render(source) for source in self.take(final=True)], "")

    def take(self, *, final: bool = False) -> list[str]:
        """The Markdown of the blocks finished since the last time, not rendered; with `final` of all that is left."""
        sources = self._take_finished()
        if final and self._tail:
            sources.append(self._tail)
            self._tail = ""
        return sources

    def _render(self, source: str) -> str:
        return markdown.render(source, self._env)

    def _take_finished(self) -> list[str]:
        end = self._tail.rfind("\n") + 1
        lines = self._tail.count("\n", 0, end)
        if lines == self._lines_seen or self._open_fence():
            self._lines_seen = lines
            return []
        complete = self._tail[:end]
        starts = markdown.block_starts(complete, _copied(self._env))
        if math := _MATH_TO_END.search(complete):  # with its closing line all from here on will be one block
            first = complete.count("\n", 0, math.start())
            starts = [start for start in starts if start <= first]
        self._lines_seen = lines
        if len(starts) < 2:
            return []
        sources = _cut(complete, starts)
        self._tail = sources.pop() + self._tail[end:]
        self._lines_seen = self._tail.count("\n")
        self._code = _OpenCode()
        return sources

    def _open_fence(self) -> re.Match[str] | None:
        """The opening line when the tail is a fenced block without its closing line: nothing in it starts a block."""
        opening = _FENCE.match(self._tail)
        if opening is None or ("`" in opening[1] and "`" in opening[2]):  # ```a`b is a paragraph
            return None
        return None if self._code.closed(self._tail, opening) else opening

    def _tail_html(self) -> str:
        if not self._tail.strip():
            return ""
        if opening := self._open_fence():
            return self._code.html(self._tail, opening)
        # definitions in a line still being written would stay: give the tail a copy
        return markdown.render(self._tail, _copied(self._env))


class _OpenCode:
    """A fenced block that is still open: coloured in pieces of whole lines, so that its cost does not grow with it."""

    PIECE_LINES = 16

    def __init__(self) -> None:
        self._html: list[str] = []
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
        return self._closed

    def html(self, source: str, opening: re.Match[str]) -> str:
        language = markdown.language_of(opening[2])
        self._done = max(self._done, opening.end())
        self._freeze(source, language)
        rest = source[self._done :]
        ending = _CLOSING_START.search(rest)
        if ending and ending[1][0] == opening[1][0]:
            rest = rest[: ending.start()]  # most likely the closing line on its way
        return markdown.code_frame("".join(self._html) + markdown.coloured(rest, language), language)

    def _freeze(self, source: str, language: str) -> None:
        lines = source[self._done :].split("\n")
        while len(lines) > self.PIECE_LINES:
            piece = "\n".join(lines[: self.PIECE_LINES]) + "\n"
            self._html.append(f"{markdown.PIECE}{markdown.coloured(piece, language)}</span>")
            self._done += len(piece)
            del lines[: self.PIECE_LINES]


def _cut(text: str, starts: list[int]) -> list[str]:
    lines = [line + "\n" for line in text.split("\n")[:-1]]
    bounds = [0, *starts[1:], len(lines)]
    return ["".join(lines[a:b]) for a, b in pairwise(bounds)]


def _copied(env: markdown.Env) -> markdown.Env:
    return {**env, "references": dict(env.get("references", {}))}

"""Markdown that grows: top-level blocks that are finished are frozen, only the last one is rendered again.

A block is finished when another one begins on a later, complete line: a line still being written can turn out to be
anything (`#` a heading, `#tag` the paragraph above going on).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

from markdown_it.token import Token

from llmnb.display import markdown, markdown_writer, open_blocks
from llmnb.display.open_blocks import OpenCode, OpenItems

_FENCE = re.compile(r" {0,3}(`{3,}(?!`)|~{3,}(?!~))([^\n]*)\n")
_MAY_LINK = re.compile(r"\](?!\()")  # [text][name] and [name], not [text](address)
_WORDS = re.compile(r"(?:[^\W_]|[ ,.:?!'’“”–—-])+")
_TEXT_LINE = re.compile(r"(?:#{1,6} |[-+*] |\d{1,9}[.)] )?[^\W\d_]")
"""A line that is a paragraph, a heading or an item whatever comes."""
_CLOSING_TAGS = re.compile(r"(?:</\w+>\s*)+\Z")
_TO_LAST_BLANK_LINE = re.compile(r"(?:.*\n)?[^\S\n]*\n", re.DOTALL)
_MATH_LINE = re.compile(r"^ {0,3}\$\$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Update:
    """What changed: the HTML of blocks frozen since the last time, and of the one still growing.

    At the end also that of frozen blocks, by number, whose links were defined only after them.
    """

    frozen: list[str]
    tail: str
    corrected: dict[int, str] = field(default_factory=dict[int, str])


class Drawn(NamedTuple):
    """Markdown as it stays: the HTML of it, and the Markdown that may be kept."""

    html: str
    markdown: str


@dataclass(frozen=True, slots=True)
class _Source:
    text: str
    in_pieces: bool = False  # it was shown in pieces while it grew


@dataclass(frozen=True, slots=True)
class _Linking:
    """A frozen block that may use a link's definition that comes later: how many there were when it was rendered."""

    number: int
    source: _Source
    html: str
    defined: int


class MarkdownStream:
    """Feed it text with `append`; `update` renders what is needed, `finish` the rest."""

    def __init__(self) -> None:
        self._tail = ""  # source from the start of the last unfinished block, or of its last item
        self._env: markdown.Env = {}
        self._lines_seen = 0  # complete lines of the tail when blocks were last looked for
        self._code = OpenCode()
        self._items: OpenItems | None = None  # what comes before the tail in the same list or table
        self._frozen: list[Drawn] = []
        self._linking: list[_Linking] = []
        self._added = ""  # what has come since the tail was rendered last
        self._shown = ""  # its HTML then; '' where more words may change more than its end

    @property
    def tail_source(self) -> str:
        """The Markdown of the block that is still growing."""
        return self._items.source + self._tail if self._items else self._tail

    @property
    def is_rough(self) -> bool:
        """Whether one more `update` makes it better, although nothing has come: open code is not coloured each time."""
        return self._code.is_rough

    def append(self, text: str) -> None:
        """More text has come."""
        self._tail = self._tail + text if self._tail else text.lstrip("\n")
        self._added += text

    def update(self) -> Update:
        """Freeze what is finished, and render the rest."""
        if more := self._with_words():
            update = Update([], more)
        else:
            update = self._update_short() or Update(self._frozen_html(self._take()), self._tail_html())
        self._shown = update.tail if _grows_at_its_end(self._tail) and not self._open_fence() else ""
        self._added = ""
        return update

    def _with_words(self) -> str:
        """What was shown with the words put to it that have come since: more often than not nothing else has come."""
        if not self._shown or not _WORDS.fullmatch(self._added):
            return ""
        before = self._tail[: len(self._tail) - len(self._added)].rstrip(" ")
        words = escape(self._tail[len(before) :].rstrip(" "))
        if closing := _CLOSING_TAGS.search(self._shown):
            return self._shown[: closing.start()] + words + closing[0]
        return ""

    def finish(self) -> Update:
        """Nothing comes any more: the tail is final, too."""
        frozen = self._frozen_html(self._take(final=True))
        late = [block for block in self._linking if block.defined < len(self._definitions())]
        again = [(block.number, self._render(block.source).html, block.html) for block in late]
        return Update(frozen, "", {number: html for number, html, before in again if html != before})

    def whole(self) -> Drawn | None:
        """All of it once it is finished; None where links were defined, which change what was drawn before."""
        if self._tail or self._definitions():
            return None
        html = "".join(block.html for block in self._frozen).replace(markdown.PIECE_CLASS, ">")
        return Drawn(html, markdown_writer.joined(block.markdown for block in self._frozen))

    def take(self, *, final: bool = False) -> list[str]:
        """The Markdown of the blocks finished since the last time, not rendered; with `final` of all that is left."""
        return [source.text for source in self._take(final=final)]

    def _update_short(self) -> Update | None:
        """The same from one look at the tail, where it is short, no code, and there are no link definitions."""
        if len(self._tail) >= open_blocks.LONG_CHARS or self._items or self._open_fence():
            return None
        env = _copied(self._env)
        blocks = list(markdown.top_level(markdown.parse(self._tail, env)))
        if env["references"]:
            return None
        starts = self._certain_starts(blocks)
        frozen: list[str] = []
        if len(starts) > 1:
            sources = _cut(self._tail + "\n", starts)
            drawn = [_drawn(block, env) for block in blocks[: len(starts) - 1]]
            frozen = self._freeze(map(_Source, sources[:-1]), drawn, defined=0)
            self._go_on_with(sources[-1].removesuffix("\n"))
            blocks = blocks[len(starts) - 1 :]
            if opening := self._open_fence():
                return Update(frozen, self._code.html(self._tail, opening))
        self._lines_seen = self._tail.count("\n")
        return Update(frozen, "".join(markdown.html_of(block, env) for block in blocks))

    def _certain_starts(self, blocks: list[list[Token]]) -> list[int]:
        """The lines on which blocks of the tail begin, whatever the line becomes that is still being written."""
        complete = self._tail[: self._tail.rfind("\n") + 1]
        math = _open_math(complete)  # with its closing line all from here on will be one block
        growing = complete.count("\n")
        end = complete.count("\n", 0, math.start()) + 1 if math else growing
        spans = [(block[0].type, *block[0].map) for block in blocks if block[0].map]
        return [first for kind, first, last in spans if first < end and _decided(kind, first, last, growing)]

    def _frozen_html(self, sources: list[_Source]) -> list[str]:
        defined = len(self._definitions())  # before: one of these may define what an earlier one uses
        return self._freeze(sources, [self._render(source) for source in sources], defined)

    def _freeze(self, sources: Iterable[_Source], drawn: list[Drawn], defined: int) -> list[str]:
        for number, (source, block) in enumerate(zip(sources, drawn, strict=True), len(self._frozen)):
            if _MAY_LINK.search(source.text):
                self._linking.append(_Linking(number, source, block.html, defined))
        self._frozen += drawn
        return [block.html for block in drawn]

    def _definitions(self) -> dict[str, Any]:
        return self._env.get("references", {})

    def _render(self, source: _Source) -> Drawn:
        parse = markdown.parse_pieces if source.in_pieces else markdown.parse
        return _drawn(parse(source.text, self._env), self._env)

    def _take(self, *, final: bool = False) -> list[_Source]:
        sources = self._take_finished()
        if final and self._tail:
            sources.append(self._whole(self._tail))
            self._tail = ""
        return sources

    def _whole(self, source: str) -> _Source:
        """The block that begins with the open items, if there are any, and goes on with `source`."""
        items, self._items = self._items, None
        return _Source(items.source + source, in_pieces=True) if items else _Source(source)

    def _take_finished(self) -> list[_Source]:
        end = self._tail.rfind("\n") + 1
        lines = self._tail.count("\n", 0, end)
        if lines == self._lines_seen or self._open_fence():
            self._lines_seen = lines
            return []
        self._lines_seen = lines
        head = self._items.head if self._items else ""
        complete, growing = head + self._tail[:end], self._tail[end:]
        blocks = self._outline(complete)
        sources = _cut(complete, [block.line for block in blocks])
        if len(sources) < 2:
            self._take_items(complete, growing, blocks)
            return []
        self._go_on_with(sources.pop() + growing)
        return [self._whole(sources[0].removeprefix(head)), *map(_Source, sources[1:])]

    def _outline(self, complete: str) -> list[markdown.Outline]:
        blocks = markdown.outline(complete, _copied(self._env))
        if math := _open_math(complete):  # with its closing line all from here on will be one block
            first = complete.count("\n", 0, math.start())
            blocks = [block for block in blocks if block.line <= first]
            blocks[-1:] = [replace(block, items=()) for block in blocks[-1:]]
        return blocks

    def _take_items(self, complete: str, growing: str, blocks: list[markdown.Outline]) -> None:
        """Set the finished items of a long list or table apart, so that they are not rendered again."""
        items = blocks[0].items if blocks else ()
        if len(items) < 2 or (self._items is None and len(complete) < open_blocks.LONG_CHARS):
            return
        head, finished, last = _cut(complete, [0, items[0], items[-1]])
        if self._items is None:
            self._items = OpenItems(head)
        self._items.take(finished, self._env, loose=blocks[0].loose)
        self._go_on_with(last + growing)

    def _go_on_with(self, tail: str) -> None:
        self._tail = tail
        self._lines_seen = tail.count("\n")
        self._code = OpenCode()

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
        env = _copied(self._env)
        return self._items.html(self._tail, env) if self._items else markdown.render(self._tail, env)


def _grows_at_its_end(tail: str) -> bool:
    """Whether plain words put to `tail` only go on with its last text, and close nothing that was opened before."""
    line = tail[tail.rfind("\n") + 1 :]
    ends_in_text = _TEXT_LINE.match(line) is not None and line.rstrip(" ")[-1].isalnum()
    return (
        ends_in_text and "|" not in tail and "]:" not in tail
    )  # no table, whose rows are filled up, and no definition


def _decided(kind: str, first: int, last: int, growing: int) -> bool:
    """Whether a block has begun without the line `growing`: its second line makes a table, its last one makes math."""
    return last <= growing if kind == "math_block" else first + 1 < growing or kind != "table_open"


def _open_math(complete: str) -> re.Match[str] | None:
    """The first line with `$$` in the last paragraph of these lines: it may begin math that goes on to the end.

    Looked for from the last blank line on, and not in one pattern for all: that one tried every way to cut the lines.
    """
    if "$$" not in complete:
        return None
    blank = _TO_LAST_BLANK_LINE.match(complete)
    return _MATH_LINE.search(complete, blank.end() if blank else 0)


def _cut(text: str, starts: list[int]) -> list[str]:
    """The text in pieces that begin on these lines, the first one with what stands before it."""
    lines = [line + "\n" for line in text.split("\n")[:-1]]
    bounds = [0, *starts[1:], len(lines)]
    return ["".join(lines[a:b]) for a, b in pairwise(bounds)]


def _drawn(tokens: Sequence[Token], env: markdown.Env) -> Drawn:
    return Drawn(markdown.html_of(tokens, env), markdown_writer.rewritten(tokens))


def _copied(env: markdown.Env) -> markdown.Env:
    return {**env, "references": dict(env.get("references", {}))}

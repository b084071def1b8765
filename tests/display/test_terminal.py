"""The views of terminals and of what is none."""

from __future__ import annotations

import io
from decimal import Decimal

from rich.console import Console

from llmnb.display.terminal import PrintView, TerminalView
from llmnb.events import Done, Text, Thinking, Throttled, ToolCall, ToolResult
from llmnb.records import Usage

DONE = Done("claude", Usage(input_tokens=3, output_tokens=4), Decimal("0.01"))


class Screen:
    """What a terminal shows: lines, a cursor, and the few sequences rich's live display uses."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = 0

    def feed(self, text: str) -> None:
        import re

        for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            self._feed(piece)

    def _feed(self, piece: str) -> None:
        if piece == "\n":
            self.row += 1
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif piece == "\x1b[2K":
            self.lines[self.row] = ""
        elif piece.endswith("A") and piece[0] == "\x1b":
            self.row -= int(piece[2:-1] or 1)
        elif piece[0] not in "\r\x1b":
            self.lines[self.row] += piece


TEXT = "# Title\n\nFirst paragraph.\n\n- one\n- two\n\n```python\nx = 1\n```\n\nLast **words**.\n"


def test_each_line_stands_once_in_the_scrollback() -> None:
    """Blocks are printed for good once; the growing one is replaced and leaves no copies."""
    out, now = io.StringIO(), iter(range(10_000))
    view = TerminalView(Console(file=out, force_terminal=True, width=60, height=20), clock=lambda: float(next(now)))
    view.open("claude", None)
    for start in range(0, len(TEXT), 4):
        view.show(Text(TEXT[start : start + 4]))
    view.show(DONE)
    view.close()
    screen = Screen()
    screen.feed(out.getvalue())
    shown = [line.strip() for line in screen.lines if line.strip()]
    for words in ("Title", "First paragraph.", "one", "two", "x = 1", "Last words."):
        assert sum(words in line for line in shown) == 1, (words, shown)
    assert shown[-1] == "claude · 3 in · 4 out · $0.0100"
    assert len(out.getvalue()) < 40 * len(TEXT)


def test_a_tail_taller_than_the_screen_is_cut() -> None:
    """What scrolled away cannot be replaced, so the live tail never grows past the screen."""
    out, now = io.StringIO(), iter(range(10_000))
    view = TerminalView(Console(file=out, force_terminal=True, width=60, height=10), clock=lambda: float(next(now)))
    view.open("claude", None)
    for number in range(40):
        view.show(Text(f"- item {number}\n"))
    view.close()
    screen = Screen()
    screen.feed(out.getvalue())
    assert sum("item 3" in line.replace("item 3 ", "item 3") for line in screen.lines) == 11  # 3 and 30 to 39
    assert screen.row < 60


def test_a_wait_for_a_rate_limit_is_shown_while_it_lasts() -> None:
    """In a terminal it is drawn over until the call goes, and leaves no line; elsewhere it is told once."""
    out, plain, now = io.StringIO(), io.StringIO(), iter(range(10_000))
    terminal = TerminalView(Console(file=out, force_terminal=True, width=80, height=20), clock=lambda: float(next(now)))
    for view in (terminal, PrintView(plain)):
        view.open("claude", None)
        for left in (12, 10, 8, 0):
            view.show(Throttled(left, "input tokens", 40_000))
        view.show(Text("Here it is."))
        view.show(DONE)
        view.close()
    said = "waiting {} s for the account's limit of 40,000 input tokens a minute"
    assert said.format(12) in out.getvalue()
    screen = Screen()
    screen.feed(out.getvalue())
    assert not [line for line in screen.lines if "waiting" in line]
    assert plain.getvalue().splitlines()[:2] == [f"◷ {said.format(12)}", "Here it is."]


def test_thinking_and_tools_are_single_lines() -> None:
    """Thinking is folded to a line, and a tool is one line with its state."""
    out = io.StringIO()
    view = TerminalView(Console(file=out, force_terminal=False, width=80))
    view.open("claude", None)
    for event in (
        Thinking("a long story"),
        ToolCall("1", "weather", {"city": "Oslo"}),
        ToolResult("1", "weather", "rain", duration_ms=830),
        Text("It rains."),
    ):
        view.show(event)
    view.close(KeyboardInterrupt())
    lines = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert lines == ["✻ Thought (3 words)", '⚙ weather(city="Oslo"): done, 0.83 s', "It rains.", "stopped · claude"]


def test_print_writes_text_as_it_comes() -> None:
    """Without a terminal the text is written once, as it comes, with the footer on its own line."""
    out = io.StringIO()
    view = PrintView(out)
    view.open("claude", None)
    view.show(Thinking("not shown"))
    view.show(Text("Hello "))
    assert out.getvalue() == "Hello "
    view.show(Text("there"))
    view.show(ToolCall("1", "t", {}))
    view.show(ToolResult("1", "t", "r"))
    view.show(Text("end"))
    view.show(DONE)
    view.close()
    assert out.getvalue() == "Hello there\n⚙ t(): done\nend\nclaude · 3 in · 4 out · $0.0100\n"

"""The live view in a terminal: finished blocks are printed for good, the growing one is drawn below them and replaced.

So the scrollback holds each line once. `PrintView` is for what is no terminal: text as it comes, nothing drawn twice.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import ControlType, Segment
from rich.text import Text as Styled

from llmnb.display import cards, footer, pace, prompt, sources
from llmnb.display.answer import Answer, Part, Prose, Tool, Waiting, clean
from llmnb.display.blocks import MarkdownStream
from llmnb.events import Approval, StreamEvent

FRAME_S = 0.08


class TerminalView:
    """A `View` in a terminal; Ctrl-C is its Stop."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or console_here()
        self._clock = clock
        self._lock = threading.RLock()
        self._answer = Answer()
        self._tail = _Tail()
        self._live = Live(self._tail, console=self._console, transient=True, auto_refresh=False)
        self._stream = MarkdownStream()
        self._fed = 0  # characters of the part being drawn
        self._part = 0  # the part being drawn; those before it are printed
        self._frame_due = 0.0
        self._armed = False
        self._open = False

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """Draw a line that says the question is on its way."""
        with self._lock:
            self._answer.model = model
            self._tail.text = Styled(f"{footer.shortened(model)} …", style="dim")
            self._live.start()
            self._open = True
            self._live.refresh()

    def show(self, event: StreamEvent) -> None:
        """Add the event; draw it now, or with the next frame."""
        with self._lock:
            if isinstance(event, Approval):
                return self._ask(event)
            self._answer.apply(event)
            now = self._clock()
            if now >= self._frame_due:
                self._draw(now)
            elif not self._armed:
                self._armed = True
                pace.alarm().at(self._frame_due, self._rung)

    def close(self, error: BaseException | None = None) -> None:
        """Print what is left, and the footer."""
        with self._lock:
            self._answer.end(error)
            self._draw(self._clock())
            self._open = False
            self._tail.text = None
            self._live.stop()
            listed = clean(sources.plain(self._answer.citations))
            for line, style in ((cards.error_text(error), "red"), (listed, "dim"), (footer.plain(self._answer), "dim")):
                if line:
                    self._console.print(Styled(line, style=style))

    def _ask(self, approval: Approval) -> None:
        """Ask below what is printed: the growing tail would be drawn over the question."""
        self._draw(self._clock())
        self._live.stop()
        approval.answer(prompt.ask(approval.call))
        self._live.start()

    def _rung(self) -> None:
        with self._lock:
            self._armed = False
            if self._open:
                self._draw(self._clock())

    def _draw(self, now: float) -> None:
        parts = self._answer.parts
        while self._part < len(parts) and self._draw_part(parts[self._part]):
            self._part, self._fed, self._stream = self._part + 1, 0, MarkdownStream()
        if self._open:
            self._live.refresh()
        self._frame_due = now + max(FRAME_S, pace.LOAD * (self._clock() - now))

    def _draw_part(self, part: Part) -> bool:
        """Draw one part; whether it is finished and printed for good."""
        if isinstance(part, Prose):
            return self._draw_thinking(part) if part.thinking else self._draw_text(part)
        finished = part.result is not None or part.abandoned if isinstance(part, Tool) else part.over
        line = Styled(_tool_line(part) if isinstance(part, Tool) else cards.waiting_text(part), style="dim")
        self._settle(line, finished)
        return finished

    def _draw_thinking(self, part: Prose) -> bool:
        self._settle(Styled(f"✻ {cards.thinking_label(part)}", style="dim italic"), part.ended)
        return part.ended

    def _draw_text(self, part: Prose) -> bool:
        self._stream.append(part.text[self._fed :])
        self._fed = len(part.text)
        for source in self._stream.take(final=part.ended):
            if source.strip():
                self._console.print(markdown(source))
        source = self._stream.tail_source
        self._tail.text = markdown(source) if source.strip() else None
        return part.ended

    def _settle(self, line: Styled, finished: bool) -> None:
        if finished:
            self._tail.text = None
            if line.plain:
                self._console.print(line)
        else:
            self._tail.text = line


def console_here() -> Console:
    """A console as high as the terminal is; LINES, where a parent's readline left it, says what was once."""
    kept = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    return Console(_environ=kept)


class _Tail:
    """The growing block, cut to the last lines that fit the screen: what scrolled away could not be replaced."""

    def __init__(self) -> None:
        self.text: Markdown | Styled | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.text is None:
            return
        lines = console.render_lines(self.text, options, pad=False)
        for number, line in enumerate(lines[-max(1, console.height - 2) :]):
            if number:
                yield Segment.line()
            yield from line
        # the terminal echoes Ctrl-C as "^C": behind a full line it would begin another one, of which nobody knows
        yield Segment("\r", None, [(ControlType.CARRIAGE_RETURN,)])


def markdown(source: str) -> Markdown:
    return Markdown(source, code_theme="ansi_dark", hyperlinks=False)


def _tool_line(part: Tool) -> str:
    return f"⚙ {cards.tool_text(part)}"


class PrintView:
    """A `View` that writes text as it comes, and the footer at the end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._answer = Answer()
        self._part = 0
        self._written = 0  # characters of the part being written
        self._at_line_start = True

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """Nothing is written before the first text."""
        self._answer.model = model

    def show(self, event: StreamEvent) -> None:
        """Write what the event brings."""
        if isinstance(event, Approval):
            return event.answer(prompt.ask(event.call))
        self._answer.apply(event)
        self._write_parts()

    def close(self, error: BaseException | None = None) -> None:
        """Write the footer on a line of its own."""
        self._answer.end(error)
        self._write_parts()
        for line in (cards.error_text(error), clean(sources.plain(self._answer.citations)), footer.plain(self._answer)):
            self._line(line)

    def _write_parts(self) -> None:
        parts = self._answer.parts
        while self._part < len(parts) and self._write_part(parts[self._part]):
            self._part, self._written = self._part + 1, 0

    def _write_part(self, part: Part) -> bool:
        if isinstance(part, Waiting):
            if not self._written:
                self._written = 1
                self._line(cards.waiting_text(part))
            return part.over
        if isinstance(part, Tool):
            finished = part.result is not None or part.abandoned
            self._line(_tool_line(part) if finished else "")
            return finished
        if not part.thinking:
            self._write(part.text[self._written :])
            self._written = len(part.text)
        return part.ended

    def _write(self, text: str) -> None:
        if text:
            out = self._stream or sys.stdout  # looked up each time: a notebook and pytest replace it
            out.write(text)
            out.flush()
            self._at_line_start = text.endswith("\n")

    def _line(self, line: str) -> None:
        if line:
            self._write(("" if self._at_line_start else "\n") + line + "\n")

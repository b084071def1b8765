"""Columns of live answers in a terminal: panels next to each other while they come, then each answer in full.

What is printed for good is printed once, at the end; the panels show the last lines of each answer and go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text as Styled

from llmnb.display import cards, compared, footer, pace
from llmnb.display.answer import Answer, clean
from llmnb.display.side_by_side import Columns
from llmnb.display.terminal import console_here, markdown
from llmnb.events import StreamEvent

if TYPE_CHECKING:
    from llmnb.jobs.comparing.comparison import Comparison
    from llmnb.jobs.comparing.sofar import SoFar
    from llmnb.jobs.run import Status

_FRAME_S = 0.1
_LEAST_WIDTH = 26
"""Narrower panels are not read: what does not fit next to each other is told in a line."""


class TerminalColumns(Columns):
    """Columns in a terminal; Ctrl-C is their Stop."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(lambda bundle: None, html=False)
        self._console = console or console_here()
        self._clock = clock
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._due = 0.0
        self._doing = ""

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Callable[[], None] | None) -> None:
        """Draws the empty panels."""
        super().open(labels, models, stop)
        self._live.start()
        self._draw()

    def show(self, column: int, event: StreamEvent) -> None:
        """Adds the event; it is drawn now, or with a later one."""
        super().show(column, event)
        if self._clock() >= self._due:
            self._draw()

    def end(self, column: int, error: BaseException | None) -> None:
        """Draws the answer as it ended."""
        super().end(column, error)
        self._draw()

    def far(self, status: Status, judging: bool, so_far: SoFar | None = None) -> None:
        """Says how far the judging is."""
        self._doing = f"judging · {status.kept + status.done:,} of {status.rows:,}"
        self._draw()

    def close(self, comparison: Comparison | None, error: BaseException | None) -> None:
        """Prints each answer in full."""
        self._live.stop()
        self.kept(comparison, error)  # gives each its end
        for label, answer in zip(self.labels, self.answers, strict=True):
            self._console.print(Rule(Styled(clean(label), style="bold"), align="left"))
            if answer.text.strip():
                self._console.print(markdown(answer.text))
            note = "" if comparison is None else compared.stands(comparison, label)
            for line, style in ((cards.error_text(answer.error), "red"), (footer.plain(answer), "dim"), (note, "bold")):
                if line:
                    self._console.print(Styled(line, style=style))
        if comparison is not None:
            self._console.print(Styled(compared.told_of(comparison), style="dim"))

    def _draw(self) -> None:
        began = self._clock()
        fits = max(1, min(len(self.answers), self._console.width // _LEAST_WIDTH))
        grid = Table.grid(expand=True, padding=(0, 1))
        for _ in range(fits):
            grid.add_column(ratio=1)
        rows = -(-len(self.answers) // fits)
        height = max(4, (self._console.height - 2) // rows)
        panels = [self._panel(*one, height) for one in zip(self.labels, self.answers, strict=True)]
        for first in range(0, len(panels), fits):
            grid.add_row(*panels[first : first + fits])
        if self._doing:
            grid.add_row(Styled(self._doing, style="dim"))
        self._live.update(grid, refresh=True)
        self._due = self._clock() + max(_FRAME_S, pace.LOAD * (self._clock() - began))

    def _panel(self, label: str, answer: Answer, height: int) -> Panel:
        text = cards.error_text(answer.error) or answer.text or "…"
        width = max(_LEAST_WIDTH, self._console.width // max(1, len(self.answers)))
        lines = Styled(text[-width * height :]).wrap(self._console, width - 6)
        body = Styled("\n").join(list(lines)[-(height - 2) :])
        state = footer.plain(answer) if answer.ended else "…"
        return Panel(body, title=Styled(clean(label)), subtitle=Styled(footer.shortened(state, width)), height=height)

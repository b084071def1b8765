"""A comparison over many prompts while it goes on: how all stand, and the rows that were finished last.

In a notebook it is one output with a Stop button, in whose place the whole comparison stands in the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmnb.display import compared, footer, pace, run_progress, style
from llmnb.events import StreamEvent
from llmnb.jobs.comparing.sofar import Line, SoFar
from llmnb.records import NANO

if TYPE_CHECKING:
    from llmnb.jobs.comparing.comparison import Comparison
    from llmnb.jobs.run import Status

_EVERY_S = 0.5
_CHARS = 100
_HEAD = ["", "score so far", "won, tied, lost", "answered", "$ so far", "tokens out", "median"]


def in_a_line(so_far: SoFar) -> str:
    """How each contestant stands, in a few words."""
    return " · ".join(
        f"{footer.shortened(line.label, 30)}: {line.status.kept + line.status.done:,}, "
        + (f"score {line.score:.2f}" if line.score is not None else _paid(line))
        for line in so_far.lines
    )


def html(status: Status, told: str, so_far: SoFar | None) -> str:
    """The progress, the table of contestants, and that of the last rows; without style."""
    bar = run_progress.html_of(status, told)
    if so_far is None:
        return bar
    # its tables look as those that stay: JupyterLab gives a widget no such class
    begin = '<div class="llmnb llmnb-compare llmnb-many jp-RenderedHTMLCommon">'
    return f"{bar}{begin}{_standings(so_far)}{_rows(so_far)}</div>"


class LiveTable:
    """The output of one comparison. Where `can_stop`, it is a widget with a button; elsewhere HTML, drawn over."""

    stays = True
    is_table = True

    def __init__(self, *, can_stop: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._can_stop = can_stop
        self._clock = clock
        self._stop: Callable[[], None] | None = None
        self._widget: Any = None
        self._handle: Any = None
        self._pace = run_progress.Pace()
        self._last: tuple[Status, bool, SoFar | None] | None = None
        self._due = 0.0

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Callable[[], None] | None) -> None:
        """The first status draws it."""
        self._stop = stop if self._can_stop else None

    def show(self, column: int, event: StreamEvent) -> None:
        """Words of single answers are not shown."""

    def end(self, column: int, error: BaseException | None) -> None:
        """Nor their ends."""

    def far(self, status: Status, judging: bool, so_far: SoFar | None) -> None:
        """Draws it, now and then."""
        if self._last is not None and judging != self._last[1]:
            self._pace = run_progress.Pace()
        self._last = status, judging, so_far
        began = self._clock()
        if began >= self._due:
            self._draw(*self._last)
            now = self._clock()
            self._due = now + max(_EVERY_S, pace.LOAD * (now - began))

    def close(self, comparison: Comparison | None, error: BaseException | None) -> None:
        """Puts the whole comparison in its place; of one that was stopped, how far it came."""
        if comparison is not None:
            self._keep(compared.bundle(comparison))
        elif self._last is not None:
            status, judging, so_far = self._last
            over = replace(status, is_over=True)
            told = self._told(over, judging)
            self._keep({"text/plain": told, "text/html": _styled(html(over, told, so_far))})
        elif self._widget is not None:
            self._widget.dispose()

    def _draw(self, status: Status, judging: bool, so_far: SoFar | None) -> None:
        told = self._told(status, judging)
        drawn = html(status, told, so_far)
        if self._handle is not None and self._widget is not None:
            self._widget.show_run(drawn, self._if_lost(status, judging))
        elif self._handle is None and self._stop is not None:
            from llmnb.display.compare_widget import CompareWidget

            self._widget = CompareWidget(self._stop)
            self._widget.show_run(drawn, self._if_lost(status, judging))
            self._publish(self._widget.view(told))
        else:
            self._publish({"text/plain": told, "text/html": _styled(drawn)})

    def _if_lost(self, status: Status, judging: bool) -> str:
        return run_progress.html_if_lost(status, lambda over, end: self._told(over, judging, end))

    def _told(self, status: Status, judging: bool, end: str = "stopped") -> str:
        unit = "judgements" if judging else "answers"
        words = run_progress.said(status, rate=self._pace.at(status), end=end, unit=unit)
        return f"judging: {words}" if judging else words

    def _keep(self, bundle: dict[str, str]) -> None:
        self._publish(bundle)
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.dispose()

    def _publish(self, bundle: dict[str, Any]) -> None:
        import IPython.display

        shown: Any = IPython.display
        if self._handle is None:
            self._handle = shown.display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def css() -> str:
    """The style sheet of it, live."""
    return compared.css() + style.squeezed("run_widget.css")


def _styled(content: str) -> str:
    inside = f'<div class="llmnb-run">{content}</div>'
    return style.tag(css(), inside) + inside


def _standings(so_far: SoFar) -> str:
    rows = [_cells(line) for line in so_far.lines]
    used = [at for at in range(len(_HEAD)) if at == 0 or any(row[at] for row in rows)]
    kept = [[row[at] for at in used] for row in rows]
    return compared.html_table([_HEAD[at] for at in used], kept, "llmnb-standings")


def _cells(line: Line) -> list[str]:
    status = line.status
    failed = f" ({status.failed:,} failed)" if status.failed else ""
    return [
        line.label,
        "" if line.score is None else f"{line.score:.2f}",
        "" if line.games is None else ", ".join(map(str, line.games)),
        f"{status.kept + status.done - status.failed:,} of {status.rows:,}{failed}",
        _paid(line),
        "" if line.output_tokens is None else f"{line.output_tokens:,.0f}",
        "" if line.seconds is None else footer.seconds(line.seconds * 1000),
    ]


def _paid(line: Line) -> str:
    paid = footer.dollars(Decimal(line.status.cost_nanousd) / NANO)
    return f"{paid} and {line.status.unpriced:,} unpriced" if line.status.unpriced else paid


def _rows(so_far: SoFar) -> str:
    prompts = so_far.prompts
    names = [str(name) for name in prompts.columns[: compared.PROMPT_COLUMNS]]
    table = [
        [
            *(compared.shortened(prompts.iloc[row, at], compared.PROMPT_CHARS) for at in range(len(names))),
            *(
                "…" if facts is None else compared.cell(facts, score, _CHARS)
                for facts, score in zip(said, scores, strict=True)
            ),
        ]
        for row, said, scores in so_far.rows
    ]
    head = [*names, *(line.label for line in so_far.lines)]
    return compared.html_table(head, table, "llmnb-answers") if table else ""

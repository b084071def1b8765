"""How far a run over many rows is: a bar in a notebook or a terminal, nothing where nobody looks."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

from llmnb.display import batch_progress
from llmnb.display.footer import dollars
from llmnb.display.style import squeezed, tag
from llmnb.display.where import has_widgets, where
from llmnb.interrupts import STOPPED, Stopped
from llmnb.jobs.batches.status import BatchStatus
from llmnb.records import NANO
from llmnb.terminals import is_terminal

if TYPE_CHECKING:
    from llmnb.jobs.run import Status

_EVERY_S = 0.25
_RECENT_S = 30.0
_HELD_S = 5.0
_LEAST_S = 2.0
_DOT = " · "
_LOST = "run this cell again: what is finished is kept"  # as in lost_kernel.js
_IN_A_PAGE = ("jupyter", "vscode", "colab", "console", "headless")


@contextmanager
def progress(
    *,
    shown: bool = True,
    why: str = "",
    run_id: str = "",
    stops: type[BaseException] = Stopped,
    also: Callable[[], str] = lambda: "",
    unit: str = "rows",
) -> Generator[Callable[[Status], None]]:
    """What is told each `Status`, often; it draws a few a second, and the last one.

    `why` is said before all else, `run_id` at the end, `also` beside a terminal's bar. It counts in `unit`, and
    raises nothing but `stops`, when a person has pressed Stop.
    """
    pressed = threading.Event()
    drawn = _drawer(why, run_id, also, unit, pressed.set) if shown else None
    last: list[Any] = [None, 0.0]

    def told(status: Status) -> None:
        now = time.monotonic()
        last[0] = status
        if drawn is not None and (status.is_over or now - last[1] >= _EVERY_S):
            last[1] = now
            with suppress(Exception):
                drawn(status, False)
        if pressed.is_set() and not status.is_over:
            raise _by_view(stops)

    try:
        yield told
    finally:
        if drawn is not None and last[0] is not None:
            with suppress(Exception):
                drawn(last[0], True)


class Pace:
    """How fast rows are finished now, over 30 seconds: what is cached comes first, and limits hold up what is last.

    While they do, over 5: what went before they were met says nothing of what is to come.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def at(self, status: Status) -> float:
        """Rows a second; over all of its time once the run is over."""
        began, done = self._seen[0]
        if status.is_over or status.seconds - began < _LEAST_S:
            began, done = 0.0, 0
        else:
            self._seen.append((status.seconds, status.done))
            recent_s = _HELD_S if status.held else _RECENT_S
            while self._seen[1][0] <= status.seconds - recent_s:
                self._seen.popleft()
        return (status.done - done) / (status.seconds - began) if status.seconds > began else 0.0


def said(
    status: Status,
    why: str = "",
    run_id: str = "",
    rate: float | None = None,
    end: str = "stopped",
    unit: str = "rows",
) -> str:
    """How far it is, in words; `rate` is in rows a second, by default that of all its time; `end` why it is over."""
    rate = status.done / status.seconds if rate is None and status.seconds > 0 else rate or 0.0
    finished = status.kept + status.done
    parts = [why] if why else []
    parts.append(f"{finished:,} of {status.rows:,} {unit}" if status.is_counted else f"{finished:,} {unit} so far")
    parts += [*_unasked(status), *_failed(status), *_money(status)]
    if isinstance(status, BatchStatus):
        parts += batch_progress.parts(status)
        if status.is_over:
            parts.append(_time(status.seconds))
    elif status.done and status.seconds > 0:
        parts.append(f"{rate:,.1f} {unit}/s")
        if status.is_over or not status.left:
            parts.append(_time(status.seconds))
        elif rate > 0:
            parts.append(f"{_time(status.left / rate)} left")
    parts += _held(status)
    if status.left and status.is_over:
        parts.append(end)
    if run_id and status.is_over:
        parts.append(f"run {run_id}")
    return _DOT.join(parts)


def html_if_lost(status: Status, told: Callable[[Status, str], str]) -> str:
    """What is shown of the run in place of `html_of` when its kernel ends; `told` says it of a status, and why."""
    over = replace(status, is_over=True)
    return html_of(over, told(over, "kernel ended"), _LOST)


def beside(status: Status, why: str = "") -> str:
    """What there is to say beside a bar that has the rows and the times, most important first: it may be cut off."""
    batch = batch_progress.parts(status) if isinstance(status, BatchStatus) else []
    money, *saved = _money(status)
    told = [money, *_failed(status), *_held(status), *batch, *_unasked(status), *saved, *([why] if why else [])]
    return _DOT.join(told)


def _unasked(status: Status) -> list[str]:
    told = ((status.kept, "kept from before"), (status.cached, "from the cache"))
    return [f"{count:,} {what}" for count, what in told if count]


def _failed(status: Status) -> list[str]:
    return [f"{status.failed:,} failed"] if status.failed else []


def _money(status: Status) -> list[str]:
    cost = status.cost_nanousd / Decimal(NANO)
    money = dollars(cost)
    if status.done and status.left and not status.is_over:
        money += f", about {dollars(cost / status.done * (status.done + status.left))} in all"
    parts = [money + (f" and {status.unpriced:,} unpriced" if status.unpriced else "")]
    if status.saved_nanousd > 0:
        parts.append(f"the prompt cache saved {dollars(status.saved_nanousd / Decimal(NANO))}")
    return parts


def _held(status: Status) -> list[str]:
    return [f"{status.held:,} wait for {status.held_for}"] if status.held and not status.is_over else []


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _by_view(stops: type[BaseException]) -> BaseException:
    error = stops(STOPPED)
    if isinstance(error, Stopped):
        error.by_view = True
    return error


def _drawer(
    why: str, run_id: str, also: Callable[[], str], unit: str, stop: Callable[[], None]
) -> Callable[[Status, bool], None] | None:
    place = where()
    if place in _IN_A_PAGE:
        return _Page(why, run_id, stop if place == "jupyter" and has_widgets() else None).draw
    if place == "terminal" or (place == "script" and is_terminal(sys.stderr)):
        from llmnb.display.terminal_bar import TerminalBar

        return TerminalBar(
            Pace().at,
            lambda status: beside(status, also() or why),
            lambda status: said(status, why, run_id, unit=unit),
            unit,
        ).draw
    return None


class _Page:
    """An output of a cell that is drawn over: with Stop where a click is heard, and without a widget in the end."""

    def __init__(self, why: str, run_id: str, stop: Callable[[], None] | None) -> None:
        self._handle: Any = None
        self._why, self._run_id, self._stop = why, run_id, stop
        self._text = ""
        self._pace = Pace()
        self._widget: Any = None
        self._note, self._note_handle = "", None

    def draw(self, status: Status, is_last: bool) -> None:
        text = said(status, self._why, self._run_id, self._pace.at(status))
        note = batch_progress.note(status) if isinstance(status, BatchStatus) else ""
        if self._stop is not None:
            self._tell_beside(note)
            note = ""
        if text == self._text and not is_last:  # a batch is waited for over hours, with nothing new to say
            return
        self._text = text
        html = html_of(status, text, note)
        if self._handle is None and self._stop is not None and not status.is_over:
            self._live(html, text, status)
        elif self._widget is not None and not status.is_over:
            self._widget.show_run(html, self._if_lost(status))
        else:
            self._keep({"text/plain": text, "text/html": f'{_css(html)}<div class="llmnb-run">{html}</div>'})

    def _tell_beside(self, note: str) -> None:
        """In an output of its own: it is there when the notebook is opened again, without the kernel of the widget."""
        if note == self._note or self._handle is None:
            return
        self._note = note
        html = f'<div class="llmnb-run"><div class="llmnb-more">{_plain(note)}</div></div>' if note else ""
        bundle = {"text/plain": note, "text/html": html and tag(squeezed("run_widget.css"), html) + html}
        if self._note_handle is None:
            self._note_handle = _displayed(bundle)
        else:
            self._note_handle.update(bundle, raw=True)

    def _if_lost(self, status: Status) -> str:
        return html_if_lost(status, lambda over, end: said(over, self._why, self._run_id, end=end))

    def _live(self, html: str, text: str, status: Status) -> None:
        from llmnb.display.run_widget import RunWidget

        assert self._stop is not None
        self._widget = RunWidget(self._stop)
        self._widget.show_run(html, self._if_lost(status))
        self._handle = _displayed(self._widget.view(text))

    def _keep(self, bundle: dict[str, str]) -> None:
        if self._handle is None:
            self._handle = _displayed(bundle)
        else:
            self._handle.update(bundle, raw=True)
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.dispose()


def _displayed(bundle: dict[str, Any]) -> Any:
    """Shows it, and gives what it is updated by."""
    import IPython.display

    shown: Any = IPython.display
    return shown.display(bundle, raw=True, display_id=True)


def _css(html: str) -> str:
    return tag(squeezed("run_widget.css"), f'<div class="llmnb-run">{html}')


def html_of(status: Status, text: str, note: str = "") -> str:
    """The bar and what is said of it, as HTML without its style."""
    percent = 100 * (status.kept + status.done) / max(status.rows, 1)
    bar = "" if status.is_over or not status.is_counted else (
        '<div class="llmnb-bar" role="progressbar" aria-label="rows" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}"><div class="llmnb-full" style="width:{percent:.2f}%"></div></div>'
    )  # fmt: skip
    first, _, more = text.partition(_DOT)
    error = f'<div class="llmnb-error">first error: {_plain(status.first_error[:300])}</div>'
    about = f'<div class="llmnb-more">{_plain(note)}</div>' if note else ""
    return (
        f'<div>{bar}<div>{_plain(first)}</div><div class="llmnb-more">{_plain(more)}</div>{about}'
        f"{error if status.first_error else ''}</div>"
    )


def _plain(text: str) -> str:
    """Text as HTML in which two dollar signs are no formula to JupyterLab."""
    return escape(text).replace("$", "<span>$</span>")

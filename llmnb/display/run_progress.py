"""How far a run over many rows is: a bar in a notebook, a line in a terminal, nothing in a script."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from html import escape
from typing import TYPE_CHECKING, Any

from llmnb.display import batch_progress
from llmnb.display.style import squeezed, tag
from llmnb.display.where import has_widgets, where
from llmnb.interrupts import STOPPED, Stopped
from llmnb.jobs.batches.status import BatchStatus
from llmnb.records import NANO

if TYPE_CHECKING:
    from llmnb.jobs.run import Status

_EVERY_S = 0.25
_DOT = " · "
_IN_A_PAGE = ("jupyter", "vscode", "colab", "console", "headless")


@contextmanager
def progress(
    *, shown: bool = True, why: str = "", run_id: str = "", stops: type[BaseException] = Stopped
) -> Generator[Callable[[Status], None]]:
    """What is told each `Status`, often; it draws a few a second, and the last one.

    `why` is said before all else, `run_id` at the end. It raises nothing but `stops`, when a person has pressed Stop.
    """
    pressed = threading.Event()
    drawn = _drawer(why, run_id, pressed.set) if shown else None
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


def said(status: Status, why: str = "", run_id: str = "") -> str:
    """How far it is, in words."""
    finished = status.kept + status.done
    parts = [why] if why else []
    parts.append(f"{finished:,} of {status.rows:,} rows" if status.is_counted else f"{finished:,} rows so far")
    if status.kept:
        parts.append(f"{status.kept:,} kept from before")
    if status.cached:
        parts.append(f"{status.cached:,} from the cache")
    if status.failed:
        parts.append(f"{status.failed:,} failed")
    cost = status.cost_nanousd / float(NANO)
    money = f"${cost:,.4f}" if cost < 1 else f"${cost:,.2f}"
    if status.done and status.left and not status.is_over:
        money += f", about ${cost / status.done * (status.done + status.left):,.2f} in all"
    parts.append(money + (f" and {status.unpriced:,} unpriced" if status.unpriced else ""))
    if status.saved_nanousd > 0:
        parts.append(f"the prompt cache saved ${status.saved_nanousd / float(NANO):,.4f}")
    if isinstance(status, BatchStatus):
        parts += batch_progress.parts(status)
        if status.is_over:
            parts.append(_time(status.seconds))
    elif status.done and status.seconds > 0:
        parts.append(f"{status.done / status.seconds:,.1f} rows/s")
        if status.left and not status.is_over:
            parts.append(f"{_time(status.left * status.seconds / status.done)} left")
        else:
            parts.append(_time(status.seconds))
    if status.held and not status.is_over:
        parts.append(f"{status.held:,} wait for {status.held_for}")
    if status.left and status.is_over:
        parts.append("stopped")
    if run_id and status.is_over:
        parts.append(f"run {run_id}")
    return _DOT.join(parts)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _by_view(stops: type[BaseException]) -> BaseException:
    error = stops(STOPPED)
    if isinstance(error, Stopped):
        error.by_view = True
    return error


def _drawer(why: str, run_id: str, stop: Callable[[], None]) -> Callable[[Status, bool], None] | None:
    place = where()
    if place in _IN_A_PAGE:
        return _Page(why, run_id, stop if place == "jupyter" and has_widgets() else None).draw
    if place == "terminal" or (place == "script" and sys.stderr.isatty()):
        return _Line(why, run_id).draw
    return None


class _Page:
    """An output of a cell that is drawn over: with Stop where a click is heard, and without a widget in the end."""

    def __init__(self, why: str, run_id: str, stop: Callable[[], None] | None) -> None:
        self._handle: Any = None
        self._why, self._run_id, self._stop = why, run_id, stop
        self._text = ""
        self._widget: Any = None

    def draw(self, status: Status, is_last: bool) -> None:
        text = said(status, self._why, self._run_id)
        if text == self._text and not is_last:  # a batch is waited for over hours, with nothing new to say
            return
        self._text = text
        html = _html(status, text)
        if self._handle is None and self._stop is not None and not status.is_over:
            self._live(html, text)
        elif self._widget is not None and not status.is_over:
            self._widget.show(html)
        else:
            self._keep({"text/plain": text, "text/html": f'{_css(html)}<div class="llmnb-run">{html}</div>'})

    def _live(self, html: str, text: str) -> None:
        from llmnb.display.run_widget import RunWidget

        assert self._stop is not None
        self._widget = RunWidget(self._stop)
        self._widget.show(html)
        self._display(self._widget.view(text))

    def _keep(self, bundle: dict[str, str]) -> None:
        if self._handle is None:
            self._display(bundle)
        else:
            self._handle.update(bundle, raw=True)
        widget, self._widget = self._widget, None
        if widget is not None:
            widget.dispose()

    def _display(self, bundle: dict[str, Any]) -> None:
        import IPython.display

        shown: Any = IPython.display
        self._handle = shown.display(bundle, raw=True, display_id=True)


def _css(html: str) -> str:
    return tag(squeezed("run_widget.css"), f'<div class="llmnb-run">{html}')


def _html(status: Status, text: str) -> str:
    percent = 100 * (status.kept + status.done) / max(status.rows, 1)
    bar = "" if status.is_over or not status.is_counted else (
        '<div class="llmnb-bar" role="progressbar" aria-label="rows" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}"><div class="llmnb-full" style="width:{percent:.2f}%"></div></div>'
    )  # fmt: skip
    first, _, more = text.partition(_DOT)
    error = f'<div class="llmnb-error">first error: {_plain(status.first_error[:300])}</div>'
    return (
        f'<div>{bar}<div>{_plain(first)}</div><div class="llmnb-more">{_plain(more)}</div>'
        f"{error if status.first_error else ''}</div>"
    )


def _plain(text: str) -> str:
    """Text as HTML in which two dollar signs are no formula to JupyterLab."""
    return escape(text).replace("$", "<span>$</span>")


class _Line:
    """The last line of a terminal, written over."""

    def __init__(self, why: str, run_id: str) -> None:
        self._why, self._run_id = why, run_id
        self._text = ""

    def draw(self, status: Status, is_last: bool) -> None:
        text = said(status, self._why, self._run_id)
        if text != self._text or is_last:
            columns = shutil.get_terminal_size().columns - 1
            # a line that wraps could not be written over
            line = text if is_last else text if len(text) <= columns else f"{text[: columns - 1]}…"
            sys.stderr.write(f"\r\x1b[K{line}")
            self._text = text
        if is_last:
            error = f"\nfirst error: {status.first_error[:300]}" if status.first_error else ""
            sys.stderr.write(f"{error}\n")
        sys.stderr.flush()

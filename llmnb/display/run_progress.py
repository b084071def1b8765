"""How far a run over many rows is: a bar in a notebook, a line in a terminal, nothing in a script."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from html import escape
from typing import TYPE_CHECKING, Any

from llmnb.display import batch_progress
from llmnb.display.where import where
from llmnb.jobs.batches.status import BatchStatus
from llmnb.records import NANO

if TYPE_CHECKING:
    from llmnb.jobs.run import Status

_EVERY_S = 0.25
_IN_A_PAGE = ("jupyter", "vscode", "colab", "console", "headless")


@contextmanager
def progress(*, shown: bool = True, why: str = "") -> Generator[Callable[[Status], None]]:
    """What is told each `Status`, often; it draws a few a second, and the last one. It never raises.

    `why` is said before all else.
    """
    drawn = _drawer(why) if shown else None
    last: list[Any] = [None, 0.0]

    def told(status: Status) -> None:
        now = time.monotonic()
        last[0] = status
        if drawn is not None and (status.is_over or now - last[1] >= _EVERY_S):
            last[1] = now
            with suppress(Exception):
                drawn(status, False)

    try:
        yield told
    finally:
        if drawn is not None and last[0] is not None:
            with suppress(Exception):
                drawn(last[0], True)


def said(status: Status, why: str = "") -> str:
    """How far it is, in words."""
    finished = status.kept + status.done
    parts = [why] if why else []
    parts.append(f"{finished:,} of {status.rows:,} rows")
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
    if status.left and status.is_over:
        parts.append("stopped")
    return " · ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _drawer(why: str) -> Callable[[Status, bool], None] | None:
    place = where()
    if place in _IN_A_PAGE:
        return _Page(why).draw
    if place == "terminal" or (place == "script" and sys.stderr.isatty()):
        return _Line(why).draw
    return None


class _Page:
    """An output of a cell that is drawn over; no widget, so that it stays in the file as it was last."""

    def __init__(self, why: str) -> None:
        self._handle: Any = None
        self._why = why
        self._text = ""

    def draw(self, status: Status, is_last: bool) -> None:
        import IPython.display

        text = said(status, self._why)
        if text == self._text and not is_last:  # a batch is waited for over hours, with nothing new to say
            return
        self._text = text
        bundle = {"text/plain": text, "text/html": _html(status, text)}
        if self._handle is None:
            shown: Any = IPython.display
            self._handle = shown.display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _html(status: Status, text: str) -> str:
    finished = status.kept + status.done
    error = f"<br><small>first error: {_plain(status.first_error[:300])}</small>" if status.first_error else ""
    bar = "" if status.is_over else (
        f'<progress value="{finished}" max="{max(status.rows, 1)}" style="width:16em" aria-label="rows"></progress> '
    )  # fmt: skip
    return f'<div style="font-variant-numeric:tabular-nums">{bar}{_plain(text)}{error}</div>'


def _plain(text: str) -> str:
    """Text as HTML in which two dollar signs are no formula to JupyterLab."""
    return escape(text).replace("$", "<span>$</span>")


class _Line:
    """The last line of a terminal, written over."""

    def __init__(self, why: str) -> None:
        self._why = why
        self._text = ""

    def draw(self, status: Status, is_last: bool) -> None:
        text = said(status, self._why)
        if text != self._text:
            sys.stderr.write(f"\r\x1b[K{text}")
            self._text = text
        if is_last:
            error = f"\nfirst error: {status.first_error[:300]}" if status.first_error else ""
            sys.stderr.write(f"{error}\n")
        sys.stderr.flush()

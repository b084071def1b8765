"""How far a run is, in a terminal: tqdm's bar, below it what that does not say, and in the end one sentence.

What others print meanwhile, and what they log to the terminal, stands above the bar.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import import_module
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, ClassVar

from llmnb.display.answer import clean
from llmnb.jobs.batches.status import BatchStatus
from llmnb.terminals import is_terminal

if TYPE_CHECKING:
    from llmnb.jobs.run import Status

_BATCHES = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}]"
"""Rows of message batches come all at once: a rate of theirs foretells nothing."""
_ERROR_CHARS = 300


class TerminalBar:
    """The last two lines of a terminal. Errors of it are not its user's."""

    def __init__(
        self,
        rate: Callable[[Status], float],
        beside: Callable[[Status], str],
        sentence: Callable[[Status], str],
        unit: str = "rows",
    ) -> None:
        self._unit = f" {unit}"
        self._rate, self._beside, self._sentence = rate, beside, sentence
        self._terminal: Any = sys.stderr
        self._bar: Any = None
        self._facts: Any = None
        self._open = ExitStack()
        self._error = ""

    def draw(self, status: Status, is_last: bool) -> None:
        """Draws how far it is; at the last, what stays."""
        if is_last:
            return self._end(status)
        if status.is_over:
            return None
        if self._bar is None:
            self._begin(status)
        self._show_error(status)
        bar: Any = self._bar
        bar.n, bar.rows_a_second = status.kept + status.done, self._rate(status)
        bar.total = status.rows if status.is_counted else None
        bar.refresh()
        self._facts.set_description_str(self._beside(status))
        return None

    def _begin(self, status: Status) -> None:
        self._open.enter_context(_below(self._terminal))
        bar, told = _kind(), {"file": self._terminal, "dynamic_ncols": True, "leave": False}
        form = _BATCHES if isinstance(status, BatchStatus) else None
        total = status.rows if status.is_counted else None
        self._bar = bar(total=total, initial=status.kept + status.done, unit=self._unit, bar_format=form, **told)
        self._open.callback(self._bar.close)
        self._facts = bar(total=0, bar_format="{desc}", **told)
        self._open.callback(self._facts.close)

    def _show_error(self, status: Status) -> None:
        """The first error stands above the bar as soon as it is there, and once."""
        if status.first_error and not self._error:
            self._error = status.first_error
            self._write(f"first error: {clean(status.first_error[:_ERROR_CHARS])}")

    def _end(self, status: Status) -> None:
        self._open.close()
        self._show_error(status)
        self._write(self._sentence(status))

    def _write(self, line: str) -> None:
        _Above.standing = None  # what was begun has this below it
        _kind().write(line, file=self._terminal)
        self._terminal.flush()


@cache
def _kind() -> Any:
    """tqdm with the rate of the run, and without its watching thread: this bar is drawn often enough."""
    tqdm: Any = import_module("tqdm").tqdm
    tqdm.get_lock()  # the same one for all kinds

    class RunBar(tqdm):
        monitor_interval = 0
        rows_a_second: float | None = None

        @property
        def format_dict(self) -> dict[str, Any]:
            usual: Any = super()
            return {**usual.format_dict, "rate": self.rows_a_second or None}

    return RunBar


# What stands above the bar --------------------------------------------------------------------------------------------

_lock = threading.Lock()
_users: list[int] = []
_undo = ExitStack()


@contextmanager
def _below(terminal: Any) -> Generator[None]:
    """While a bar is shown on `terminal`, lines that others write to it go above the bar.

    Runs of several threads begin and end in any order: the first one redirects, and the last one puts it back.
    """
    with _lock:
        _users.append(1)
        if len(_users) == 1:
            for name in ("stdout", "stderr"):
                with suppress(Exception):
                    _redirect(name, terminal)
    try:
        yield
    finally:
        with _lock:
            _users.pop()
            if not _users:
                _undo.close()


def _redirect(name: str, terminal: Any) -> None:
    stream = getattr(sys, name)
    if not is_terminal(stream):
        return
    above = _Above(stream, terminal)

    def back() -> None:
        above.end()
        if getattr(sys, name) is above:  # and nobody has put another in its place
            setattr(sys, name, stream)

    setattr(sys, name, above)
    _undo.callback(back)
    handlers: list[Any] = [one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler)]
    for handler in handlers:
        if handler.stream is stream:
            handler.setStream(above)
            _undo.callback(handler.setStream, stream)


class _Above:
    """A stream of a terminal whose lines appear above the bars. One that is begun does so when it is flushed: whole, as
    the bars are below it, and again in its place when there is more of it."""

    standing: ClassVar[_Above | None] = None
    """Whose begun line stands right above the bars."""

    def __init__(self, stream: Any, terminal: Any) -> None:
        self._stream, self._terminal = stream, terminal
        self._begun: list[str] = []
        self._shown = ""

    def write(self, text: str) -> int:
        """Writes the lines that are whole by now."""
        lines, newline, rest = text.rpartition("\n")
        if newline:
            self._put(f"{''.join(self._begun)}{lines}\n")
            self._begun, self._shown = [], ""
        self._begin(rest)
        return len(text)

    def flush(self) -> None:
        """Shows what is begun, such as a counter that writes over itself, or dots."""
        begun = "".join(self._begun)
        line = begun.rstrip("\r")
        if not line or line == self._shown:
            return
        self._put(line + "\n")
        if len(line) < get_terminal_size().columns:
            self._begun, self._shown, _Above.standing = [begun], line, self
        else:  # it takes more than one row: what follows begins a new one
            self._begun, self._shown = [], ""

    def end(self) -> None:
        """Writes what is left of a line."""
        line = "".join(self._begun).rstrip("\r")
        if line and line != self._shown:
            self._put(line + "\n")
        self._begun, self._shown, _Above.standing = [], "", None

    def _begin(self, text: str) -> None:
        """Of what a carriage return goes back over only the last is kept."""
        said = text.rstrip("\r")
        if not text:
            return
        if "\r" in said:
            self._begun = [said.rpartition("\r")[2] + text[len(said) :]]
        elif said and self._begun and self._begun[-1].endswith("\r"):
            self._begun = [text]
        else:
            self._begun.append(text)

    def _put(self, text: str) -> None:
        with _kind().external_write_mode(file=self._terminal):
            other = _Above.standing
            is_again = other is self and self._shown
            if other is not None and other is not self:
                other._begun, other._shown = [], ""  # it stays as it is, with this below it
            _Above.standing = None
            self._stream.write(f"\x1b[A\r\x1b[K{text}" if is_again else text)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

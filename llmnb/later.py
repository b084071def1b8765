"""A thread that does pieces of work a moment after it was asked to: the same one for all who write to this machine.

The rows of calls and their answers are written together, so that the thread wakes up once for both.

Asking is safe everywhere, also in a finalizer that runs in the middle of anything and while the interpreter ends:
`SimpleQueue` is reentrant, where an `Event` is not, and a bare thread is not waited for, where `threading.Thread`
waits for its start, for ever when the interpreter is ending.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from llmnb import forks

TOGETHER_S = 0.25
"""What is asked for within this time is done at once. To wake up, to begin a transaction and to end it costs as much
as a dozen rows do."""
IDLE_S = 5.0
"""The thread ends after this time without work."""


class Later:
    """Does `work` soon after each `ask`, once for all that came together.

    Work that may have to wait long, for a server or for another process, is done `apart`, in a thread of its own.
    """

    def __init__(self, work: Callable[[], object], *, apart: bool = False) -> None:
        self._work = work
        self._asked_in = 0  # the process that has asked, which a forked child has not
        self._own = _Thread() if apart else None

    def ask(self) -> None:
        """Has the work done within a moment. Once the interpreter ends, nothing is done any more."""
        if self._asked_in != forks.pid:
            self._asked_in = forks.pid
            if not self._thread.ring(self):
                self._asked_in = 0

    def ask_after(self, delay_s: float) -> None:
        """Has the work done after that time, if nobody asks before."""
        self._thread.ring_after(self, delay_s)

    def is_here(self) -> bool:
        """Whether the code that asks this runs in the thread."""
        return self._thread.ident == threading.get_ident()

    def do(self) -> None:
        """Does the work, here and now."""
        self._asked_in = 0  # before the work: who asks during it wants it done again
        self._work()

    @property
    def _thread(self) -> _Thread:
        return self._own or _shared


class _Thread:
    """A thread while there is work. What has to be done is in a queue, and what is due at some time in a dict."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = forks.pid
        self._bell: SimpleQueue[Later | None] = SimpleQueue()
        self._due: dict[Later, float] = {}
        self.is_running = False
        self.ident: int | None = None

    def ring(self, later: Later | None) -> bool:
        """Has work done within a moment, or None: has the thread look what is due; whether there is a thread."""
        if self._pid != forks.pid:  # the thread is the parent's
            self._begin()
        self._bell.put(later)
        return self.is_running or self._start()

    def ring_after(self, later: Later, delay_s: float) -> None:
        """Has it done after that time, or earlier."""
        self._due[later] = time.monotonic() + delay_s
        self.ring(None)

    def _start(self) -> bool:
        self.is_running = True
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self.is_running = False
        return self.is_running

    def _run(self) -> None:
        self.ident = threading.get_ident()
        try:
            while (first := self._next()) is not None:
                time.sleep(TOGETHER_S)
                self._do([first, *self._all_asked()])
        finally:
            self.ident = None
            self.is_running = False
            # asked when the thread was about to end, or left behind by work that failed
            if not (self._bell.empty() and not self._due) and not self.is_running:
                self._start()

    def _do(self, asked: list[Later]) -> None:
        while asked:
            later = asked.pop(0)
            self._due.pop(later, None)
            try:
                later.do()
            except BaseException:
                for rest in asked:
                    self._bell.put(rest)
                raise

    def _next(self) -> Later | None:
        """Waits for work; None when none came for a while."""
        while True:
            due = min(list(self._due.items()), key=lambda item: item[1], default=None)
            try:
                later = self._bell.get(timeout=IDLE_S if due is None else max(0.0, due[1] - time.monotonic()))
            except Empty:
                if due is not None:
                    return due[0]
                if not self._due:
                    return None
            else:
                if later is not None:
                    return later

    def _all_asked(self) -> list[Later]:
        found: list[Later] = []
        try:
            while True:
                later = self._bell.get_nowait()
                if later is not None:
                    found.append(later)
        except Empty:
            return found


_shared = _Thread()

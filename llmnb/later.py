"""A thread that does a piece of work a moment after it was asked to.

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

TOGETHER_S = 0.1
"""What is asked for within this time is done at once."""
IDLE_S = 5.0
"""The thread ends after this time without work."""


class Later:
    """Does `work` soon after each `ask`, once for all that came together."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asked = False
        self._running = False
        self._thread: int | None = None
        self._due: float | None = None

    def ask(self) -> None:
        """Has the work done within a moment. Once the interpreter ends, nothing is done any more."""
        if self._asked:
            return
        self._asked = True
        self._bell.put(None)
        if not self._running:
            self._start()

    def ask_after(self, delay_s: float) -> None:
        """Has the work done after that time, if nobody asks before."""
        self._due = time.monotonic() + delay_s
        if not self._running:
            self._start()

    def is_here(self) -> bool:
        """Whether the code that asks this runs in the thread."""
        return self._thread == threading.get_ident()

    def _start(self) -> None:
        self._running = True
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self._running = self._asked = False

    def _run(self) -> None:
        self._thread = threading.get_ident()
        try:
            while self._was_asked():
                time.sleep(TOGETHER_S)
                self._asked = False  # before the work: who asks during it wants it done again
                self._work()
        finally:
            self._thread = None
            self._running = False
            if (self._asked or self._due is not None) and not self._running:  # asked when the thread was about to end
                self._start()

    def _was_asked(self) -> bool:
        while True:
            due = self._due
            try:
                self._bell.get(timeout=IDLE_S if due is None else max(0.0, due - time.monotonic()))
                return True
            except Empty:
                if due is None and self._due is None:
                    return False
                if due is not None and due == self._due:
                    self._due = None
                    return True

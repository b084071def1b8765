"""A look at something far away, in a thread: only who has seen nothing yet waits for it, and not for long."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

from llmnb.trouble import quietly

FIRST_LOOK_S = 20.0
"""How long a call waits for the first look, which tells whether there are budgets at all: none may be sent unseen. A
look ends sooner by itself, for want of a connection after some five seconds."""


class LookBehind:
    """Runs `work`, one at a time, in a thread of its own. Safe in threads and after a fork."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self.after_fork()

    @property
    def has_looked(self) -> bool:
        """Whether a look has come to its end since the last `forget`."""
        return self._seen.is_set()

    def look(self) -> None:
        """Begins a look, unless one is under way."""
        with self._lock:
            if self._looking:
                return
            self._looking = True
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self._looking = False

    def wait(self) -> None:
        """Until there was a look since the last `forget`, or what is too long for one is over."""
        if not self._seen.is_set() and not self._seen.wait(FIRST_LOOK_S):
            self._seen.set()  # nobody waits again

    def forget(self) -> None:
        """What was seen counts no more, nor what a look that is under way will see."""
        with self._lock:
            self._number += 1
            self._seen.clear()

    def after_fork(self) -> None:
        """In a forked child: a look that was under way is the parent's."""
        self._lock = threading.Lock()
        self._seen = threading.Event()
        self._looking = False
        self._number = 0

    def _run(self) -> None:
        while True:
            number = self._number
            try:
                self._work()
            except Exception as trouble:
                quietly("looking for budgets", trouble)
            with self._lock:
                if number == self._number:
                    self._looking = False
                    self._seen.set()
                    return

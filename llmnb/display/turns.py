"""One answer at a time on a terminal: where several come at once, each waits for its turn and is drawn whole.

Two live tails on one screen would overwrite each other, and two answers printed as they come would mix word by word.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from llmnb.events import StreamEvent
from llmnb.views import View


class InTurn:
    """`view`, but what it is told before its turn is told then."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._lock = threading.RLock()
        self._held: deque[Callable[[], None]] = deque()
        self._on = False
        self.over = False
        self.asks = True

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """See `View.open`."""
        self._tell(lambda: self.view.open(model, stop))
        _stage().enter(self)

    def show(self, event: StreamEvent) -> None:
        """See `View.show`."""
        self._tell(lambda: self.view.show(event))

    def close(self, error: BaseException | None = None) -> None:
        """See `View.close`."""
        try:
            self._tell(lambda: self.view.close(error))
        finally:  # also when Ctrl-C strikes again
            self.over = True
            _stage().give_on()

    def go_on(self) -> None:
        """It is this view's turn: draw what has come so far, and what comes from now on as it comes."""
        with self._lock:
            try:
                while self._held:
                    self._held.popleft()()
            finally:
                self._on = True

    def _tell(self, act: Callable[[], None]) -> None:
        with self._lock:
            if self._on:
                act()
            else:
                self._held.append(act)


class Stage:
    """Whose turn it is, and who waits."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # taken before a view's lock, never after it
        self._present: InTurn | None = None
        self._waiting: deque[InTurn] = deque()

    def enter(self, view: InTurn) -> None:
        """Begin at once, or stand in line."""
        with self._lock:
            if self._present is None or self._present.over:
                self._present = view
                view.go_on()
            else:
                self._waiting.append(view)

    def give_on(self) -> None:
        """Where an answer is over it is the next one's turn, and that of those behind it that have ended meanwhile."""
        with self._lock:
            while self._present is not None and self._present.over:
                self._present = self._waiting.popleft() if self._waiting else None
                if self._present is not None:
                    self._present.go_on()


_stages: dict[int, Stage] = {}


def _stage() -> Stage:
    """The stage of this process (those who were at work in the parent of a fork do not come back)."""
    return _stages.setdefault(os.getpid(), Stage())

"""When a live view is drawn: 15 times a second, the last change soon after it came, keyframes in between."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator

FRAME_S = 0.066
"""Seconds between frames: 15 a second look fluent, and what surrounds a frame (its message, three threads that wake for
it) costs as much as its drawing."""
IDLE_S = 5.0
"""Seconds after which an alarm without appointments lets its thread end."""
LOAD = 5
"""A frame that was dear to draw is followed by at least this many times its cost without one."""


def next_frame(due: float, now: float, spent_s: float) -> float:
    """When to draw again after the frame that was due at `due` was drawn at `now`, which took `spent_s`.

    By the time it was due, so that threads that wake a little late do not make frames fewer.
    """
    on_time = min(due, now) + FRAME_S  # a keyframe may have come before
    return max(on_time if on_time > now + FRAME_S / 2 else now + FRAME_S, now + LOAD * spent_s)


def keyframe_times(growth: int = 2) -> Iterator[float]:
    """Seconds after the start at which everything is sent: a front end can miss the first messages, and any other.

    `growth` is 2 where a front end that missed one cannot ask while the cell blocks, more where it can.
    """
    yield from (0.15, 0.5, 1.0)
    yield from (float(growth**n) for n in itertools.count(1))


class Alarm:
    """Calls back at given times from one daemon thread; what it calls must not raise and must not take long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call `call` once, at `when` on the clock or soon after."""
        with self._changed:
            appointment = (when, next(self._count), call)
            heapq.heappush(self._due, appointment)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llmnb-display", daemon=True)
                self._thread.start()
            elif self._due[0] is appointment:
                self._changed.notify()

    def _run(self) -> None:
        while call := self._next():
            call()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                if not self._due:
                    self._changed.wait(IDLE_S)
                if not self._due:
                    self._thread = None  # nothing to do: let the thread end
                    return None
                wait_s = self._due[0][0] - self._clock()
                if wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)


_alarms: dict[int, Alarm] = {}


def alarm() -> Alarm:
    """The alarm of this process (threads do not survive a fork)."""
    return _alarms.get(os.getpid()) or _alarms.setdefault(os.getpid(), Alarm())

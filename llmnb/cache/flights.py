"""Questions under way: who asks what another thread, task or process is asking already waits for its answer.

One flight leads a question; the others look now and then whether its answer is there. Nobody waits for a flight that
cannot be expected to arrive: one that failed, one whose stream is not being read on, one of the very thread and task
that would wait, or one of a task whose event loop the wait would block. A stream that is read ahead for them is waited
for as long as anything comes of it. Nothing here takes a lock: a stream may end in a finalizer, in the middle of
anything.
"""

from __future__ import annotations

import _thread
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

from llmnb.records import current_context
from llmnb.slots import BLOCKED, Owner, holds_up, this_owner

STALL_S = 1.0
"""A stream whose reader has left it alone for this long is no longer waited for."""

PATIENCE_S = 600.0
"""Longest wait for another process; the SDK's own timeout of a request."""


class Reading(Protocol):
    """How far a stream is."""

    @property
    def chunk_count(self) -> int:
        """Chunks that have come."""
        ...

    @property
    def is_suspended(self) -> bool:
        """Whether nobody is waiting for the next chunk: the reader does something else."""
        ...


class Flight:
    """One question under way. `is_over` once it has arrived or failed, or cannot be waited for."""

    is_over = False
    answered = False
    claimed = False
    _reading: weakref.ref[Reading] | None = None
    _seen: tuple[int, float] | None = None

    def __init__(self, key: str) -> None:
        self.key = key
        self.owner: Owner = this_owner()
        self.asked_by = current_context().owner

    @property
    def is_own(self) -> bool:
        """Whether whoever asks here and now reads it: what is asked inside the loop over a stream."""
        return self.asked_by is not None and self.asked_by == current_context().owner

    @property
    def reading(self) -> Reading | None:
        """The stream that it has become; None before, and once nobody has that any more."""
        return None if self._reading is None else self._reading()

    @reading.setter
    def reading(self, stream: Reading) -> None:
        self._reading = weakref.ref(stream)  # a stream that is dropped ends at once: it is not to be kept by this

    @property
    def chunk_count(self) -> int:
        """How far it has come."""
        reading = self.reading
        return 0 if reading is None else reading.chunk_count

    def lands(self) -> bool:
        """It is claimed no longer; whether it was."""
        was_claimed, self.claimed = self.claimed, False
        return was_claimed

    def is_stalled(self, now: float) -> bool:
        """Whether it is a stream that nobody reads on; to be asked again and again."""
        reading = self.reading
        if reading is None or not reading.is_suspended:
            self._seen = None
            return False
        count = reading.chunk_count
        if self._seen is None or self._seen[0] != count:
            self._seen = count, now
        return now - self._seen[1] > STALL_S


class Halt:
    """Looks whether nothing more comes of a flight: of one's own stream, which is not to be waited for without end."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._seen: tuple[int, float] | None = None

    def has_come(self, now: float) -> bool:
        """Whether nothing has come for a while; to be asked again and again."""
        count = self._flight.chunk_count
        if self._seen is None or self._seen[0] != count:
            self._seen = count, now
        return now - self._seen[1] > STALL_S


class Flights:
    """The flights of this process. `claim`, `renew` and `release` tell other processes of them."""

    def __init__(
        self,
        claim: Callable[[str], bool],
        renew: Callable[[Sequence[str]], None],
        release: Callable[[str], None],
        *,
        period_s: float = 1.0,
    ) -> None:
        self._claim = claim
        self._renew = renew
        self._release = release
        self._period_s = period_s
        self.forget()

    def forget(self) -> None:
        """Forgets all of them: they are the parent's, in a forked child."""
        self._under_way: dict[str, Flight] = {}
        self._watching = False

    def lead(self, key: str) -> Flight | None:
        """A flight of one's own; None when somebody else is asking."""
        flight = Flight(key)
        if self._under_way.setdefault(key, flight) is not flight:
            return None
        if not self._claim(key):
            self._drop(flight)
            return None
        flight.claimed = True
        if not self._watching:
            self._watching = True
            self._start()
        return flight

    def other(self, key: str) -> Flight | None:
        """The flight of this process that leads the question."""
        return self._under_way.get(key)

    def arrived(self, flight: Flight, *, answered: bool) -> None:
        """The flight is over. One that was answered stays claimed until its answer can be found by other processes."""
        flight.answered = answered
        self._drop(flight)
        if not answered:
            self.landed(flight)

    def landed(self, flight: Flight) -> None:
        """Other processes find the answer, or may ask themselves."""
        if flight.lands():
            self._release(flight.key)

    def _drop(self, flight: Flight) -> None:
        flight.is_over = True
        if self._under_way.get(flight.key) is flight:
            del self._under_way[flight.key]

    # The watch: a thread while anything is under way ------------------------------------------------------------------

    def _start(self) -> None:
        try:
            _thread.start_new_thread(self._watch, ())
        except RuntimeError:  # the interpreter is ending, or there are too many threads
            self._watching = False

    def _watch(self) -> None:
        idle = 0
        while idle < 5:
            time.sleep(self._period_s)
            idle = 0 if self.look(time.monotonic()) else idle + 1
        self._watching = (
            False  # who comes at this very moment has no watch: his question is short, or the next starts one
        )

    def look(self, now: float) -> bool:
        """Gives up what is stalled, renews the rest; whether anything is under way."""
        flights = list(self._under_way.values())
        for flight in flights:
            if flight.is_stalled(now):
                self.arrived(flight, answered=False)
        claimed = [flight.key for flight in flights if flight.claimed]
        if claimed:
            self._renew(claimed)
        return bool(flights)


def is_worth_waiting(other: Flight | None, *, blocks: bool) -> bool:
    """Whether the flight, or one of another process where it is None, may arrive while this thread or task waits.

    `blocks` says that it is the thread that waits.
    """
    if other is None:
        return True
    if other.is_over or other.owner == this_owner():
        return False
    blocked = this_owner() if blocks else BLOCKED.get()
    return blocked is None or not holds_up(blocked, other.asked_by or other.owner)

"""The server's clock: real, scaled, moved by hand, or jumping over every wait.

Everything the simulator does by time reads this clock: cache TTLs, rate-limit windows, batches, token rates, stalls.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Self

_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class Clock:
    """Seconds since the epoch, at `scale` times the speed of the wall clock.

    `start` is where it begins (now, when left out). With `scale=0` it stands still until `advance()`. With `jump=True`
    it stands still too, and a wait moves it instead of passing time: no test sleeps for real.
    """

    def __init__(self, start: float | None = None, *, scale: float = 1.0, jump: bool = False) -> None:
        if scale < 0:
            raise ValueError("scale must be 0 or more: a clock cannot run backwards")
        self._base = time.time() if start is None else start
        self._scale = 0.0 if jump else scale
        self._jump = jump
        self._origin = time.monotonic()
        self._lock = threading.Lock()
        self._waiters: set[_Waiter] = set()

    @classmethod
    def frozen(cls, start: float | None = None) -> Self:
        """A clock that stands still until it is advanced."""
        return cls(start, scale=0.0)

    @classmethod
    def jumping(cls, start: float | None = None) -> Self:
        """A clock on which every wait is over at once, and has moved the time by its length."""
        return cls(start, jump=True)

    @property
    def scale(self) -> float:
        """Clock seconds in one real second."""
        return self._scale

    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self._base + (time.monotonic() - self._origin) * self._scale

    @property
    def waits(self) -> int:
        """How many waits are under way: of a clock that stands still, those that `advance` may end."""
        with self._lock:
            return len(self._waiters)

    def advance(self, seconds: float) -> None:
        """Move the time forward, and wake every wait that this ends. Callable from any thread."""
        if seconds < 0:
            raise ValueError("seconds must be 0 or more: a clock cannot run backwards")
        with self._lock:
            self._base += seconds
            waiters = list(self._waiters)
        for loop, event in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def real_s(self, seconds: float) -> float:
        """How long a client sleeps for so many seconds of this clock; with `jump` not at all, and the time has moved.

        On a clock that stands still a moment: somebody is to advance it.
        """
        if self._jump:
            self.advance(seconds)
            return 0.0
        return seconds / self._scale if self._scale else 0.001

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock; on a clock that stands still, until it has been advanced that far."""
        if seconds <= 0:
            return
        if self._jump:
            self.advance(seconds)
            await asyncio.sleep(0)
            return
        deadline = self.now() + seconds
        while (left := deadline - self.now()) > 1e-6:
            await self._wait_for_a_move(left / self._scale if self._scale else None)

    async def _wait_for_a_move(self, real_seconds: float | None) -> None:
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiters.add(waiter)
        try:
            async with asyncio.timeout(real_seconds):
                await waiter[1].wait()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiters.discard(waiter)


_stamps: dict[int, str] = {}


def rfc3339(seconds: float) -> str:
    """A time as the API writes it: `2026-11-21T09:30:00Z`."""
    whole = int(seconds)
    stamp = _stamps.get(whole)
    if stamp is None:
        if len(_stamps) > 256:
            _stamps.clear()
        stamp = _stamps[whole] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(whole))
    return stamp

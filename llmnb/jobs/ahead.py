"""The rows of a run, made in a thread a little ahead of those who ask them.

Whatever the rows come from may take its time, or hang: files, a user's generator, a user's function that writes
prompts. On the event loop that would hold up every other row, Stop and the progress. No more rows wait than are asked
at once, or than some text takes up, so that memory is bound by these.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

from llmnb.errors import LlmnbError
from llmnb.jobs.asking import Row

Made: TypeAlias = Row | Exception
"""A row, or why there is none."""

_MOST_CHARS = 2_000_000
_LEAST_ROWS = 256


class Ahead:
    """What comes of `prompts`, as rows. All but the making is called on one event loop.

    Args:
        prompts: in the order of the rows; in the place of one that cannot be made, the error.
        concurrency: how many rows are asked at once.
    """

    def __init__(self, prompts: Iterable[Any], concurrency: int) -> None:
        self._prompts = prompts
        self._least = _MOST_CHARS // max(_LEAST_ROWS, concurrency)
        self._of_blocks = _MOST_CHARS // concurrency  # of pictures and documents as many wait as are asked
        self._made: deque[tuple[Made, int]] = deque()
        self._put = self._taken = 0  # each is changed by one thread
        self._has_room = threading.Event()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_hungry = self._is_over = self._is_closed = False
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def take(self) -> Made | None:
        """The next, if it is there."""
        if not self._made:
            return None
        made, weight = self._made.popleft()
        self._taken += weight
        if not self._has_room.is_set() and self._put - self._taken <= _MOST_CHARS // 2:
            self._has_room.set()
        return made

    async def wait(self) -> bool:
        """Until one is there; False when there is none any more."""
        if self._loop is None:
            self._begin()
        while not self._made and not self._is_over:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            self._wake()
            await waiter
        return bool(self._made)

    def check(self) -> None:
        """Raises what the rows ended with, if that was an error."""
        if isinstance(self._error, Exception):
            raise self._error
        if self._error is not None:
            raise LlmnbError(f"what gives the rows ended with {self._error!r}") from self._error

    def close(self) -> None:
        """No more rows are made, but for the one that is being made now."""
        self._is_closed = True
        self._has_room.set()

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        # a daemon: what hangs in it must not keep the process
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._make,), name="llmnb-rows", daemon=True).start()

    def _wake(self) -> None:
        """Wakes as many as there are rows; the others go on waiting."""
        self._is_hungry = True  # said before it is looked: what comes in between wakes again
        ready = len(self._waiters) if self._is_over else len(self._made)
        while ready and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():  # else it was cancelled
                waiter.set_result(None)
                ready -= 1
        self._is_hungry = bool(self._waiters)

    # in the thread

    def _make(self) -> None:
        rows = _rows(self._prompts)
        try:
            for made in rows:
                weight = self._weight(made)
                while self._put - self._taken >= _MOST_CHARS and not self._is_closed:
                    self._has_room.clear()
                    if self._put - self._taken >= _MOST_CHARS and not self._is_closed:
                        self._has_room.wait()
                if self._is_closed:
                    return
                self._put += weight
                self._made.append((made, weight))
                if self._is_hungry:
                    self._tell()
        except BaseException as error:
            self._error = error
        finally:
            self._is_over = True
            self._tell()

    def _tell(self) -> None:
        assert self._loop is not None
        self._is_hungry = False
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake)

    def _weight(self, made: Made) -> int:
        if isinstance(made, Row) and not isinstance(made.content, str):
            return self._of_blocks
        return self._least if isinstance(made, Exception) else max(len(made.content), self._least)


def _rows(prompts: Iterable[Any]) -> Iterator[Made]:
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, Exception):
            yield prompt
            continue
        try:
            row = Row.of(prompt, number)
        except Exception as error:
            yield error
        else:
            yield row

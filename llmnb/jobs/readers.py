"""What reads an iterator for a run: a thread, or for an async iterator a task on the loop that it belongs to.

Either is a little ahead of whoever takes the rows, in another thread, and waits when so many have not been taken.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from llmnb.errors import LlmnbError
from llmnb.trouble import LlmnbWarning, warn_user

AHEAD = 1_000
CLOSES_S = 5.0
"""So long an async iterator may take to close; then it is left alone with it."""
_POLL_S = 0.1
"""A Ctrl-C that comes just before a thread begins to wait does not wake it, and on Windows none does."""
_BREATHES_S = 0.005
"""An async iterator whose rows are all there does not let the loop go by itself."""


class Reader:
    """Rows that have come, and wait to be taken. `error` is what the iterator ended with, if it was one."""

    how = ""
    """Where the rows are read, for whoever looks for an error in them."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._waiting: list[Any] = []
        self._is_over = self._is_closed = False

    def take(self, patience_s: float = 0.0) -> list[Any]:
        """Those that have come, or the next one; more are waited for so long, if more than one. Empty at the end."""
        with self._changed:
            while not self._waiting and not self._is_over:
                self._changed.wait(_POLL_S)
            until = time.monotonic() + patience_s
            while len(self._waiting) < AHEAD and not self._is_over and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, _POLL_S))
            taken, self._waiting = self._waiting, []
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """No more rows are read, but for the one that is waited for now."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class ThreadReader(Reader):
    """Reads an iterator in a thread."""

    how = "in a thread of its own"

    def __init__(self, rows: Iterator[Any]) -> None:
        super().__init__()
        # a daemon: an iterator that hangs must not keep the process
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._read, rows), name="llmnb-iterator", daemon=True).start()

    def _read(self, rows: Iterator[Any]) -> None:
        try:
            for row in rows:
                with self._changed:
                    self._waiting.append(row)
                    self._changed.notify_all()
                    while len(self._waiting) >= AHEAD and not self._is_closed:
                        self._changed.wait()
                    if self._is_closed:
                        return
        except BaseException as error:
            note_threads(error)
            self.error = error
        finally:
            self._end()


class TaskReader(Reader):
    """Reads an async iterator in a task on the running loop; what takes its rows does so in another thread."""

    how = "in a task of its own"

    def __init__(self, rows: AsyncIterable[Any]) -> None:
        super().__init__()
        self._rows = aiter(rows)
        self._loop = asyncio.get_running_loop()
        self._has_room = asyncio.Event()
        self._is_full = False
        self._task = asyncio.ensure_future(self._read())

    def take(self, patience_s: float = 0.0) -> list[Any]:
        taken = super().take(patience_s)
        if self._is_full:
            with suppress(RuntimeError):  # the loop is closed: nothing more comes
                self._loop.call_soon_threadsafe(self._has_room.set)
        return taken

    async def aclose(self) -> None:
        """Ends the reading, also while a row is waited for, and closes the iterator."""
        self.close()
        self._task.cancel()
        _, late = await asyncio.wait([self._task], timeout=CLOSES_S)
        if not self._is_over:  # the task goes on, or had not begun
            self.error = _closed()
            self._end()
        if late:
            warn_user(
                f"the async iterator of the rows goes on, {CLOSES_S:g} s after it was told to end: something in it "
                "catches CancelledError, or waits in a finally. What was answered is kept.",
                LlmnbWarning,
            )

    async def _read(self) -> None:
        try:
            await self._read_all()
        except BaseException as error:
            is_ours = self._is_closed and isinstance(error, asyncio.CancelledError)
            self.error = _closed() if is_ours else error
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self._end()
            await self._close_rows()

    async def _read_all(self) -> None:
        breathed = time.monotonic()
        async for row in self._rows:
            with self._changed:
                self._waiting.append(row)
                self._changed.notify_all()
            if self._is_closed:  # and the iterator made nothing of the cancellation
                raise asyncio.CancelledError
            while len(self._waiting) >= AHEAD:
                self._has_room.clear()
                self._is_full = True
                if len(self._waiting) >= AHEAD:  # said before it is looked: what takes them now tells
                    await self._has_room.wait()
                self._is_full = False
            if time.monotonic() - breathed > _BREATHES_S:
                await asyncio.sleep(0)
                breathed = time.monotonic()

    async def _close_rows(self) -> None:
        close = getattr(self._rows, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception as error:  # the rows have come, and their answers are paid
            warn_user(f"the async iterator of the rows did not close: {error!r}", LlmnbWarning)


def note_threads(error: BaseException) -> None:
    """Says what to do where an iterator may be read in one thread only, as a cursor of SQLite may."""
    told = (
        "llmnb: `amap`, and `map` with out=, read an iterator in a thread of its own. If this one may be read only "
        "where it was made, give a list of its rows: `list(cursor)`."
    )
    is_elsewhere = threading.current_thread() is not threading.main_thread()
    if is_elsewhere and "thread" in str(error) and told not in getattr(error, "__notes__", ()):
        error.add_note(told)


def _closed() -> LlmnbError:
    return LlmnbError("the async iterator was closed when its run ended")


@asynccontextmanager
async def reading(rows: Any) -> AsyncGenerator[Any]:
    """The rows as they are, or what reads them if they are an async iterator, which is closed in the end."""
    if not isinstance(rows, AsyncIterable):
        yield rows
        return
    reader = TaskReader(cast("AsyncIterable[Any]", rows))
    try:
        yield reader
    finally:
        await reader.aclose()

"""How many requests of this process may be under way at once: one fair queue for threads, tasks and loops together.

A slot is held from the request until its body ended. Waiting is first come, first served, and giving up (a timeout, a
cancelled task, Ctrl-C) neither loses nor leaks a slot. A call made while its own thread or task holds a slot open, such
as a question asked inside `for event in llm.stream(…)`, does not wait for itself: it goes ahead. So does a call that
blocks an event loop, such as `llm(…)` in a notebook, while a task of that loop holds a slot or stands in the queue.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter, deque
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from typing import TypeAlias

Owner: TypeAlias = tuple[int, int]
BLOCKED: ContextVar[Owner | None] = ContextVar("BLOCKED", default=None)
"""Who is blocked in another thread, waiting for what is done here."""
_Waiter: TypeAlias = "tuple[Future[None], Owner, int]"


class Slots:
    """A counter with a queue; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[Owner] = Counter()
        self._under_way = 0
        self._waiting: deque[_Waiter] = deque()
        self._left: deque[Owner] = deque()  # slots given back and not yet counted

    @property
    def under_way(self) -> int:
        """Slots that are held now."""
        return self._under_way

    def hold(self, limit: int, owner: Owner) -> AbstractContextManager[None]:
        """Waits for a slot, at most `limit` of which are held at once, and holds it."""
        return _Held(self, limit, owner)

    def enter(self, limit: int, owner: Owner) -> None:
        """Waits for a slot; `leave` gives it back."""
        waiter = self._enter(owner, limit, owner)
        if waiter is not None:
            try:
                waiter.result()
            except BaseException:
                self._give_up(waiter, owner)
                raise

    def ahold(self, limit: int, owner: Owner) -> AbstractAsyncContextManager[None]:
        """`hold` without blocking the event loop."""
        return _AsyncHeld(self, limit, owner)

    async def aenter(self, limit: int, owner: Owner) -> None:
        """`enter` without blocking the event loop."""
        waiter = self._enter(owner, limit, BLOCKED.get())
        if waiter is not None:
            try:
                await asyncio.wrap_future(waiter)
            except BaseException:
                self._give_up(waiter, owner)
                raise

    def _enter(self, owner: Owner, limit: int, blocked: Owner | None) -> Future[None] | None:
        """Takes a slot, or a place in the queue: then what to wait for."""
        waiter: Future[None] | None = None
        with self._lock:
            free = self._under_way < limit and not self._waiting
            if free or self._held[owner] or (blocked is not None and self._is_behind(blocked)):
                self._take(owner)
            else:
                waiter = Future[None]()
                self._waiting.append((waiter, owner, limit))
        if self._left:
            self._count_left()
        return waiter

    def _is_behind(self, blocked: Owner) -> bool:
        """Whether a task that cannot go on has a slot, or would have one before."""
        return any(holds_up(blocked, other) for other in [*self._held, *(waiter[1] for waiter in self._waiting)])

    def _take(self, owner: Owner) -> None:
        self._under_way += 1
        self._held[owner] += 1

    def _give_up(self, waiter: Future[None], owner: Owner) -> None:
        if not waiter.cancel():  # the slot was granted while we were giving up
            self.leave(owner)
        else:
            self._grant()  # whoever stood behind a cancelled waiter may be next

    def leave(self, owner: Owner) -> None:
        """Gives a slot back."""
        # a stream that was dropped leaves in a finalizer, which may run in the middle of anything, with the lock held
        # by this very thread: whoever holds it counts what was left as soon as it is free
        self._left.append(owner)
        self._count_left()

    def _count_left(self) -> None:
        while self._left and self._lock.acquire(blocking=False):
            try:
                while self._left:  # nobody takes from it without the lock
                    self._give_back(self._left.popleft())
            finally:
                self._lock.release()
            if self._waiting:
                self._grant()

    def _give_back(self, owner: Owner) -> None:
        self._under_way -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]

    def _grant(self) -> None:
        granted: list[Future[None]] = []
        with self._lock:
            while self._waiting:
                waiter, owner, limit = self._waiting[0]
                if self._under_way >= limit and not waiter.cancelled():
                    break
                self._waiting.popleft()
                if waiter.set_running_or_notify_cancel():
                    self._take(owner)
                    granted.append(waiter)
        for waiter in granted:  # outside the lock: it runs callbacks
            waiter.set_result(None)
        self._count_left()


class _Held(AbstractContextManager[None]):
    # no generator: this stands in the way of every call
    __slots__ = ("_limit", "_owner", "_slots")

    def __init__(self, slots: Slots, limit: int, owner: Owner) -> None:
        self._slots, self._limit, self._owner = slots, limit, owner

    def __enter__(self) -> None:
        self._slots.enter(self._limit, self._owner)

    def __exit__(self, *_: object) -> None:
        self._slots.leave(self._owner)


class _AsyncHeld(AbstractAsyncContextManager[None]):
    __slots__ = ("_limit", "_owner", "_slots")

    def __init__(self, slots: Slots, limit: int, owner: Owner) -> None:
        self._slots, self._limit, self._owner = slots, limit, owner

    async def __aenter__(self) -> None:
        await self._slots.aenter(self._limit, self._owner)

    async def __aexit__(self, *_: object) -> None:
        self._slots.leave(self._owner)


def this_owner() -> Owner:
    """Who asks here: the running thread and, in a coroutine, its task."""
    loop = asyncio._get_running_loop()  # the public one raises where none runs, which takes ten times as long
    task = None if loop is None else asyncio.current_task(loop)
    return threading.get_ident(), 0 if task is None else id(task)


def holds_up(blocked: Owner, other: Owner) -> bool:
    """Whether a task cannot go on while the thread that is blocked waits, whose event loop is the task's."""
    return other[0] == blocked[0] and other[1] not in (0, blocked[1])


slots = Slots()


def _after_fork() -> None:
    global slots
    slots = Slots()  # the child has none of the parent's requests


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
